"""To which loop, thread and process an open ledger belongs, and that it never holds an exit."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.helpers import environment, in_thread
from tests.ledger.test_store import BODY, RUN, batch
from thanx_async import ConfigurationError, LedgerError, SQLiteLedger
from thanx_async.emulator import Emulator

pytestmark = pytest.mark.realtime


async def test_another_loop_is_refused(ledger: SQLiteLedger) -> None:
    """Who uses a ledger from another thread's loop is told so at once, and the ledger goes on."""
    await ledger.claim(RUN)
    errors: list[ConfigurationError] = []

    async def use() -> None:
        with pytest.raises(ConfigurationError) as caught:
            await ledger.record(batch(), BODY)
        errors.append(caught.value)
        with pytest.raises(ConfigurationError, match="belongs to it"):
            async with ledger:
                pass

    thread = threading.Thread(target=asyncio.run, args=[use()])
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "the ledger is open on another event loop" in str(errors[0])
    assert "run_coroutine_threadsafe" in str(errors[0])
    assert await ledger.batches("march") == []
    await ledger.record(batch(), BODY)


async def test_blocks_may_be_nested(path: Path) -> None:
    """An inner block, also one that begins while the outer one is opening, closes nothing for the outer."""
    ledger = SQLiteLedger(path)

    async def use() -> int:
        async with ledger:
            return len(await ledger.runs())

    async with ledger:
        assert await use() == 0
        await ledger.claim(RUN)
    assert list(await asyncio.gather(use(), use())) == [1, 1]
    with pytest.raises(ConfigurationError, match="not open"):
        await ledger.runs()


async def test_it_can_be_opened_again(path: Path) -> None:
    """After closing it opens anew, and closing twice does no harm."""
    ledger = SQLiteLedger(path)
    for _ in range(2):
        await ledger.__aenter__()
        await ledger.claim(RUN)
        await ledger.aclose()
        await ledger.aclose()
    async with ledger:
        assert len(await ledger.runs()) == 1


def test_after_a_dead_loop(path: Path) -> None:
    """A ledger whose loop was closed says so, and opens anew on another, where its claims are free."""
    ledger = SQLiteLedger(path)

    async def begin() -> None:
        await ledger.__aenter__()
        await ledger.claim(RUN)

    async def again() -> None:
        with pytest.raises(ConfigurationError, match="event loop that is closed: open it again"):
            await ledger.runs()
        async with ledger:
            await ledger.claim(RUN)

    asyncio.run(begin())
    asyncio.run(again())


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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("by_hand", [True, False])
async def test_a_forked_child_takes_nothing_away(ledger: SQLiteLedger, path: Path, *, by_hand: bool) -> None:
    """A child that inherits an open ledger cannot use it, and closing it there leaves the parent its claims
    and its bytes."""
    await ledger.claim(RUN)
    await ledger.record(batch(), BODY)
    child = os.fork()
    if child == 0:
        try:
            asyncio.events._set_running_loop(None)
            asyncio.run(_as_a_child(ledger, by_hand=by_hand))
        except BaseException:  # noqa: BLE001 - told by the exit status
            os._exit(1)
        os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert status == 0
    async with SQLiteLedger(path) as other:
        with pytest.raises(LedgerError, match="being worked on by process"):
            await other.claim(RUN)
    assert await ledger.body("march", 0) == BODY
    await ledger.record(batch(1), BODY)


async def _as_a_child(ledger: SQLiteLedger, *, by_hand: bool) -> None:
    with pytest.raises(ConfigurationError, match="before this process was forked"):
        await ledger.runs()
    await (ledger.aclose() if by_hand else ledger.__aexit__(None, None, None))
    async with ledger:
        assert len(await ledger.runs()) == 1


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
