"""Guests who come one by one, when things go wrong and when it ends."""

import asyncio
import re
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from traceback import walk_tb

import aiohttp
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.batching.limiters import Leaving
from tests.helpers import BAD, LOST, ONCE, TARGET, UNAUTHORIZED, USUAL, guests, on_virtual_time, until
from thanx_async import (
    AddTimeoutError,
    APIError,
    AsyncBatcher,
    AuthenticationError,
    BadRequestError,
    BatcherClosedError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidResponseError,
    JobHandle,
    LimiterStatus,
    LocalRateLimiter,
    RateLimit,
    RateLimiter,
    RetryPolicy,
    ThanxClient,
    ThanxError,
    TransportError,
)
from thanx_async.batching._batch import Batch
from thanx_async.batching._sender import BatchSender
from thanx_async.batching._waiting_room import Guest, WaitingRoom, closed_error, tell, tell_in_slices
from thanx_async.emulator import Emulator, Faults, ScriptedAnswer
from thanx_async.emulator.answers import Refused
from thanx_async.errors import LedgerError
from thanx_async.limiter import Lane, Slot


def start(batcher: AsyncBatcher, names: list[str]) -> list[asyncio.Task[JobHandle]]:
    return [asyncio.create_task(batcher.add(name)) for name in names]


async def failures(tasks: list[asyncio.Task[JobHandle]]) -> list[ThanxError]:
    """What the callers got, who all got an error."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [result for result in results if isinstance(result, ThanxError)]
    assert len(errors) == len(results)
    return errors


async def test_an_error_goes_to_its_callers_only(emulator: Emulator, client: ThanxClient) -> None:
    """A wrong credential concerns one batch; the service stays up, and the next batch is tried."""
    emulator.script(UNAUTHORIZED)
    async with AsyncBatcher(client, **TARGET) as batcher:
        errors = await failures(start(batcher, guests(100)))
        assert {type(error) for error in errors} == {AuthenticationError}
        assert len({id(error) for error in errors}) == 100
        assert max(len(list(walk_tb(error.__traceback__))) for error in errors) < 20
        assert (await batcher.add("guest0@example.com")).total == 1
    assert emulator.reward_counts() == {"guest0@example.com": 1}


async def test_errors_carry_their_notes(emulator: Emulator) -> None:
    """Every caller's own instance says what its batch's error said."""
    emulator.faults = Faults(truncated=1)
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=ONCE) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        first, second = await failures(start(batcher, guests(2)))
        assert isinstance(first, InvalidResponseError)
        assert first.in_doubt
        assert first.idempotency_key == second.idempotency_key == emulator.requests[0].idempotency_key
        assert first.__cause__ is second.__cause__ is not None
        first.add_note("mine")
        assert second.__notes__ == [first.__notes__[0]]


async def test_a_lost_answer_is_asked_for_again(emulator: Emulator, client: ThanxClient) -> None:
    """A connection that broke after Thanx acted costs a retry, not a second reward."""
    emulator.script(LOST, ScriptedAnswer(fault="truncated"))
    async with AsyncBatcher(client, **TARGET) as batcher:
        handles = await asyncio.gather(*start(batcher, guests(20)))
    assert {handle.id for handle in handles} == {"job000001"}
    assert len(emulator.requests) == 3
    assert emulator.reward_counts() == dict.fromkeys(guests(20), 1)


async def test_a_dead_server() -> None:
    """Nobody was sent, and everybody is told; guests who come meanwhile are gathered."""
    retry = RetryPolicy(max_attempts=3, base_delay=1, jitter=0)
    async with (
        ThanxClient("c", "t", base_url="http://127.0.0.1:1", retry=retry) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        tasks = start(batcher, guests(5))
        await asyncio.sleep(2)
        errors = await failures([*tasks, *start(batcher, guests(5, start=5))])
        assert {type(error) for error in errors} == {ConnectionFailedError}
        assert not any(error.in_doubt for error in errors)
        assert "0 waiting" in repr(batcher)


async def test_a_refused_batch(emulator: Emulator, client: ThanxClient) -> None:
    """A 400 that blames nobody is the answer to everybody in the batch."""
    emulator.script(BAD)
    async with AsyncBatcher(client, **TARGET) as batcher:
        errors = await failures(start(batcher, guests(5)))
        assert {type(error) for error in errors} == {BadRequestError}
    assert len(emulator.requests) == 1


def poison_is_refused(kind: str, value: str) -> str | None:
    """A server that is stricter than the checks here."""
    if value.startswith("poison"):
        raise Refused(400, "one of the identifiers is no e-mail address", "USER_EMAIL_INVALID")
    return None


async def test_one_bad_guest_does_not_harm_the_others(client: ThanxClient) -> None:
    """Where Thanx blames a value that passed the checks here, its caller alone gets the error."""
    names = [*guests(400), "poison@example.com", *guests(600, start=400)]
    async with (
        Emulator(fails=poison_is_refused) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as strict,
        AsyncBatcher(strict, **TARGET) as batcher,
    ):
        results = await asyncio.gather(*start(batcher, names), return_exceptions=True)
        (error,) = [result for result in results if not isinstance(result, JobHandle)]
        assert isinstance(error, APIError)
        assert error.code == "USER_EMAIL_INVALID"
        assert results[400] is error
        outcome = await batcher.outcome("guest401@example.com")
        assert (outcome.issued, outcome.position) == (True, 402)
        assert emulator.reward_counts() == dict.fromkeys(guests(1000), 1)
        assert sum(row.method == "POST" for row in emulator.requests) <= 21


async def test_many_bad_guests_cost_a_bounded_number_of_requests(client: ThanxClient) -> None:
    """The search for them ends, and whoever is still beside one gets the error."""
    async with (
        Emulator(fails=poison_is_refused) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as strict,
        AsyncBatcher(strict, **TARGET) as batcher,
    ):
        errors = await failures(start(batcher, [f"poison{number}@example.com" for number in range(500)]))
        assert {type(error) for error in errors} == {BadRequestError}
        assert len(emulator.requests) == 33


async def test_a_refusal_after_a_lost_answer_is_in_doubt(emulator: Emulator, client: ThanxClient) -> None:
    """Then nothing is sent under another key."""
    body = b'{"error": {"code": "USER_EMAIL_INVALID", "message": "?"}}'
    emulator.script(LOST, ScriptedAnswer(400, body))
    async with AsyncBatcher(client, **TARGET) as batcher:
        errors = await failures(start(batcher, guests(5)))
        assert {type(error) for error in errors} == {BadRequestError}
        assert all(error.in_doubt for error in errors)
    assert emulator.reward_counts() == dict.fromkeys(guests(5), 1)


async def test_closing_does_not_linger(emulator: Emulator, client: ThanxClient) -> None:
    """Leaving sends who waits, at once, and answers; then nobody is taken any more."""
    async with AsyncBatcher(client, **TARGET, linger=3600) as batcher:
        tasks = start(batcher, guests(5))
        await asyncio.sleep(1)
        assert "open, 5 waiting" in repr(batcher)
    assert [task.result().total for task in tasks] == [5] * 5
    assert asyncio.get_running_loop().time() < 60
    assert "closed, 0 waiting" in repr(batcher)
    with pytest.raises(BatcherClosedError, match="closed"):
        await batcher.add("late@example.com")
    report = await batcher.aclose()
    assert (report.unsent, report.in_doubt) == ((), ())
    assert len(emulator.reward_counts()) == 5


async def test_closing_under_load(emulator: Emulator, client: ThanxClient) -> None:
    """Those outside are let in, those inside are sent, in full batches, and all are answered."""
    async with AsyncBatcher(client, **TARGET, max_waiting=10, batch_size=10) as batcher:
        tasks = start(batcher, guests(95))
        await asyncio.sleep(0)
    assert all(task.done() for task in tasks)
    assert len(await asyncio.gather(*tasks)) == 95
    assert emulator.reward_counts() == dict.fromkeys(guests(95), 1)
    assert len(emulator.requests) == 10


async def test_opening(client: ThanxClient) -> None:
    """It is opened once at a time, before the first guest, and may be opened again."""
    batcher = AsyncBatcher(client, **TARGET)
    with pytest.raises(ConfigurationError, match="not open"):
        await batcher.add("a@example.com")
    for _ in range(2):
        async with batcher:
            await batcher.add("a@example.com")
            with pytest.raises(ConfigurationError, match="open already"):
                await batcher.__aenter__()


async def test_two_openings_have_different_keys(emulator: Emulator, client: ThanxClient) -> None:
    """The same guests in the same batcher opened again are further rewards."""
    for _ in range(2):
        async with AsyncBatcher(client, **TARGET) as batcher:
            await batcher.add("a@example.com")
    assert len({row.idempotency_key for row in emulator.requests}) == 2
    assert emulator.reward_counts() == {"a@example.com": 2}


async def test_a_close_that_takes_too_long(emulator: Emulator, client: ThanxClient) -> None:
    """It reports who was not sent and which batches are in doubt, with what settles them."""
    emulator.faults = Faults(answer_lost=1)
    async with AsyncBatcher(client, **TARGET, batch_size=10, max_concurrency=1, max_waiting=15) as batcher:
        tasks = start(batcher, guests(35))
        await asyncio.sleep(1)
        report = await batcher.aclose(timeout=5)
        assert (len(report.unsent), len(report.in_doubt)) == (25, 1)
        errors = await failures(tasks)
        assert {type(error) for error in errors} == {BatcherClosedError}
        (batch,) = report.in_doubt
        assert [error.in_doubt for error in errors] == [True] * 10 + [False] * 25
        assert {error.idempotency_key for error in errors} == {batch.idempotency_key, None}
        assert report.unsent == tuple(guests(25, start=10))
        assert "@" not in repr(report) + str(errors)
        assert await batcher.aclose() == report
    emulator.faults = Faults()
    target = TARGET | {"identifiers": batch.identifiers, "idempotency_key": batch.idempotency_key}
    await client.issue_rewards(**target)  # type: ignore[arg-type]  # a mapping of several types
    assert emulator.reward_counts() == dict.fromkeys(guests(10), 1)


async def test_a_close_without_any_time(emulator: Emulator, client: ThanxClient) -> None:
    """Callers are told even where nothing had begun."""
    async with AsyncBatcher(client, **TARGET) as batcher:
        tasks = start(batcher, guests(5))
        await asyncio.sleep(0)
        report = await batcher.aclose(timeout=0)
        assert len(await failures(tasks)) == 5
        assert len(report.unsent) == 5
    assert emulator.requests == []


@pytest.mark.parametrize("turns", range(1, 9))
async def test_a_full_batch_and_an_immediate_end(emulator: Emulator, client: ThanxClient, turns: int) -> None:
    """However far the sending has come, each caller has an answer, and the report fits it."""
    async with AsyncBatcher(client, **TARGET, batch_size=5) as batcher:
        tasks = start(batcher, guests(12))
        for _ in range(turns):
            await asyncio.sleep(0)
        report = await batcher.aclose(timeout=0)
        errors = await failures(tasks)
    in_doubt = sum(len(batch.identifiers) for batch in report.in_doubt)
    assert [error.in_doubt for error in errors].count(True) == in_doubt
    assert len(report.unsent) + in_doubt == 12
    assert not set(report.unsent) & set(emulator.reward_counts())


async def test_closing_while_a_batch_waits_for_its_turn(emulator: Emulator, client: ThanxClient) -> None:
    """A batch that was cut and refused for the rate is not in doubt."""
    emulator.script(ScriptedAnswer(429, b"", headers={"Retry-After": "30"}))
    async with AsyncBatcher(client, **TARGET, batch_size=5) as batcher:
        tasks = start(batcher, guests(7))
        await asyncio.sleep(3)
        report = await batcher.aclose(timeout=3)
        assert not any(error.in_doubt for error in await failures(tasks))
    assert (set(report.unsent), report.in_doubt) == (set(guests(7)), ())
    assert emulator.reward_counts() == {}


async def test_cancelling_every_task_leaves_nobody_waiting(client: ThanxClient) -> None:
    """Even where all of the batcher's own tasks are cancelled before they begin, callers are told."""
    async with AsyncBatcher(client, **TARGET, batch_size=5) as batcher:
        known = asyncio.all_tasks()
        tasks = start(batcher, guests(8))
        await until(lambda: asyncio.all_tasks() - {*known, *tasks}, pause=0)
        for task in asyncio.all_tasks() - {*tasks, asyncio.current_task()}:
            task.cancel()
        assert {type(error) for error in await failures(tasks)} == {BatcherClosedError}
        with pytest.raises(BatcherClosedError):
            await batcher.add("a@example.com")


async def test_cancelling_the_sending_leaves_a_true_report(emulator: Emulator, client: ThanxClient) -> None:
    """What was on the wire then is in doubt."""
    emulator.faults = Faults(answer_lost=1)
    async with AsyncBatcher(client, **TARGET, batch_size=5) as batcher:
        tasks = start(batcher, guests(8))
        await until(lambda: emulator.requests, pause=0)
        assert batcher._collector
        batcher._collector._worker.cancel()
        assert [error.in_doubt for error in await failures(tasks)] == [True] * 5 + [False] * 3
        report = await batcher.aclose()
    assert report.unsent == tuple(guests(3, start=5))
    assert [batch.identifiers for batch in report.in_doubt] == [tuple(guests(5))]


async def test_an_answer_that_is_interrupted_is_still_the_answer() -> None:
    """A cancellation in the midst of telling thousands does not tell the rest anything else."""
    loop = asyncio.get_running_loop()
    crowd = [Guest(name, 0.0) for name in guests(1000)]
    for guest in crowd:
        guest.callers.append(loop.create_future())
    handle = JobHandle("job000001", "merchant", poller=None)
    telling = asyncio.create_task(tell_in_slices(crowd, handle))
    await asyncio.sleep(0)
    assert not crowd[-1].callers[0].done()
    telling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await telling
    assert {guest.callers[0].result() for guest in crowd} == {handle}


async def test_what_was_accepted_is_accepted(
    client: ThanxClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure after Thanx has answered does not take the handle away; it is logged."""
    deliver = BatchSender.deliver

    async def deliver_and_fail(sender: BatchSender, batch: Batch) -> None:
        await deliver(sender, batch)
        raise LedgerError("the disk is full")

    monkeypatch.setattr(BatchSender, "deliver", deliver_and_fail)
    async with AsyncBatcher(client, **TARGET) as batcher:
        assert (await batcher.add("a@example.com")).total == 1
    assert "was accepted, and then: LedgerError" in caplog.text


async def test_failures_while_closing_are_reported(emulator: Emulator) -> None:
    """A batch that ends in an error after the closing began is in the report as well."""
    emulator.script(UNAUTHORIZED, BAD, LOST)
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=ONCE) as client,
        AsyncBatcher(client, **TARGET, batch_size=5) as batcher,
    ):
        tasks = start(batcher, guests(20))
        await asyncio.sleep(0)
        report = await batcher.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = [type(result) for result in results[::5]]
    assert kinds == [AuthenticationError, BadRequestError, ConnectionFailedError, JobHandle]
    assert report.unsent == tuple(guests(5))
    assert [batch.identifiers for batch in report.in_doubt] == [tuple(guests(5, start=10))]


@pytest.mark.parametrize("when", [0.1, 0.5, 3])
async def test_cancelling_the_close(when: float) -> None:
    """It ends soon, sends nothing more, and tells everybody what is true."""
    async with (
        Emulator(faults=Faults(delay=2)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        batcher = await AsyncBatcher(client, **TARGET, batch_size=5, max_concurrency=1).__aenter__()
        tasks = start(batcher, guests(20))
        closing = asyncio.create_task(batcher.aclose())
        await asyncio.sleep(when)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        sent = len(emulator.requests)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        report = await batcher.aclose()
        await asyncio.sleep(10)
        assert len(emulator.requests) == sent
        unsent = {
            name
            for name, result in zip(guests(20), results, strict=True)
            if isinstance(result, BatcherClosedError) and not result.in_doubt
        }
        assert unsent == set(report.unsent)
        assert not unsent & set(emulator.reward_counts())


async def test_a_cancelled_body_sends_nothing_more(emulator: Emulator, client: ThanxClient) -> None:
    """The cancellation goes on, with a note that counts who was left, and callers elsewhere are told."""
    opened = asyncio.Event()
    batcher = AsyncBatcher(client, **TARGET)

    async def serve() -> None:
        async with batcher:
            opened.set()
            await asyncio.sleep(3600)

    serving = asyncio.create_task(serve())
    await opened.wait()
    tasks = start(batcher, guests(5))
    await asyncio.sleep(0.1)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await serving
    assert "unsent=<5>" in caught.value.__notes__[0]
    assert not any(error.in_doubt for error in await failures(tasks))
    assert emulator.requests == []


async def test_an_exception_in_the_body_harms_no_caller(emulator: Emulator, client: ThanxClient) -> None:
    """Callers in other tasks did nothing wrong: their guests are sent."""

    async def serve() -> None:
        async with AsyncBatcher(client, **TARGET) as batcher:
            tasks.extend(start(batcher, guests(5)))
            await asyncio.sleep(0)
            raise ZeroDivisionError

    tasks: list[asyncio.Task[JobHandle]] = []
    with pytest.raises(ZeroDivisionError):
        await serve()
    assert [task.result().total for task in tasks] == [5] * 5
    assert len(emulator.reward_counts()) == 5


class Failing(LocalRateLimiter):
    """A limiter whose store is away."""

    broken = True

    def status(self) -> LimiterStatus:
        if self.broken:
            raise OSError("the store is away")
        return super().status()


async def test_a_failing_limiter_kills_nothing(emulator: Emulator) -> None:
    """Its exception is the answer to those who wait; the next are tried."""
    limiter = Failing()
    async with (
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client,
        AsyncBatcher(client, **TARGET, max_concurrency=2) as batcher,
    ):
        errors = await failures(start(batcher, guests(3)))
        assert {type(error.__cause__) for error in errors} == {OSError}
        limiter.broken = False
        assert (await batcher.add("a@example.com")).total == 1


async def test_an_unforeseen_failure_of_a_batch(
    monkeypatch: pytest.MonkeyPatch, emulator: Emulator, client: ThanxClient
) -> None:
    """Whatever ends a batch, its callers get a ThanxError that says whether it was sent."""

    async with AsyncBatcher(client, **TARGET) as batcher:
        with monkeypatch.context() as patch:
            patch.setattr("thanx_async.http._wire.decode_job", lambda _: 1 / 0)
            (error,) = await failures(start(batcher, guests(1)))
        assert (type(error), type(error.__cause__)) == (ThanxError, ZeroDivisionError)
        assert error.in_doubt
        assert error.idempotency_key == emulator.requests[0].idempotency_key
        assert (await batcher.add("a@example.com")).total == 1


async def test_a_closed_client_is_an_answer(client: ThanxClient) -> None:
    """A batcher on a client that is not open tells its callers so."""
    async with AsyncBatcher(ThanxClient("c", "t"), **TARGET) as batcher:
        (error,) = await failures(start(batcher, guests(1)))
        assert isinstance(error, ConfigurationError)
        assert not error.in_doubt


ROOM_FOR_ALL = 40
ADDS = st.lists(
    st.tuples(
        st.sampled_from([*guests(8), "unknown1@example.com"]),
        st.floats(0, 3),
        st.one_of(st.none(), st.floats(0, 1)),
        st.booleans(),
    ),
    min_size=1,
    max_size=ROOM_FOR_ALL,
)
FAULTS = st.sampled_from(["reset_before", "reset_after", "truncated", "html_502", "error_500"])
ANSWERS = st.lists(
    st.one_of(
        st.sampled_from([USUAL, USUAL, BAD, UNAUTHORIZED]),
        FAULTS.map(lambda name: ScriptedAnswer(fault=name)),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(
    adds=ADDS,
    answers=ANSWERS,
    size=st.integers(1, 6),
    room=st.sampled_from([1, 2, 5, 12, ROOM_FOR_ALL, ROOM_FOR_ALL]),
    retry=st.sampled_from([ONCE, RetryPolicy()]),
    limits=st.sampled_from([[RateLimit(1000, 1)], [RateLimit(2, 1)]]),
    close=st.one_of(st.none(), st.floats(0, 4)),
)
def test_every_add_has_one_answer_and_every_guest_one_reward(
    adds: list[tuple[str, float, float | None, bool]],
    answers: list[ScriptedAnswer],
    size: int,
    room: int,
    retry: RetryPolicy,
    limits: list[RateLimit],
    close: float | None,
) -> None:
    """Whatever the answers, cancellations and the end: each reward is of a batch that one of the guest's
    callers knows, by its handle or its key, the outcome of a guest on the way can be asked for, and nobody
    is left waiting."""

    async def one(
        batcher: AsyncBatcher, name: str, after: float, patience: float | None, own: bool
    ) -> object:
        await asyncio.sleep(after)
        try:
            async with asyncio.timeout(None if own else patience):
                return await batcher.add(name, timeout=patience if own else None)
        except (TimeoutError, ThanxError) as error:
            if "Wait for outcome()" in f"{error} {fate(error)}" and room == ROOM_FOR_ALL:
                with suppress(APIError, TransportError, BatcherClosedError):
                    await batcher.outcome(name)
            return error

    async def main() -> None:
        limiter: RateLimiter = LocalRateLimiter(limits)
        async with (
            Emulator(limits=[], faults=Faults(delay=0.05)) as emulator,
            ThanxClient("c", "t", base_url=emulator.url, retry=retry, limiter=limiter) as client,
        ):
            emulator.script(*answers)
            batcher = AsyncBatcher(client, **TARGET, batch_size=size, max_waiting=room)
            async with batcher, asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(batcher, *add)) for add in adds]
                if close is not None:
                    await asyncio.sleep(close)
                    await batcher.aclose(timeout=0.2)
            check([(name, task.result()) for (name, *_), task in zip(adds, tasks, strict=True)], emulator)

    on_virtual_time(main)


def check(results: list[tuple[str, object]], emulator: Emulator) -> None:
    """The least and the most rewards that the callers' answers allow, guest by guest."""
    rewards = emulator.reward_counts()
    for guest in {name for name, _ in results}:
        mine = [result for name, result in results if name == guest]
        jobs = {result.id for result in mine if isinstance(result, JobHandle)}
        jobs |= {
            job for result in mine for job in re.findall("was accepted, in job (job[0-9]+)", fate(result))
        }
        doubts = {key for result in mine for key in re.findall(KEY, fate(result))}
        if guest.startswith("unknown"):
            assert rewards.get(guest, 0) == 0
        else:
            assert len(jobs) <= rewards.get(guest, 0) <= len(jobs) + len(doubts)


KEY = "key ([0-9a-f-]{36})"


def fate(result: object) -> str:
    """What an error tells of the guest; of a TimeoutError that is a note on its cause."""
    if isinstance(result, ThanxError):
        return f"key {result.idempotency_key}" if result.in_doubt else ""
    if isinstance(result, TimeoutError):
        assert result.__cause__
        (note,) = result.__cause__.__notes__
        assert ("in doubt" in note) != ("nothing was" in note or "was accepted" in note)
        return note
    return ""


async def test_a_cancellation_of_the_limiters_own(emulator: Emulator) -> None:
    """Its callers get an error, and the service goes on for others."""
    limiter = Leaving(asyncio.CancelledError(), (Lane.INTERACTIVE, 1))
    async with (
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        with pytest.raises(ThanxError, match="something that a request waits for was cancelled"):
            await batcher.add("a@example.com")
        await batcher.add("b@example.com")
    assert emulator.reward_counts() == {"b@example.com": 1}


async def test_a_cancellation_within_the_session(emulator: Emulator) -> None:
    """Where it comes when Thanx has acted already, the guest is in doubt, with the key to ask again."""

    async def cut_off(*_: object) -> None:
        raise asyncio.CancelledError

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(cut_off)
    async with (
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        ThanxClient("c", "t", base_url=emulator.url, session=session) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        with pytest.raises(ThanxError, match="something that a request waits for was cancelled") as caught:
            await batcher.add("a@example.com")
        assert emulator.reward_counts() == {"a@example.com": 1}
        assert caught.value.in_doubt
        assert caught.value.idempotency_key == emulator.requests[0].idempotency_key


@pytest.mark.parametrize("timeout", [-1.0, float("inf")])
async def test_closing_takes_what_is_left_of_a_deadline(
    emulator: Emulator, client: ThanxClient, timeout: float
) -> None:
    """A deadline that is over closes at once, and one without end waits."""
    batcher = AsyncBatcher(client, **TARGET)
    await batcher.__aenter__()
    waiting = asyncio.create_task(batcher.add("a@example.com"))
    await asyncio.sleep(0)
    report = await batcher.aclose(timeout=timeout)
    await asyncio.wait([waiting])
    assert (report.unsent == ("a@example.com",), emulator.jobs_accepted) in [(True, 0), (False, 1)]
    assert emulator.jobs_accepted == (timeout > 0)
    await batcher.__aexit__(None, None, None)


@pytest.mark.parametrize("how", ["cancelled", "outer timeout", "timeout"])
@pytest.mark.parametrize("sent", [False, True])
async def test_whoever_stops_waiting_is_told_the_fate(
    emulator: Emulator, client: ThanxClient, how: str, *, sent: bool
) -> None:
    """A caller who stops waiting learns whether the guest may still get the reward, and with which key."""
    emulator.faults = Faults(delay=100)
    async with AsyncBatcher(client, **TARGET, linger=0.25 if sent else 50) as batcher:

        async def stop_waiting() -> BaseException:
            try:
                async with asyncio.timeout(2 if how == "outer timeout" else None):
                    await batcher.add("a@example.com", timeout=2 if how == "timeout" else None)
            except (TimeoutError, asyncio.CancelledError, ThanxError) as error:
                return error
            raise AssertionError

        adding = asyncio.create_task(stop_waiting())
        if how == "cancelled":
            await asyncio.sleep(2)
            adding.cancel()
        error = await adding
        if isinstance(error, AddTimeoutError):
            told = str(error)
            assert error.in_doubt == sent
            assert error.idempotency_key == (emulator.requests[0].idempotency_key if sent else None)
        else:
            noted = error.__cause__ if isinstance(error, TimeoutError) else error
            assert noted is not None
            (told,) = noted.__notes__
        assert isinstance(error, AddTimeoutError) == (how == "timeout")
        if sent:
            assert f"idempotency key {emulator.requests[0].idempotency_key}" in told
        else:
            assert "nothing was sent for this guest" in told
        emulator.faults = Faults()
    assert emulator.reward_counts() == ({"a@example.com": 1} if sent else {})


async def test_a_guest_whom_two_have_added_stays(client: ThanxClient, emulator: Emulator) -> None:
    """One of two callers who stops waiting is told that the guest may still get the reward."""
    async with AsyncBatcher(client, **TARGET, linger=5) as batcher:
        other = asyncio.create_task(batcher.add("a@example.com"))
        with pytest.raises(AddTimeoutError, match="another caller has added the same guest") as caught:
            await batcher.add("a@example.com", timeout=1)
        assert caught.value.in_doubt
        assert (await other).total == 1
    assert emulator.reward_counts() == {"a@example.com": 1}


async def test_the_outcome_of_a_guest_on_the_way(client: ThanxClient, emulator: Emulator) -> None:
    """After a timeout the guest's outcome can be waited for, also while the batch is not yet answered."""
    emulator.faults = Faults(delay=10)
    async with AsyncBatcher(client, **TARGET) as batcher:
        with pytest.raises(AddTimeoutError):
            await batcher.add("a@example.com", timeout=2)
        with pytest.raises(AddTimeoutError, match="still on the way"):
            await batcher.outcome("a@example.com", timeout=1)
        emulator.faults = Faults()
        assert (await batcher.outcome("a@example.com")).issued
    assert emulator.reward_counts() == {"a@example.com": 1}


@pytest.mark.parametrize("answer", [UNAUTHORIZED, LOST])
async def test_the_outcome_of_a_batch_that_failed(emulator: Emulator, answer: ScriptedAnswer) -> None:
    """A caller who stopped waiting can ask later what the batch ended in, and whether it is in doubt."""
    emulator.script(attrs.evolve(answer, delay=5))
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=ONCE) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        with pytest.raises(AddTimeoutError) as caught:
            await batcher.add("a@example.com", timeout=2)
        for pause in (0, 10):
            await asyncio.sleep(pause)
            with pytest.raises((AuthenticationError, ConnectionFailedError)) as ended:
                await batcher.outcome("a@example.com")
            assert ended.value.in_doubt == (answer is LOST)
            if answer is LOST:
                assert ended.value.idempotency_key == caught.value.idempotency_key


async def test_the_key_of_a_guest_in_a_batch_that_was_split(client: ThanxClient) -> None:
    """A caller who stops waiting while the others' half is sent is told the key of the guest's own half, and
    the outcome can be waited for."""
    names = ["poison@example.com", *guests(3)]
    async with (
        Emulator(fails=poison_is_refused, faults=Faults(delay=2)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as strict,
        AsyncBatcher(strict, **TARGET) as batcher,
    ):
        others = start(batcher, names[:3])
        await asyncio.sleep(0)
        adding = asyncio.create_task(batcher.add(names[3]))
        await until(lambda: len(emulator.requests) == 2)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await adding
        assert (await batcher.outcome(names[3])).issued
        await asyncio.gather(*others, return_exceptions=True)
        (key,) = {
            row.idempotency_key
            for row in emulator.requests
            if row.status == 202 and row.path.endswith("issue")
        } & set(re.findall(KEY, caught.value.__notes__[0]))
        assert key
        assert emulator.reward_counts() == dict.fromkeys(guests(3), 1)


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        (
            closed_error("it closed", key="k-1"),
            "in doubt: the guest's batch ended in BatcherClosedError.* key k-1",
        ),
        (AuthenticationError(401, None, "no"), "ended in AuthenticationError: nothing was issued"),
        (JobHandle("job000001", "merchant", poller=None), "accepted, in job job000001"),
    ],
)
async def test_a_reply_that_comes_as_its_caller_leaves(reply: JobHandle | ThanxError, note: str) -> None:
    """A cancellation at the same moment tells what the reply was, with the key of what is in doubt."""
    room = WaitingRoom(1, thresholds=frozenset(), on_threshold=lambda: None)
    leaving = asyncio.create_task(room.wait("a@example.com", None))
    await asyncio.sleep(0)
    tell(room.take(), reply)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await leaving
    assert re.search(note, caught.value.__notes__[0])


async def test_asking_for_an_outcome_keeps_no_guest(client: ThanxClient, emulator: Emulator) -> None:
    """A guest whose caller has gone is taken out although somebody asks for the outcome, and that is told."""
    async with AsyncBatcher(client, **TARGET, linger=50) as batcher:
        adding = asyncio.create_task(batcher.add("a@example.com", timeout=2))
        await asyncio.sleep(1)
        asking = asyncio.create_task(batcher.outcome("a@example.com"))
        with pytest.raises(AddTimeoutError):
            await adding
        with pytest.raises(BatcherClosedError, match="taken out before being sent"):
            await asking
    assert emulator.requests == []


async def test_batches_belong_to_no_callers_context(client: ThanxClient) -> None:
    """Context variables of whoever opened the batcher are not those of every batch."""
    trace = ContextVar("trace", default="none")
    seen = []
    trace.set("of the opener")

    class Looking(LocalRateLimiter):
        def slot(self, lane: Lane = Lane.ISSUE) -> AbstractAsyncContextManager[Slot]:
            seen.append(trace.get())
            return super().slot(lane)

    async with (
        ThanxClient("c", "t", base_url=client.base_url, limiter=Looking()) as other,
        AsyncBatcher(other, **TARGET) as batcher,
    ):
        await batcher.add("a@example.com")
    assert seen == ["none"]
