"""Guests who come one by one, recorded in a ledger."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from tests.batching.limiters import Leaving
from tests.batching.test_collector_failures import poison_is_refused
from tests.helpers import ONCE, TARGET, USUAL, guests, issuing, now, recording, until
from thanx_async import (
    AddTimeoutError,
    APIError,
    AsyncBatcher,
    BatcherClosedError,
    BatchError,
    ConfigurationError,
    ConnectionFailedError,
    Guard,
    IdempotencyConflictError,
    JobHandle,
    LedgerError,
    LocalRateLimiter,
    RateLimit,
    RetryPolicy,
    ServerError,
    SQLiteLedger,
    ThanxClient,
    ThanxError,
)
from thanx_async.batching._batch import Batch
from thanx_async.batching._recorder import Recorder
from thanx_async.batching._sender import BatchSender
from thanx_async.emulator import Emulator, Faults, ScriptedAnswer
from thanx_async.ledger import BatchRecord, BatchState
from thanx_async.limiter import Lane


async def states(ledger: SQLiteLedger) -> list[BatchState]:
    return [batch.state for run in await ledger.runs() for batch in await ledger.batches(run.run_id)]


async def test_a_batch_is_recorded(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger) -> None:
    """An accepted guest is in the ledger, and the run is given back when the batcher closes."""
    async with recording(client, ledger) as batcher:
        handle = await batcher.add("a@example.com")
        (run,) = await ledger.runs()
        (batch,) = await ledger.batches(run.run_id)
        assert (batch.state, batch.job_id) == (BatchState.ACCEPTED, handle.id)
    async with SQLiteLedger(ledger.path) as other:
        await other.claim(run)
        await other.release(run.run_id)


async def test_recovering(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger) -> None:
    """What was sent and not answered is sent again with the same key; one reward comes of it."""
    emulator.faults = Faults(reset_after=1)
    async with recording(client, ledger) as batcher:
        with pytest.raises(ConnectionFailedError) as caught:
            await batcher.add("a@example.com")
        assert await batcher.recover() == []  # the run of an open batcher is not its own past
    assert caught.value.in_doubt
    emulator.faults = Faults()
    async with recording(client, ledger) as batcher:
        (run,) = await batcher.recover()
        assert run.in_doubt == []
        assert (await run.wait()).issued == 1
        assert await batcher.recover() == []
    assert emulator.reward_counts() == {"a@example.com": 1}
    assert len({row.idempotency_key for row in emulator.requests if row.method == "POST"}) == 1


async def left_in_doubt(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, count: int) -> None:
    """So many runs of one guest each, sent and not answered."""
    for guest in guests(count):
        emulator.faults = Faults(reset_after=1)
        async with recording(client, ledger) as batcher:
            with pytest.raises(ConnectionFailedError):
                await batcher.add(guest)
    emulator.faults = Faults()


async def test_workers_that_start_together(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, path: Path
) -> None:
    """Those that recover at the same moment share what there is, and none of them fails."""
    await left_in_doubt(emulator, client, ledger, 4)
    async with SQLiteLedger(path) as other:
        batchers = [recording(client, ledger), recording(client, other), recording(client, ledger)]
        taken = await asyncio.gather(*(batcher.recover() for batcher in batchers))
    assert {run.run_id for runs in taken for run in runs} == {run.run_id for run in await ledger.runs()}
    assert emulator.reward_counts() == dict.fromkeys(guests(4), 1)
    assert await states(ledger) == [BatchState.ACCEPTED] * 4


async def test_one_run_that_cannot_be_recovered(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, caplog: pytest.LogCaptureFixture
) -> None:
    """It is returned with its error, those after it are taken up, and a service can start."""
    await left_in_doubt(emulator, client, ledger, 3)
    emulator.script(ScriptedAnswer(422, b'{"error": {"code": "X", "message": "Idempotency key reused"}}'))
    first, *others = await recording(client, ledger).recover()
    assert isinstance(first.error, IdempotencyConflictError)
    assert [run.error for run in others] == [None, None]
    assert f"run {first.run_id} is left in doubt: HTTP 422" in caplog.text
    await left_in_doubt(emulator, client, ledger, 2)
    emulator.script(ScriptedAnswer(503))
    (again,) = await recording(client, ledger).recover()  # the others would not fare better
    assert again.run_id == first.run_id
    assert isinstance(again.error, ServerError)
    assert len(again.in_doubt) == 1
    recovered = await recording(client, ledger).recover()
    assert [run.in_doubt for run in recovered] == [[]] * 3
    assert emulator.reward_counts() == {guest: 2 if guest in guests(2) else 1 for guest in guests(3)}


async def test_what_is_not_recovered_is_told(
    emulator: Emulator,
    client: ThanxClient,
    ledger: SQLiteLedger,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is too old, was revoked, or was begun by another credential stays in doubt, with a warning."""
    await left_in_doubt(emulator, client, ledger, 3)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        old, revoked, other = (row[0] for row in db.execute("SELECT run_id FROM runs ORDER BY created_at"))
        db.execute("UPDATE batches SET recorded_at = recorded_at - 90000 WHERE run_id = ?", (old,))
        db.execute("UPDATE runs SET revoked_at = 1 WHERE run_id = ?", (revoked,))
        db.execute("UPDATE runs SET client_id = 'earlier' WHERE run_id = ?", (other,))
    assert await recording(client, ledger).recover() == []
    for run_id, reason in (
        (old, "too old to be sent again"),
        (revoked, "it was revoked"),
        (other, "client_id 'c' instead of 'earlier'"),
    ):
        assert f"run {run_id} is left in doubt: it " in caplog.text
        assert reason in caplog.text
    assert emulator.reward_counts() == dict.fromkeys(guests(3), 1)


async def test_recovery_is_not_guarded(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger) -> None:
    """The guard is for runs of `issue`; it would leave guests in doubt for ever."""
    await left_in_doubt(emulator, client, ledger, 2)
    guarded = recording(client, ledger, guard=Guard(max_rewards=0, max_failure_rate=0))
    assert [run.in_doubt for run in await guarded.recover()] == [[], []]


async def test_a_run_that_was_dropped_is_given_back(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose acceptance could not be written down is recovered once the batcher is closed."""
    async with recording(client, ledger) as batcher:
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "accept", failing)
            await batcher.add("a@example.com")
        await batcher.add("b@example.com")
    assert await states(ledger) == [BatchState.IN_DOUBT, BatchState.ACCEPTED]
    (run,) = await recording(client, ledger).recover()
    assert run.in_doubt == []
    assert emulator.reward_counts() == {"a@example.com": 1, "b@example.com": 1}


async def test_recovery_reads_what_is_in_doubt_only(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that has run for months has millions of accepted batches."""
    async with recording(client, ledger) as batcher:
        await batcher.add("first@example.com")
        emulator.faults = Faults(reset_after=1)
        with pytest.raises(ConnectionFailedError):
            await batcher.add("second@example.com")
    emulator.faults = Faults()
    monkeypatch.setattr(ledger, "batches", failing)
    (run,) = await recording(client, ledger).recover()
    assert (len(run.handles), run.total) == (1, 1)
    assert emulator.reward_counts() == {"first@example.com": 1, "second@example.com": 1}


async def test_only_the_same_campaign_is_recovered(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """A batcher for something else leaves the batches of others alone."""
    emulator.faults = Faults(reset_after=1)
    async with recording(client, ledger) as batcher:
        with pytest.raises(ConnectionFailedError):
            await batcher.add("a@example.com")
    emulator.faults = Faults()
    assert await recording(client, ledger, campaign_id="camp_def456").recover() == []
    assert await states(ledger) == [BatchState.IN_DOUBT]


async def test_a_run_that_was_taken_over(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, path: Path
) -> None:
    """The callers of one batch are told, certainly unsent, and those after them go on under a new run."""
    async with recording(client, ledger) as batcher:
        await batcher.add("a@example.com")
        with sqlite3.connect(path) as thief:
            thief.execute("UPDATE runs SET owner = NULL")
        thief.close()
        with pytest.raises(LedgerError, match="taken over") as caught:
            await batcher.add("b@example.com")
        assert not caught.value.in_doubt
        await batcher.add("b@example.com")
    assert emulator.reward_counts() == {"a@example.com": 1, "b@example.com": 1}
    assert len(await ledger.runs()) == 2


async def test_a_ledger_that_cannot_be_written(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent that is not recorded, whether the run or the batch fails; callers are told."""
    async with recording(client, ledger) as batcher:
        for method in ("claim", "record"):
            with monkeypatch.context() as patched:
                patched.setattr(ledger, method, failing)
                with pytest.raises(LedgerError, match="the disk is full"):
                    await batcher.add(guests(1)[0])
        assert emulator.requests == []
        await batcher.add(guests(1)[0])
    assert emulator.reward_counts() == {guests(1)[0]: 1}


async def failing(*_: object) -> None:
    raise LedgerError("the disk is full")


async def test_recovery_needs_a_ledger(client: ThanxClient) -> None:
    """Without one there is nothing to recover from, which is said."""
    with pytest.raises(ConfigurationError, match="needs the ledger"):
        await recording(client, None).recover()


@pytest.mark.parametrize("seed", range(6))
async def test_whenever_it_ends(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, seed: int
) -> None:
    """The ledger, the callers' answers and the report agree on what was accepted, in doubt and not sent."""
    emulator.faults = Faults(delay=0.3)
    async with AsyncBatcher(client, **TARGET, batch_size=5, ledger=ledger) as batcher:
        tasks = [asyncio.create_task(batcher.add(guest)) for guest in guests(30)]
        await asyncio.sleep(random.Random(seed).uniform(0.05, 1.5))
        report = await batcher.aclose(timeout=0.1)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    batches = [batch for run in await ledger.runs() for batch in await ledger.batches(run.run_id)]
    accepted = {result.id for result in results if isinstance(result, JobHandle)}
    assert {batch.job_id for batch in batches if batch.job_id} == accepted
    in_doubt = {batch.key for batch in batches if batch.state is BatchState.IN_DOUBT}
    assert in_doubt == {batch.idempotency_key for batch in report.in_doubt}
    assert not set(report.unsent) & set(emulator.reward_counts())
    emulator.faults = Faults()
    await AsyncBatcher(client, **TARGET, ledger=ledger).recover()
    assert sum(emulator.reward_counts().values()) == 30 - len(report.unsent)
    assert max(emulator.reward_counts().values(), default=1) == 1


@pytest.mark.parametrize("status", [400, 401])
async def test_a_batch_that_was_not_issued(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, status: int
) -> None:
    """Its callers get Thanx's error, the next guest is sent, and nothing of it is recovered."""
    body = b'{"error": {"code": "SOME_CODE", "message": "no"}}'
    emulator.script(ScriptedAnswer(status, body))
    async with AsyncBatcher(client, **TARGET, ledger=ledger) as batcher:
        errors = await asyncio.gather(*(batcher.add(guest) for guest in guests(3)), return_exceptions=True)
        assert [error.status for error in errors if isinstance(error, APIError)] == [status] * 3
        await batcher.add("a@example.com")
    assert await AsyncBatcher(client, **TARGET, ledger=ledger).recover() == []
    assert emulator.reward_counts() == {"a@example.com": 1}


@pytest.mark.parametrize("traffic", [False, True])
async def test_what_a_living_service_left_in_doubt_settles_itself(
    emulator: Emulator, ledger: SQLiteLedger, *, traffic: bool
) -> None:
    """Once Thanx answers again, a batch in doubt is sent again with its key, with or without traffic."""
    retry = RetryPolicy(max_attempts=2, base_delay=0.01)
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=retry) as client,
        AsyncBatcher(client, **TARGET, ledger=ledger, linger=0.01) as batcher,
    ):
        emulator.faults = Faults(reset_after=1)
        with pytest.raises(ThanxError) as caught:
            await batcher.add("a@example.com")
        assert caught.value.in_doubt
        emulator.faults = Faults()
        if traffic:
            await batcher.add("b@example.com")
        else:
            assert await batcher.recover() == []
        while await ledger.in_doubt():
            await asyncio.sleep(0.01)
        assert (await batcher.outcome("a@example.com")).issued
        report = await batcher.aclose()
        assert report.in_doubt == ()
    assert set(emulator.reward_counts().values()) == {1}
    assert len({row.idempotency_key for row in emulator.requests if row.idempotency_key}) == 1 + traffic


async def test_a_doubt_that_lasts_is_reported_at_the_end(emulator: Emulator, ledger: SQLiteLedger) -> None:
    """A batch that is still in doubt when the batcher closes is in its report and in the ledger, once."""
    retry = RetryPolicy(max_attempts=1)
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=retry) as client,
        AsyncBatcher(client, **TARGET, ledger=ledger, linger=0.01) as batcher,
    ):
        emulator.faults = Faults(html_504=1)
        with pytest.raises(ThanxError) as caught:
            await batcher.add("a@example.com")
        await batcher.recover()
        report = await batcher.aclose()
    assert [doubt.idempotency_key for doubt in report.in_doubt] == [caught.value.idempotency_key]
    assert [record.key for record in await ledger.in_doubt()] == [caught.value.idempotency_key]
    assert emulator.reward_counts() == {"a@example.com": 1}


@pytest.fixture
async def impatient_client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    limiter = LocalRateLimiter([RateLimit(1000, 1)])
    async with ThanxClient("c", "t", base_url=emulator.url, retry=ONCE, limiter=limiter) as opened:
        yield opened


async def in_doubt(emulator: Emulator, batcher: AsyncBatcher, count: int) -> list[str | None]:
    """So many guests in a batch each, sent and not answered; their keys."""
    keys = []
    emulator.faults = Faults(reset_after=1)
    for guest in guests(count):
        with pytest.raises(ConnectionFailedError) as caught:
            await batcher.add(guest)
        keys.append(caught.value.idempotency_key)
    emulator.faults = Faults()
    return keys


async def requests_reach(emulator: Emulator, count: int) -> None:
    await until(lambda: len(emulator.requests) >= count)


async def test_a_doubt_is_probed_without_traffic(
    emulator: Emulator, impatient_client: ThanxClient, ledger: SQLiteLedger, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch in doubt is tried again at growing intervals, up to a minute, and its end is told once."""
    caplog.set_level("INFO")
    async with recording(impatient_client, ledger) as batcher:
        await in_doubt(emulator, batcher, 1)
        emulator.faults = Faults(html_502=1)
        times = [now()]
        for tries in range(2, 8):
            await requests_reach(emulator, tries)
            times.append(now())
        emulator.faults = Faults()
        assert (await batcher.outcome("guest0@example.com")).issued
        waits = [after - before for before, after in pairwise(times)]
        assert waits == pytest.approx([5, 10, 20, 40, 60, 60], abs=2)
    assert await ledger.in_doubt() == []
    assert len(set(issuing(emulator))) == 1
    assert emulator.reward_counts() == {"guest0@example.com": 1}
    assert caplog.text.count("is not in doubt any more") == 1


async def test_a_doubt_that_fails_again_does_not_follow_the_traffic(
    client: ThanxClient, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only that batch gets no answer, each success of others is not one more request."""
    tries: list[float] = []

    async def deliver(_: BatchSender, batch: Batch) -> None:
        if batch.number:
            batch.accepted(JobHandle(f"job{batch.number}", "merchant", poller=None))
        else:
            tries.append(now())
            batch.doubt()
            raise ServerError(500, None, "it broke", in_doubt=True)

    async def restore(*_: object) -> None:
        """The bytes are not looked at."""

    monkeypatch.setattr(BatchSender, "deliver", deliver)
    monkeypatch.setattr(Recorder, "restore", restore)
    async with recording(client, ledger) as batcher:
        with pytest.raises(ServerError):
            await batcher.add("stuck@example.com")
        for guest in guests(100):
            await batcher.add(guest)
        assert 2 <= len(tries) <= 3 + 2 * (now() - tries[0]) / 15


async def test_the_outcome_of_a_guest_in_doubt(
    emulator: Emulator, impatient_client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """It can be waited for until the batch is settled; a timeout tells the key, and so does the closing."""
    async with recording(impatient_client, ledger) as batcher:
        _, second = await in_doubt(emulator, batcher, 2)
        emulator.faults = Faults(html_502=1)
        with pytest.raises(AddTimeoutError) as caught:
            await batcher.outcome("guest1@example.com", timeout=1)
        assert (caught.value.in_doubt, caught.value.idempotency_key) == (True, second)
        asking = asyncio.create_task(batcher.outcome("guest1@example.com"))
        emulator.faults = Faults()
        assert (await asking).issued
        emulator.faults = Faults(html_504=1)
        with pytest.raises(ServerError) as again:
            await batcher.add("guest2@example.com")
        asking = asyncio.create_task(batcher.outcome("guest2@example.com"))
        await asyncio.sleep(0)
        await batcher.aclose()
        with pytest.raises(BatcherClosedError) as closed:
            await asking
        assert closed.value.in_doubt
        assert closed.value.idempotency_key == again.value.idempotency_key
    assert emulator.reward_counts() == dict.fromkeys(guests(3), 1)


async def test_recovering_ends_while_doubts_end_by_themselves(
    emulator: Emulator, impatient_client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """Several callers recover an open batcher at once, during traffic and its closing: all return."""
    async with recording(impatient_client, ledger) as batcher:
        await in_doubt(emulator, batcher, 3)
        recovering = [asyncio.create_task(batcher.recover()) for _ in range(2)]
        await batcher.add("guest0@example.com")
        assert await asyncio.gather(*recovering) == [[], []]
        assert await ledger.in_doubt() == []
        await in_doubt(emulator, batcher, 3)
        emulator.faults = Faults(delay=5)
        recovering = [asyncio.create_task(batcher.recover())]
        await requests_reach(emulator, len(emulator.requests) + 1)
        await batcher.aclose()
        await asyncio.gather(*recovering)
    await recording(impatient_client, ledger).recover()
    assert await ledger.in_doubt() == []
    assert emulator.reward_counts() == {
        "guest0@example.com": 3,
        "guest1@example.com": 2,
        "guest2@example.com": 2,
    }


@pytest.mark.parametrize("by", ["timeout", "cancellation"])
async def test_a_key_that_is_not_recorded_was_not_sent(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Who stops waiting while a slow disk writes is told a key; nothing is sent before the ledger has it."""
    disk, writing = asyncio.Event(), asyncio.Event()

    async def slow(batch: BatchRecord, body: bytes) -> BatchRecord:
        writing.set()
        await disk.wait()
        return await SQLiteLedger.record(ledger, batch, body)

    monkeypatch.setattr(ledger, "record", slow)
    async with recording(client, ledger) as batcher:
        adding = asyncio.create_task(batcher.add("a@example.com", timeout=5 if by == "timeout" else None))
        await writing.wait()
        if by == "cancellation":
            adding.cancel()
        await asyncio.wait([adding])
        assert await states(ledger) == []
        assert issuing(emulator) == []
        disk.set()
        assert (await batcher.outcome("a@example.com")).issued
    [key] = issuing(emulator)
    with pytest.raises((AddTimeoutError, asyncio.CancelledError)) as caught:
        await adding
    told = " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert f"may get the reward, in the batch with idempotency key {key}" in told


@pytest.mark.parametrize("recorded", [True, False])
async def test_a_batcher_that_stops_between_two_halves(ledger: SQLiteLedger, *, recorded: bool) -> None:
    """Guests of a half that is recorded and not sent may get the reward later, and are told so."""
    names = ["poison@example.com", *guests(9)]
    async with (
        Emulator(limits=[], fails=poison_is_refused) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        emulator.script(USUAL, ScriptedAnswer(fault="answer_lost"))
        async with recording(client, ledger if recorded else None) as batcher:
            adding = [asyncio.create_task(batcher.add(name)) for name in names]
            await requests_reach(emulator, 2)
            report = await batcher.aclose(timeout=0)
        errors = await asyncio.gather(*adding, return_exceptions=True)
        doubts = [error.idempotency_key for error in errors if isinstance(error, BatcherClosedError)]
        if recorded:
            keys = [batch.key for batch in await ledger.in_doubt()]
            assert doubts == [key for key in keys for _ in range(5)]
            assert {batch.idempotency_key for batch in report.in_doubt} == set(keys)
            await recording(client, ledger).recover()
            assert emulator.reward_counts() == dict.fromkeys(guests(5, start=4), 1)
        else:
            assert doubts == [issuing(emulator)[1]] * 5 + [None] * 5
            assert list(report.unsent) == guests(5, start=4)
        assert len(errors) == len(doubts)


REFUSED = ScriptedAnswer(400, b'{"error": {"code": "USER_EMAIL_INVALID", "message": "?"}}')


async def test_a_doubt_that_is_refused_is_given_up(
    emulator: Emulator, impatient_client: ThanxClient, ledger: SQLiteLedger, caplog: pytest.LogCaptureFixture
) -> None:
    """The same bytes would be refused for ever, so they are not sent again each minute."""
    async with recording(impatient_client, ledger) as batcher:
        (key,) = await in_doubt(emulator, batcher, 1)
        emulator.script(REFUSED)
        with pytest.raises(ConnectionFailedError) as caught:
            await batcher.outcome("guest0@example.com")
        await asyncio.sleep(3600)
        assert issuing(emulator) == [key] * 2
        report = await batcher.aclose()
    assert (caught.value.in_doubt, caught.value.idempotency_key) == (True, key)
    assert f"batch with key {key} stays in doubt: HTTP 400" in caplog.text
    assert [batch.idempotency_key for batch in report.in_doubt] == [key]
    emulator.script(REFUSED)
    (run,) = await recording(impatient_client, ledger).recover()
    assert [batch.key for batch in run.in_doubt] == [key]
    assert "is left in doubt: some of it is refused when it is sent again" in caplog.text


async def test_a_split_batch_tells_so(ledger: SQLiteLedger) -> None:
    """Who was told the key of a batch that was split later learns that other keys count."""
    names = ["poison@example.com", *guests(3)]
    async with (
        Emulator(limits=[], fails=poison_is_refused) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
        recording(client, ledger) as batcher,
    ):
        emulator.script(ScriptedAnswer(delay=10))
        adding = [asyncio.create_task(batcher.add(name, timeout=5)) for name in names]
        errors = await asyncio.gather(*adding, return_exceptions=True)
        (told,) = {error.idempotency_key for error in errors if isinstance(error, AddTimeoutError)}
        assert [(await batcher.outcome(name)).issued for name in guests(3)] == [True] * 3
        (run,) = await ledger.runs()
        first, *halves = await ledger.batches(run.run_id)
    assert first.key == told
    assert [batch.outcome and batch.outcome.state for batch in (first, *halves)] == [
        "split",
        "split",
        None,
        "refused",
        None,
    ]
    assert {position for half in halves for position in half.positions} == set(first.positions)


async def test_settling_survives_the_users_limiter(emulator: Emulator, ledger: SQLiteLedger) -> None:
    """Whatever a limiter raises while a batch in doubt is sent again, the service tries again."""
    limiter = Leaving(OSError("the store is away"), (Lane.INTERACTIVE, 2))
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=ONCE, limiter=limiter) as client,
        recording(client, ledger) as batcher,
    ):
        await in_doubt(emulator, batcher, 1)
        assert (await batcher.outcome("guest0@example.com")).issued
        await batcher.add("a@example.com")
    assert limiter.calls[Lane.INTERACTIVE] == 4
    assert emulator.reward_counts() == {"a@example.com": 1, "guest0@example.com": 1}


async def test_a_doubt_that_ends_while_the_batcher_closes(
    emulator: Emulator, impatient_client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """An answer that comes during the closing is recorded, and the batch is not in the report."""
    async with recording(impatient_client, ledger) as batcher:
        await in_doubt(emulator, batcher, 1)
        emulator.faults = Faults(delay=5)
        await requests_reach(emulator, 2)
        report = await batcher.aclose()
        assert report.in_doubt == ()
        assert (await batcher.outcome("guest0@example.com")).issued
    assert await states(ledger) == [BatchState.ACCEPTED]


@pytest.mark.parametrize("why", ["age", "conflict"])
async def test_a_doubt_that_is_given_up(
    emulator: Emulator,
    impatient_client: ThanxClient,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    why: str,
) -> None:
    """What cannot be sent again stays in doubt for whoever asks, in the log, the ledger and the report."""
    async with (
        SQLiteLedger(path, replay_within=0.001 if why == "age" else 86_400) as ledger,
        recording(impatient_client, ledger) as batcher,
    ):
        (key,) = await in_doubt(emulator, batcher, 1)
        emulator.script(ScriptedAnswer(422, b'{"error": {"code": "X", "message": "Idempotency key reused"}}'))
        with pytest.raises(ConnectionFailedError) as caught:
            await batcher.outcome("guest0@example.com")
        assert (caught.value.in_doubt, caught.value.idempotency_key) == (True, key)
        assert f"batch with key {key} stays in doubt" in caplog.text
        await asyncio.sleep(300)
        assert len(emulator.requests) == (1 if why == "age" else 2)
        report = await batcher.aclose()
        assert [batch.idempotency_key for batch in report.in_doubt] == [key]
        assert await states(ledger) == [BatchState.IN_DOUBT]
    assert emulator.reward_counts() == {"guest0@example.com": 1}


async def test_a_batch_grows_too_old_while_it_is_sent(emulator: Emulator, path: Path) -> None:
    """However patient the client is, a batch is not sent again once its record is too old."""
    emulator.faults = Faults(reset_after=1)
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=RetryPolicy(patience=10_000)) as client,
        SQLiteLedger(path, replay_within=100) as ledger,
    ):
        begun = now()
        with pytest.raises(BatchError):
            await recording(client, ledger).issue(["a@example.com"], run_id="march")
        assert 90 < now() - begun < 200
        assert len(await ledger.in_doubt()) == 1
