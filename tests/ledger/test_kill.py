import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from tests.helpers import FAST, OPTIONS, guests, until, written
from tests.ledger.commands import Command
from thanx_async import SQLiteLedger
from thanx_async.emulator import Emulator, Faults
from thanx_async.ledger import BatchState

pytestmark = [
    pytest.mark.realtime,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the commands are forked"),
]
ISSUED, WRONG_USE = 0, 2
KILLS = 20


async def test_killed_again_and_again(tmp_path: Path) -> None:
    """The same command line, killed at random moments, at last finishes: each guest has one reward."""
    dice, path = random.Random(4), tmp_path / "ledger.sqlite"
    file = written(tmp_path / "guests.txt", *guests(300))
    command = ["issue", file, *OPTIONS, "--batch-size", "5"]
    async with Emulator(limits=[], speed=FAST, faults=Faults(delay=0.02)) as emulator:
        for _ in range(KILLS):
            wanted = len(emulator.requests) + dice.randrange(1, 5)
            begun = Command(emulator.url, path, *command)
            await until(lambda: len(emulator.requests) >= wanted or not begun.process.is_alive())
            await asyncio.sleep(dice.random() * 0.05)
            begun.process.kill()
            assert (await begun.ended())[0] == -signal.SIGKILL
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
        await until(lambda: emulator.requests)
        first.process.kill()
        await first.ended()
        both = [Command(emulator.url, path, *command), Command(emulator.url, path, "resume", "march")]
        ends = await asyncio.gather(*(begun.ended() for begun in both))
        assert all(
            status == ISSUED or "being worked on" in text or "run `issue`" in text for status, text in ends
        )
        status, text = await Command(emulator.url, path, *command).ended()
        assert status in {ISSUED, WRONG_USE}, text
        assert emulator.reward_counts() == dict.fromkeys(guests(60), 1)
        assert emulator.jobs_accepted == 12
