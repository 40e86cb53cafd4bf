"""To which loop, thread and process an open ledger belongs, and that it never holds an exit."""

import asyncio
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers import environment, in_thread
from thanx_async import ConfigurationError, LedgerError, SQLiteLedger
from thanx_async.emulator import Emulator

pytestmark = pytest.mark.realtime


async def test_an_opening_that_fails_leaves_no_thread(tmp_path: Path) -> None:
    """Where there is nothing to open, no thread stays behind, and the next opening may succeed."""
    ledger = SQLiteLedger(tmp_path / "later" / "ledger.sqlite")
    with pytest.raises(LedgerError):
        await ledger.__aenter__()
    while any(thread.name == "thanx-ledger" for thread in threading.enumerate()):
        await asyncio.sleep(0.01)
    (tmp_path / "later").mkdir()
    async with ledger:
        assert await ledger.runs() == []


def test_it_cannot_be_pickled(path: Path) -> None:
    """Who hands a ledger to another process is told to give the path."""
    with pytest.raises(ConfigurationError, match="give each process its path"):
        pickle.dumps(SQLiteLedger(path))


_ENDING = """
import asyncio, sys
from thanx_async import AsyncBatcher, SQLiteLedger, ThanxClient

def source():
    yield "a@example.com"
    if sys.argv[2] == "raises":
        raise KeyboardInterrupt
    print("reading", flush=True)
    while True:
        yield "b@example.com"

async def main():
    async with ThanxClient.from_env() as client, SQLiteLedger(sys.argv[1]) as ledger:
        batcher = AsyncBatcher(client, campaign_id="camp_abc123", merchant_id="k2lye10h32l5wzo",
                               variant_id="var_treat1", batch_size=1, ledger=ledger)
        try:
            await batcher.issue(source())
        finally:
            print("ending", flush=True)
            if sys.argv[2] == "twice":
                await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raises", "twice"])
def test_it_never_holds_the_exit(path: Path, how: str) -> None:
    """A script that is ended by KeyboardInterrupt, wherever it comes from, ends."""
    with in_thread(Emulator(limits=[])) as emulator:
        process = subprocess.Popen(
            [sys.executable, "-c", _ENDING, str(path), how],
            env=environment(emulator.url),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        for line in process.stdout if how == "twice" else ():
            process.send_signal(signal.SIGINT)
            if line == "ending\n":
                break
        try:
            assert process.wait(20) != 0
        finally:
            process.kill()
            process.communicate()
