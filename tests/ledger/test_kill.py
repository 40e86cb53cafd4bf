import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from tests.batching.test_collector_failures import poison_is_refused
from tests.helpers import FAST, OPTIONS, USUAL, guests, impatient, issuing, recording, until, written
from tests.ledger.commands import Command
from thanx_async import SQLiteLedger
from thanx_async._batches import values_of
from thanx_async.emulator import Emulator, Faults, ScriptedAnswer
from thanx_async.ledger import BatchState

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the commands are forked"),
]
ISSUED, WRONG_USE = 0, 2
KILLS = 20


async def killed(begun: Command, emulator: Emulator, requests: int, seconds: float) -> int | None:
    """Kill a command some time after Thanx has had so many requests; its exit status."""
    await until(lambda: len(emulator.requests) >= requests or not begun.process.is_alive())
    await asyncio.sleep(seconds)
    begun.process.kill()
    return (await begun.ended())[0]


async def test_killed_again_and_again(tmp_path: Path) -> None:
    """The same command line, killed at random moments, at last finishes: each guest has one reward."""
    dice, path = random.Random(4), tmp_path / "ledger.sqlite"
    file = written(tmp_path / "guests.txt", *guests(300))
    command = ["issue", file, *OPTIONS, "--batch-size", "5"]
    async with Emulator(limits=[], speed=FAST, faults=Faults(delay=0.02)) as emulator:
        for _ in range(KILLS):
            wanted = len(emulator.requests) + dice.randrange(1, 5)
            begun = Command(emulator.url, path, *command)
            assert await killed(begun, emulator, wanted, dice.random() * 0.05) == -signal.SIGKILL
        status, text = await Command(emulator.url, path, *command).ended()
        assert status == ISSUED, text
        assert "Continuing run guests.txt-" in text
        assert emulator.reward_counts() == dict.fromkeys(guests(300), 1)
        assert emulator.jobs_accepted == 60
        status, text = await Command(emulator.url, path, *command).ended()
        assert status == WRONG_USE
        assert "already complete: 300 issued, 0 failed, on" in text
    async with SQLiteLedger(path) as ledger:
        [run] = await ledger.runs()
        records = await ledger.batches(run.run_id)
    assert [row.state for row in records] == [BatchState.FINISHED] * 60


async def test_two_processes_at_one_run(tmp_path: Path) -> None:
    """Started twice at the same time, two commands do not disturb each other; nobody gets two rewards."""
    path = tmp_path / "ledger.sqlite"
    file = written(tmp_path / "guests.txt", *guests(60))
    command = ["issue", file, *OPTIONS, "--batch-size", "5", "--run-id", "march"]
    async with Emulator(limits=[], speed=FAST) as emulator:
        first = Command(emulator.url, path, *command)
        await killed(first, emulator, 1, 0)
        both = [Command(emulator.url, path, *command), Command(emulator.url, path, "resume", "march")]
        ends = await asyncio.gather(*(begun.ended() for begun in both))
        assert all(
            status == ISSUED or "being worked on" in text or "run `issue`" in text for status, text in ends
        )
        status, text = await Command(emulator.url, path, *command).ended()
        assert status in {ISSUED, WRONG_USE}, text
        assert emulator.reward_counts() == dict.fromkeys(guests(60), 1)
        assert emulator.jobs_accepted == 12


@pytest.mark.parametrize("bad", [0, 9])
async def test_a_service_that_dies_between_two_halves(tmp_path: Path, bad: int) -> None:
    """Both halves of a batch that blamed a guest are in the ledger: nobody is forgotten, or issued twice."""
    path, names = tmp_path / "ledger.sqlite", guests(10)
    names[bad] = "poison@example.com"
    async with Emulator(limits=[], speed=FAST, fails=poison_is_refused) as emulator:
        emulator.script(USUAL, ScriptedAnswer(fault="answer_lost"))
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.ledger.adding", emulator.url, str(path), *names
        )
        await until(lambda: len(issuing(emulator)) == 2)
        service.kill()
        await service.wait()
        async with SQLiteLedger(path) as ledger, impatient(emulator.url) as client:
            assert [len(batch.positions) for batch in await ledger.in_doubt()] == [5, 5]
            await recording(client, ledger).recover()
            [doubt] = await ledger.in_doubt()
            body = await ledger.body(doubt.run_id, doubt.number)
    issued = emulator.reward_counts()
    assert set(issued.values()) == {1}
    assert sorted([*issued, *values_of(body)]) == sorted(names)
