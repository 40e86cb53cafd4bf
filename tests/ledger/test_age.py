"""The age of a batch in doubt, also over the sleep of a machine, in which the loop's clock stands still."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest

from tests.helpers import ONCE, Wall, issuing, now, recording, until
from thanx_async import (
    BatchError,
    ConnectionFailedError,
    Lane,
    LocalRateLimiter,
    RetryPolicy,
    Slot,
    SQLiteLedger,
    ThanxClient,
    ThanxError,
)
from thanx_async.emulator import Emulator, Faults

HOUR = 3600.0
GUEST = "jane@example.com"


@pytest.fixture
async def client(emulator: Emulator, wall: Wall) -> AsyncIterator[ThanxClient]:
    async with ThanxClient("c", "t", base_url=emulator.url, hook=wall) as opened:
        yield opened


async def held(emulator: Emulator, ledger: SQLiteLedger, *, sent: int) -> None:
    """The batch was sent so many times, with one key, and is in doubt in the ledger."""
    [batch] = await ledger.in_doubt()
    assert issuing(emulator) == [batch.key] * sent


@pytest.mark.parametrize("naps", [[23 * HOUR, 3 * HOUR], [25 * HOUR]])
async def test_issue(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, wall: Wall, naps: list[float]
) -> None:
    """A run sends a batch again after a sleep, until the batch is a day old."""
    wall.naps, sleeps = naps, len(naps)
    emulator.faults = Faults(reset_after=1)
    with pytest.raises(BatchError) as caught:
        await recording(client, ledger).issue([GUEST], run_id="march")
    cause = caught.value.__cause__
    assert isinstance(cause, ThanxError)
    assert (cause.in_doubt, cause.idempotency_key) == (True, issuing(emulator)[0])
    assert caught.value.run.report().counts["in_doubt"] == 1
    await held(emulator, ledger, sent=sleeps)


async def test_resume(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, wall: Wall) -> None:
    """A resumed run counts the age from the record, whatever the clocks of this process have counted."""
    emulator.faults = Faults(reset_after=1)
    wall.naps = [23 * HOUR]
    issuance = asyncio.create_task(recording(client, ledger).issue([GUEST], run_id="march"))
    await until(lambda: not wall.naps)
    issuance.cancel()
    await asyncio.wait([issuance])
    before = len(issuing(emulator))
    wall.naps = [3 * HOUR]
    with pytest.raises(BatchError) as caught:
        await recording(client, ledger).resume("march")
    assert caught.value.run.report().counts["in_doubt"] == 1
    await held(emulator, ledger, sent=before + 1)
    run = await recording(client, ledger).resume("march")
    assert run.report().counts["in_doubt"] == 1
    await held(emulator, ledger, sent=before + 1)


async def test_add(
    emulator: Emulator, ledger: SQLiteLedger, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    """What a service has left in doubt is given up once it is a day old, and the caller was told the key."""
    emulator.faults = Faults(reset_after=1)
    wall.naps = [23 * HOUR, 3 * HOUR]
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=ONCE, hook=wall) as client,
        recording(client, ledger) as batcher,
    ):
        for call in (batcher.add, batcher.outcome):
            with pytest.raises(ConnectionFailedError) as caught:
                await call(GUEST)
            assert (caught.value.in_doubt, caught.value.idempotency_key) == (True, issuing(emulator)[0])
        report = await batcher.aclose()
    assert [batch.identifiers for batch in report.in_doubt] == [(GUEST,)]
    assert "stays in doubt: it is too old to be sent again" in caplog.text
    await held(emulator, ledger, sent=2)


async def test_recover(emulator: Emulator, ledger: SQLiteLedger, client: ThanxClient, wall: Wall) -> None:
    """What another opening has left in doubt is sent again until it is a day old."""
    emulator.faults = Faults(reset_after=1)
    async with ThanxClient("c", "t", base_url=emulator.url, retry=ONCE) as impatient:
        batcher = recording(impatient, ledger)
        async with batcher:
            with pytest.raises(ConnectionFailedError):
                await batcher.add(GUEST)
    wall.slept += 20 * HOUR
    wall.naps = [3 * HOUR, 3 * HOUR]
    [run] = await recording(client, ledger).recover()
    assert isinstance(run.error, ThanxError)
    assert run.error.in_doubt
    assert [batch.count for batch in run.in_doubt] == [1]
    await held(emulator, ledger, sent=3)
    assert await recording(client, ledger).recover() == []


async def test_a_wall_clock_that_is_set_back(emulator: Emulator, ledger: SQLiteLedger, wall: Wall) -> None:
    """The loop's clock counts on, so a batch is not sent again after a day by that clock."""
    emulator.faults = Faults(reset_after=1)
    wall.naps = [-100 * HOUR]
    retry = RetryPolicy(base_delay=7 * HOUR, max_delay=7 * HOUR, jitter=0, patience=inf)
    async with ThanxClient("c", "t", base_url=emulator.url, retry=retry, hook=wall) as client:
        begun = now()
        with pytest.raises(BatchError) as caught:
            await recording(client, ledger).issue([GUEST], run_id="march")
    assert now() - begun < 30 * HOUR
    assert caught.value.run.report().counts["in_doubt"] == 1
    await held(emulator, ledger, sent=4)


async def test_a_batch_that_was_never_sent(ledger: SQLiteLedger, wall: Wall) -> None:
    """A batch of a day ago is not sent for the first time: another process may have taken its run over."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    wall.naps = [25 * HOUR]
    async with ThanxClient("c", "t", base_url=url, hook=wall) as client:
        with pytest.raises(BatchError) as caught:
            await recording(client, ledger).issue([GUEST], run_id="march")
    assert wall.naps == []
    assert caught.value.run.report().counts["unsent"] == 1
    assert await ledger.batches("march") == []


class _Sleepy(LocalRateLimiter):
    """The machine sleeps just before the second slot; notes the errors with which slots are left."""

    def __init__(self, wall: Wall) -> None:
        super().__init__()
        self.slots = 0
        self.errors: list[str] = []
        self._wall = wall

    @asynccontextmanager
    async def slot(self, lane: Lane = Lane.ISSUE) -> AsyncIterator[Slot]:
        async with super().slot(lane) as slot:
            self.slots += 1
            self._wall.slept += 25 * HOUR * (self.slots == 2)
            try:
                yield slot
            except ThanxError as error:
                self.errors.append(str(error))
                raise


async def test_what_is_not_sent_is_no_outage(emulator: Emulator, ledger: SQLiteLedger, wall: Wall) -> None:
    """The limiter is not told of a failure where a request has become too old while it waited."""
    emulator.faults = Faults(reset_after=1)
    limiter = _Sleepy(wall)
    async with ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client:
        with pytest.raises(BatchError) as caught:
            await recording(client, ledger).issue([GUEST], run_id="march")
    assert "too old to be sent again" in str(caught.value.__cause__)
    assert limiter.slots == 2
    assert ["broke before the answer" in error for error in limiter.errors] == [True]
    await held(emulator, ledger, sent=1)
