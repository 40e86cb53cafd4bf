import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import FAST, guests, in_thread
from tests.ledger.steps import EACH, CountingLoop, issue
from thanx_async import IssuanceStream, SQLiteLedger
from thanx_async.emulator import Emulator
from thanx_async.ledger import BatchRecord, BatchState

pytestmark = pytest.mark.realtime


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the sweep forks a process for each step")
def test_a_crash_at_every_step(quick_path: Path) -> None:
    """A process that dies at any step of its loop, and is started again, gives each guest one reward."""
    with in_thread(Emulator(limits=[], speed=FAST)) as emulator:
        command = [sys.executable, "-m", "tests.ledger.crash", emulator.url, str(quick_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        steps = int(done.stdout)
        assert steps > 50
        assert emulator.reward_counts() == dict.fromkeys(guests((steps + 1) * EACH), 1)


async def recorded(path: Path, number: int) -> list[BatchRecord]:
    async with SQLiteLedger(path) as ledger:
        return await ledger.batches(f"run {number}")


def run_until(url: str, path: Path, number: int, at: int, streams: list[IssuanceStream]) -> bool:
    """Cancel a run at a step of its loop; False if it was over before."""
    with asyncio.Runner(loop_factory=lambda: CountingLoop(at, lambda: task.cancel())) as runner:
        task = runner.get_loop().create_task(issue(url, path, number, streams))
        try:
            runner.get_loop().run_until_complete(task)
        except asyncio.CancelledError:
            return True
    return False


def test_cancelling_at_every_step(quick_path: Path) -> None:
    """Cancelled at any step, the run, its account and its ledger agree, and a second run completes it."""
    path, number, cancelled = quick_path, 0, True
    with in_thread(Emulator(limits=[], speed=FAST)) as emulator:
        while cancelled:
            number += 1
            streams: list[IssuanceStream] = []
            cancelled = run_until(emulator.url, path, number, number, streams)
            if streams:
                check_agreement(streams[0], asyncio.run(recorded(path, number)), emulator)
            asyncio.run(issue(emulator.url, path, number, [], again=True))
        assert number > 50
        assert emulator.reward_counts() == dict.fromkeys(guests(number * EACH, start=EACH), 1)


def check_agreement(stream: IssuanceStream, records: list[BatchRecord], emulator: Emulator) -> None:
    run = stream.run
    counts = run.report().counts
    assert sum(counts.values()) == run.total
    states = {record.key: record.state for record in records}
    assert {key for key, state in states.items() if state is BatchState.IN_DOUBT} == {
        batch.key for batch in run.in_doubt
    }
    assert {record.job_id for record in records if record.job_id} == {handle.id for handle in run.handles}
    unsent = {batch.key for batch in run.unsent if batch.key}
    assert not unsent & set(states)
    assert not unsent & {request.idempotency_key for request in emulator.requests}
