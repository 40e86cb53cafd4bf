import asyncio
import random
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.helpers import FAST, OPTIONS, environment, guests, until, written
from thanx_async import SQLiteLedger
from thanx_async.emulator import Emulator, Faults
from thanx_async.ledger import BatchState

pytestmark = [pytest.mark.realtime, pytest.mark.timeout(180)]
ISSUED, WRONG_USE = 0, 2
KILLS = 20


async def start(url: str, path: Path, *arguments: str) -> asyncio.subprocess.Process:
    """A process with limits of its own: what a killed one left in the shared ones would hold it up."""
    variables = environment(url, XDG_STATE_HOME=str(path.parent / uuid4().hex))
    command = [sys.executable, "-m", "thanx_async", *arguments, "--ledger", str(path)]
    return await asyncio.create_subprocess_exec(
        *command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    out, error = await process.communicate()
    return process.returncode, (out + error).decode()


async def test_killed_again_and_again(tmp_path: Path) -> None:
    """The same command line, killed at random moments, at last finishes: each guest has one reward."""
    dice, path = random.Random(4), tmp_path / "ledger.sqlite"
    file = written(tmp_path / "guests.txt", *guests(200))
    command = ["issue", file, *OPTIONS, "--batch-size", "5"]
    async with Emulator(limits=[], speed=FAST, faults=Faults(delay=0.02)) as emulator:
        for _ in range(KILLS):
            requests = len(emulator.requests)
            process = await start(emulator.url, path, *command)
            wanted = requests + dice.randrange(1, 5)
            while len(emulator.requests) < wanted and process.returncode is None:
                await asyncio.sleep(0.005)
            await asyncio.sleep(dice.random() * 0.05)
            if process.returncode is None:
                process.kill()
            await process.communicate()
        status, text = await ended(await start(emulator.url, path, *command))
        assert status == ISSUED, text
        assert "Continuing run guests.txt-" in text
        assert emulator.reward_counts() == dict.fromkeys(guests(200), 1)
        assert emulator.jobs_accepted == 40
        status, text = await ended(await start(emulator.url, path, *command))
        assert status == WRONG_USE
        assert "already complete: 200 issued, 0 failed, on" in text
    async with SQLiteLedger(path) as ledger:
        [run] = await ledger.runs()
        records = await ledger.batches(run.run_id)
    assert [row.state for row in records] == [BatchState.FINISHED] * 40


async def test_two_processes_at_one_run(tmp_path: Path) -> None:
    """Started twice at the same time, two commands do not disturb each other; nobody gets two rewards."""
    path = tmp_path / "ledger.sqlite"
    file = written(tmp_path / "guests.txt", *guests(60))
    command = ["issue", file, *OPTIONS, "--batch-size", "5", "--run-id", "march"]
    async with Emulator(limits=[], speed=FAST) as emulator:
        first = await start(emulator.url, path, *command)
        await until(lambda: emulator.requests)
        first.kill()
        await first.communicate()
        both = await asyncio.gather(
            start(emulator.url, path, *command), start(emulator.url, path, "resume", "march")
        )
        ends = await asyncio.gather(*map(ended, both))
        assert all(
            status == ISSUED or "being worked on" in text or "run `issue`" in text for status, text in ends
        )
        status, text = await ended(await start(emulator.url, path, *command))
        assert status in {ISSUED, WRONG_USE}, text
        assert emulator.reward_counts() == dict.fromkeys(guests(60), 1)
        assert emulator.jobs_accepted == 12
