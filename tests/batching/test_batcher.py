import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.batching.limiters import Leaving
from tests.helpers import BAD, ONCE, TARGET, UNAUTHORIZED, USUAL, batcher, guests
from thanx_async import (
    AsyncBatcher,
    AuthenticationError,
    BatchError,
    BatchRange,
    ConfigurationError,
    ConnectionFailedError,
    IdempotencyConflictError,
    InvalidResponseError,
    IssuanceRun,
    LocalRateLimiter,
    NotFoundError,
    RateLimit,
    RetryPolicy,
    ServerError,
    ThanxClient,
    ThanxError,
)
from thanx_async.emulator import Counter, Emulator, Faults, JobSpeed, ScriptedAnswer
from thanx_async.limiter import Lane


async def lazily(items: list[str]) -> AsyncIterator[str]:
    for item in items:
        await asyncio.sleep(0)
        yield item


def sums(run: IssuanceRun) -> bool:
    counts = run.report().counts
    return min(counts.values()) >= 0 and sum(counts.values()) == run.total


@pytest.mark.parametrize(
    "source",
    [
        list,
        tuple,
        iter,
        lazily,
        lambda items: (item for item in items),
        lambda items: dict.fromkeys(items).keys(),
        lambda items: dict(enumerate(items)).values(),
    ],
)
async def test_any_source(
    emulator: Emulator, client: ThanxClient, source: Callable[[list[str]], list[str]]
) -> None:
    """Everybody in any iterable or async iterable gets one reward, and handles come in input order."""
    run = await batcher(client).issue(source(guests(25)))
    assert [(handle.start, handle.total) for handle in run.handles] == [(0, 10), (10, 10), (20, 5)]
    report = await run.wait()
    assert (report.issued, report.total) == (25, 25)
    assert emulator.reward_counts() == dict.fromkeys(guests(25), 1)


async def test_every_row_has_its_position(emulator: Emulator, client: ThanxClient) -> None:
    """Positions are those of the input, whatever was dropped before them."""
    source = [
        "junk",
        *guests(8),
        "Guest3@Example.com",
        "unknown1@example.com",
        None,
        *guests(5, 8),
        "+19995551234",
        "unknown2@example.com",
    ]
    run = await batcher(client).issue(source)
    report = await run.wait()
    assert [(row.position, row.identifier) for row in report.failed] == [
        (10, "unknown1@example.com"),
        (17, "+19995551234"),
        (18, "unknown2@example.com"),
    ]
    assert {row.job_id for row in report.failed} <= {handle.id for handle in run.handles}
    assert [row.position for row in report.rejected] == [0, 11]
    assert [(row.position, row.identifier) for row in report.duplicates] == [(9, "guest3@example.com")]
    assert report.issued == 13
    assert sums(run)
    assert "unknown1" not in repr(report) + repr(report.failed) + repr(run)


async def test_without_values_only_positions_are_kept(emulator: Emulator, client: ThanxClient) -> None:
    """A run may forget who its guests are."""
    lean = AsyncBatcher(client, **TARGET, keep_values=False, deduplicate=False)
    report = await (
        await lean.issue(["junk", "unknown@example.com", "a@example.com", "a@example.com"])
    ).wait()
    assert [(row.position, row.identifier) for row in report.failed] == [(1, None)]
    assert [(row.position, row.identifier) for row in report.rejected] == [(0, None)]
    assert report.issued == 2


async def test_an_error_of_the_credential_stops_the_run(emulator: Emulator, client: ThanxClient) -> None:
    """A 401 in the middle ends the run: what was accepted is known, and what was not sent is unsent."""
    emulator.script(USUAL, USUAL, UNAUTHORIZED)
    with pytest.raises(BatchError, match="HTTP 401") as caught:
        await batcher(client).issue(guests(1000))
    assert isinstance(caught.value.__cause__, AuthenticationError)
    run = caught.value.run
    sent = len(emulator.requests)
    assert sent <= 5
    assert sums(run)
    assert not run.in_doubt
    report = await run.wait()
    assert report.issued == 10 * (sent - 1)
    assert report.unsent[0].first == 20
    assert sum(emulator.reward_counts().values()) == report.issued
    assert await batcher(client).issue([]) is not run


async def test_a_wrong_campaign_issues_nothing(emulator: Emulator, client: ThanxClient) -> None:
    """A campaign that does not exist leaves everything unsent."""
    with pytest.raises(BatchError) as caught:
        await batcher(client, campaign_id="nope").issue(guests(25))
    assert isinstance(caught.value.__cause__, NotFoundError)
    assert not caught.value.in_doubt
    report = caught.value.run.report()
    assert report.counts["unsent"] == report.total
    assert emulator.jobs_accepted == 0


def broken_off(values: list[str]) -> Iterator[str]:
    yield from values
    raise OSError


@pytest.mark.parametrize("read", [list, broken_off])
@pytest.mark.parametrize("keep_values", [True, False])
async def test_the_guests_of_unsent_batches(
    emulator: Emulator, client: ThanxClient, read: Callable[[list[str]], Iterable[str]], *, keep_values: bool
) -> None:
    """Everybody who was read and not sent is listed, whether the batch was refused or never cut."""
    emulator.script(*[UNAUTHORIZED] * 5)
    size = 10 if read is list else 100
    several = AsyncBatcher(client, **TARGET, batch_size=size, keep_values=keep_values)
    with pytest.raises(BatchError) as caught:
        await several.issue(read(["junk", *guests(25), "guest0@example.com"]))
    run = caught.value.run
    rows = list(run.unsent_guests())
    values = guests(25) if keep_values else [None] * 25
    assert [(row.position, row.identifier) for row in rows] == list(enumerate(values, 1))
    assert {(row.reason, row.job_id) for row in rows} == {("not sent", None)}
    twin = pickle.loads(pickle.dumps(run))  # noqa: S301 - made right here
    assert list(twin.unsent_guests()) == rows


async def test_a_dead_server_leaves_everything_unsent(emulator: Emulator) -> None:
    """Nothing is in doubt where no connection could be made."""
    retry = RetryPolicy(max_attempts=2, base_delay=0.1)
    async with ThanxClient("c", "t", base_url="http://127.0.0.1:1", retry=retry) as client:
        with pytest.raises(BatchError) as caught:
            await batcher(client).issue(guests(25))
    assert isinstance(caught.value.__cause__, ConnectionFailedError)
    report = caught.value.run.report()
    assert report.counts["unsent"] == report.total


@pytest.mark.parametrize("faults", [Faults(html_502=1), Faults(reset_after=1), Faults(truncated=1)])
async def test_lost_answers_are_in_doubt(emulator: Emulator, faults: Faults) -> None:
    """What was sent and not answered is in doubt with its key; a run with the same id settles it."""
    emulator.faults = faults
    async with ThanxClient("c", "t", base_url=emulator.url, retry=ONCE) as client:
        with pytest.raises(BatchError) as caught:
            await batcher(client).issue(guests(100), run_id="march")
        assert isinstance(caught.value.__cause__, ServerError | InvalidResponseError | ConnectionFailedError)
        assert caught.value.in_doubt
        run = caught.value.run
        assert run.in_doubt[0].first == 0
        assert {row.idempotency_key for row in emulator.requests} == {row.key for row in run.in_doubt}
        assert sums(run)
        emulator.faults = Faults()
        report = await (await batcher(client).issue(guests(100), run_id="march")).wait()
    assert report.issued == 100
    assert emulator.reward_counts() == dict.fromkeys(guests(100), 1)


async def test_a_changed_input_under_the_same_run_id_stops(emulator: Emulator, client: ThanxClient) -> None:
    """Thanx refuses a key with other guests, so that nobody gets a reward by mistake."""
    await batcher(client).issue(guests(10), run_id="march")
    with pytest.raises(BatchError) as caught:
        await batcher(client).issue(guests(10, start=100), run_id="march")
    assert isinstance(caught.value.__cause__, IdempotencyConflictError)
    assert emulator.jobs_accepted == 1


async def test_a_key_that_thanx_knows_leaves_the_batch_in_doubt(
    emulator: Emulator, client: ThanxClient
) -> None:
    """After a run was started again with another batch size, its guests are not told to have no reward."""
    await batcher(client).issue(guests(20), run_id="march")
    again = AsyncBatcher(client, **TARGET, batch_size=5)
    with pytest.raises(BatchError) as caught:
        await again.issue(guests(20), run_id="march")
    assert caught.value.in_doubt
    doubtful = caught.value.run.in_doubt
    assert {row.idempotency_key for row in emulator.requests} >= {row.key for row in doubtful} > set()


async def test_a_refused_batch_fails_alone(emulator: Emulator, client: ThanxClient) -> None:
    """After a 400 that batch's guests have failed, with the reason, and the rest goes on."""
    emulator.script(USUAL, BAD)
    report = await (await batcher(client).issue(guests(30))).wait()
    assert (report.issued, len(report.failed)) == (20, 10)
    assert {row.reason for row in report.failed} == {"HTTP 400 BAD_REQUEST: not like this"}
    assert [row.position for row in report.failed] in (list(range(10, 20)), list(range(10)))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_exception_in_the_source(
    emulator: Emulator, client: ThanxClient, *, asynchronous: bool
) -> None:
    """The source's own exception ends the run, and what was read before it is accounted for."""

    def failing() -> Iterator[str]:
        yield from guests(25)
        raise LookupError("the cursor is gone")

    async def failing_later() -> AsyncIterator[str]:
        for item in failing():
            yield item

    with pytest.raises(BatchError, match="the run stopped: LookupError; <IssuanceRun") as caught:
        await batcher(client).issue(failing_later() if asynchronous else failing())
    assert isinstance(caught.value.__cause__, LookupError)
    assert caught.value.run.total == 25
    assert sums(caught.value.run)


@pytest.mark.parametrize("error", [BatchError, asyncio.CancelledError])
async def test_a_cancellation_within_the_source(
    emulator: Emulator, client: ThanxClient, error: type[BaseException]
) -> None:
    """What a source waits for may be cancelled by others: that stops the run, and does not cancel it."""

    async def source() -> AsyncIterator[str]:
        for guest in guests(25):
            yield guest
        reached.set()
        await upstream

    async def consume() -> None:
        async with stream as handles:
            async for _ in handles:
                pass

    reached = asyncio.Event()
    upstream = asyncio.create_task(asyncio.Event().wait())
    stream = batcher(client).stream(source())
    run = asyncio.create_task(consume())
    await reached.wait()
    (upstream if error is BatchError else run).cancel()
    with pytest.raises(error):
        await run
    assert stream.run.report().counts["unsent"] == stream.run.total == 25
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("error", "phrase"),
    [
        (OSError("the store is away"), "stopped: OSError"),
        (asyncio.CancelledError(), "stopped: something that a request waits for was cancelled"),
    ],
)
async def test_a_broken_limiter_ends_the_run(error: BaseException, phrase: str) -> None:
    """An exception of the limiter's leaves a true account, and what is on the wire is finished."""
    async with (
        Emulator(faults=Faults(delay=1.0)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=Leaving(error, (Lane.ISSUE, 2))) as client,
    ):
        with pytest.raises(BatchError, match=phrase) as caught:
            await batcher(client).issue(guests(50))
    run = caught.value.run
    assert len(run.handles) == 1
    assert emulator.reward_counts() == dict.fromkeys(guests(10), 1)
    counts = run.report().counts
    assert (counts["unfinished"], counts["unsent"], run.total) == (10, 40, 50)


@pytest.mark.parametrize(
    ("error", "comes_out"), [(OSError("the store is away"), OSError), (asyncio.CancelledError(), ThanxError)]
)
async def test_a_broken_limiter_ends_the_waiting(
    emulator: Emulator, error: BaseException, comes_out: type[Exception]
) -> None:
    """Its exception comes out as it is, a cancellation as an error; the run can be waited for again."""
    limiter = Leaving(error, (Lane.POLL, 2))
    async with ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client:
        run = await batcher(client).issue(guests(30))
        with pytest.raises(comes_out, match=r"store is away|a request waits for was cancelled"):
            await run.wait()
        assert (await run.wait()).issued == 30


async def test_a_broken_limiter_is_told_of_by_a_revocation(emulator: Emulator) -> None:
    """What could not be looked at is not taken back, and all else is."""
    limiter = Leaving(OSError("the store is away"), (Lane.POLL, 2))
    async with ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client:
        report = await (await batcher(client).issue(guests(30))).revoke()
    assert [left.reason for left in report.not_revoked] == ["OSError"]
    assert (report.rewards, sum(emulator.reward_counts().values())) == (20, 10)


async def test_a_broken_progress_callback_ends_the_run(emulator: Emulator, client: ThanxClient) -> None:
    """An exception of the callback is not swallowed."""

    def broken(_: IssuanceRun) -> None:
        raise ZeroDivisionError

    noisy = AsyncBatcher(client, **TARGET, batch_size=10, on_progress=broken)
    with pytest.raises(BatchError) as caught:
        await noisy.issue(guests(100))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert sums(caught.value.run)


@pytest.mark.parametrize("when", [0.0, 0.1, 0.25, 0.35, 0.65, 1.1])
async def test_cancelling_leaves_a_true_account(emulator: Emulator, client: ThanxClient, when: float) -> None:
    """Whenever it is cancelled, nothing more is sent, and whoever may have a reward is not "unsent"."""
    emulator.faults = Faults(delay=0.3)
    stream = batcher(client).stream(guests(1000))

    async def consume() -> None:
        async with stream as handles:
            async for _ in handles:
                pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(when)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    sent = len(emulator.requests)
    await asyncio.sleep(5)
    assert len(emulator.requests) == sent
    assert sums(stream.run)
    if when:
        assert any("in doubt" in note for note in caught.value.__notes__)
    unsent = {
        guest
        for batch in stream.run.unsent
        for guest in guests(batch.last - batch.first + 1, start=batch.first)
    }
    assert not unsent & set(emulator.reward_counts())


async def test_leaving_early_stops(emulator: Emulator, client: ThanxClient) -> None:
    """Breaking out of a stream finishes what is under way and sends nothing more."""
    async with batcher(client).stream(guests(1000)) as handles:
        async for handle in handles:
            assert handle.start == 0
            break
    sent = len(emulator.requests)
    assert sent < 10
    assert [handle.total for handle in handles.run.handles] == [10] * sent
    assert sums(handles.run)
    await asyncio.sleep(5)
    assert len(emulator.requests) == sent


async def test_an_exception_of_the_consumer_is_kept(emulator: Emulator, client: ThanxClient) -> None:
    """What the body of a stream raises comes out as it is."""
    stream = batcher(client).stream(guests(1000))

    async def consume() -> None:
        async with stream as handles:
            async for _ in handles:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await consume()
    assert sums(stream.run)
    assert not stream.run.in_doubt


@pytest.mark.parametrize("turns", range(8))
async def test_a_run_that_is_stopped_ends(client: ThanxClient, turns: int) -> None:
    """However far its tasks have come, even if they have not begun, the iteration comes to its end."""
    async with batcher(client).stream(guests(25)) as handles:
        for _ in range(turns):
            await asyncio.sleep(0)
        handles.stop()
        assert len([handle async for handle in handles]) <= 2
    assert sums(handles.run)


async def test_a_slow_consumer_slows_the_reading(emulator: Emulator, client: ThanxClient) -> None:
    """The source is never read far ahead of what was taken."""
    read = 0

    def counting() -> Iterator[str]:
        nonlocal read
        for guest in guests(5000):
            read += 1
            yield guest

    async with batcher(client).stream(counting()) as handles:
        async for _ in handles:
            await asyncio.sleep(60)
            assert read <= 1_500
            break


async def test_reports_are_true_at_every_moment(emulator: Emulator, client: ThanxClient) -> None:
    """The account sums to the total whenever it changes, and grows only towards the end."""
    seen = []
    noisy = AsyncBatcher(client, **TARGET, batch_size=10, on_progress=lambda run: seen.append(run.report()))
    await (await noisy.issue([*guests(55), "junk", "unknown@example.com"])).wait()
    assert all(sum(report.counts.values()) == report.total for report in seen)
    assert [report.issued for report in seen] == sorted(report.issued for report in seen)
    assert seen[-1].counts == {
        "issued": 55,
        "failed": 1,
        "rejected": 1,
        "duplicates": 0,
        "unsent": 0,
        "in_doubt": 0,
        "unfinished": 0,
    }


async def test_a_timeout_reports_what_is_unfinished(client: ThanxClient) -> None:
    """A wait that is given too little time names the jobs that go on, and may be repeated."""
    async with (
        Emulator(speed=JobSpeed(identifiers_per_second=0.1)) as slow,
        ThanxClient("c", "t", base_url=slow.url) as other,
    ):
        run = await batcher(other).issue(guests(20))
        report = await run.wait(timeout=30)
        assert report.counts["unfinished"] == 20
        assert [batch.job_id for batch in report.unfinished] == [handle.id for handle in run.handles]
        assert (await run.wait()).issued == 20


@pytest.mark.parametrize(
    ("job", "fate"),
    [
        ({"state": "failed", "success_count": 0, "processed_count": 0}, "failed"),
        ({"state": "failed", "success_count": None, "processed_count": None}, "in_doubt"),
        ({"state": "failed"}, "in_doubt"),
        (
            {"state": "failed", "success_count": 2, "summary": {"success_count": 0, "failure_count": 0}},
            "in_doubt",
        ),
        ({"state": "failed", "summary": {"success_count": None, "failure_count": None}}, "in_doubt"),
        ({"state": "failed", "summary": {"success_count": 0, "failure_count": 0}}, "failed"),
        ({"state": "failed", "success_count": 3, "processed_count": 5, "failure_count": 2}, "in_doubt"),
        ({"state": "completed", "success_count": 4, "processed_count": 5, "failure_count": 1}, "in_doubt"),
        ({"state": "completed", "success_count": 5, "processed_count": 5}, "issued"),
        ({"state": "revoked", "success_count": 5, "processed_count": 5}, "failed"),
        (
            {
                "state": "completed",
                "success_count": 4,
                "summary": {
                    "success_count": 4,
                    "failure_count": 1,
                    "failures": [{"identifier_index": 9, "identifier_type": "email", "error": "?"}],
                },
            },
            "in_doubt",
        ),
    ],
)
async def test_numbers_that_name_nobody_are_in_doubt(
    emulator: Emulator, client: ThanxClient, job: dict[str, object], fate: str
) -> None:
    """Where a finished job's numbers leave open who got a reward, its guests are in doubt."""
    run = await batcher(client).issue(guests(5))
    body = orjson.dumps({"issuance_job": {"id": run.handles[0].id, "total_count": 5} | job})
    emulator.script(ScriptedAnswer(200, body))
    report = await run.wait()
    assert report.counts[fate] == report.total == 5
    if fate == "in_doubt":
        handle = run.handles[0]
        assert report.in_doubt == [BatchRange(0, 4, 5, report.in_doubt[0].key, handle.id)]


async def test_a_failed_poll_can_be_repeated(emulator: Emulator) -> None:
    """A wait that ends in an error loses nothing."""
    async with ThanxClient("c", "t", base_url=emulator.url, retry=ONCE) as client:
        run = await batcher(client).issue(guests(20))
        emulator.script(UNAUTHORIZED)
        with pytest.raises(AuthenticationError):
            await run.wait()
        assert sums(run)
        assert (await run.wait()).issued == 20


async def test_a_batch_error_crosses_processes(emulator: Emulator, client: ThanxClient) -> None:
    """The error and its account survive pickling; so do handles, which then say how to attach again."""
    emulator.script(USUAL, UNAUTHORIZED)
    with pytest.raises(BatchError) as caught:
        await batcher(client).issue(["junk", *guests(100)])
    twin = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made right here
    assert str(twin) == str(caught.value)
    assert twin.run.report().counts == caught.value.run.report().counts
    (handle,) = twin.run.handles[:1]
    with pytest.raises(ConfigurationError, match=r"client\.job"):
        await handle.wait()


async def test_planning_sends_nothing(emulator: Emulator, client: ThanxClient) -> None:
    """A plan reads and checks, and says what it would take."""
    plan = await batcher(client).plan(lazily([*guests(95), "junk", "guest1@example.com"]))
    assert (plan.total, plan.identifiers, plan.requests) == (97, 95, 10)
    assert [row.position for row in plan.rejected] == [95]
    assert [row.position for row in plan.duplicates] == [96]
    assert plan.least_duration == pytest.approx(3.8)
    assert emulator.requests == []


async def test_concurrency_follows_from_rate_and_latency() -> None:
    """Little's law: five requests a second of one second each keep five under way, and one more starts."""
    async with (
        Emulator(limits=[], counter=Counter.NONE, faults=Faults(delay=1.0)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        sender = batcher(client)
        assert sender.concurrency == 2
        await sender.issue(guests(300))
        assert sender.concurrency in {6, 7}
        assert "concurrency=" in repr(sender)
        capped = AsyncBatcher(client, **TARGET, max_concurrency=1)
        assert capped.concurrency == 1


async def test_no_more_than_allowed_are_under_way() -> None:
    """``max_concurrency`` bounds the requests at once."""
    limiter = LocalRateLimiter([RateLimit(1000, 1)])
    async with (
        Emulator(limits=[], faults=Faults(delay=1.0)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client,
    ):
        await AsyncBatcher(client, **TARGET, batch_size=1, max_concurrency=3).issue(guests(30))
        starts = sorted(row.time for row in emulator.requests)
    assert all(later - earlier > 0.99 for earlier, later in zip(starts, starts[3:], strict=False))


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ({"campaign_id": ""}, "campaign_id is empty"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 to 10,000, not "),
        ({"batch_size": 10_001}, "batch_size must be a whole number from 1 to 10,000, not "),
        ({"max_concurrency": 0}, "max_concurrency must be a whole number from 1, not 0"),
        ({"linger": -0.1}, "linger must be a number from 0, not -0.1"),
        ({"linger": float("nan")}, "linger must be a number from 0, not nan"),
        ({"linger": float("inf")}, "linger must be a number from 0, not inf"),
        ({"linger": "1"}, "linger must be a number from 0, not str"),
        ({"max_waiting": 0}, "max_waiting must be a whole number from 1, not 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number from 1 to 10,000, not 1.5"),
        ({"guard": 5}, "guard must be a Guard"),
        ({"on_progress": 5}, "on_progress must be callable"),
        ({"ledger": "runs.sqlite"}, r"ledger must be an open SQLiteLedger\(path\), not str"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], phrase: str) -> None:
    """An unusable argument is named."""
    with pytest.raises(ConfigurationError, match=phrase):
        AsyncBatcher(ThanxClient("c", "t"), **(TARGET | arguments))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("source", ["jane@example.com", b"x", 7, {"type": "email", "value": "a@b.co"}])
async def test_a_single_guest_is_no_source(client: ThanxClient, source: object) -> None:
    """A text would be read letter by letter, so it is refused."""
    with pytest.raises(ConfigurationError, match="identifiers must be"):
        await batcher(client).issue(source)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigurationError, match="run_id is empty"):
        await batcher(client).issue([], run_id="")
    with pytest.raises(ConfigurationError, match="run_id has a character that cannot be shown"):
        await batcher(client).issue([], run_id="a\nb")


ANSWERS = st.sampled_from(
    [USUAL, USUAL, BAD, UNAUTHORIZED, *(ScriptedAnswer(fault=name) for name in ("reset_after", "truncated"))]
)
ITEMS = st.lists(
    st.sampled_from([*guests(12), "unknown1@example.com", "unknown2@example.com", "junk", None]), max_size=60
)


@given(ITEMS, st.lists(ANSWERS, max_size=8), st.integers(1, 7))
def test_the_account_always_adds_up(items: list[object], answers: list[ScriptedAnswer], size: int) -> None:
    """Whatever the input and the answers: every item has one fate, and nobody gets two rewards."""

    async def check() -> None:
        async with (
            Emulator(limits=[]) as emulator,
            ThanxClient(
                "c",
                "t",
                base_url=emulator.url,
                retry=ONCE,
                limiter=LocalRateLimiter([RateLimit(10_000, 1)]),
            ) as client,
        ):
            emulator.script(*answers)
            sender = AsyncBatcher(
                client, **TARGET, batch_size=size, on_progress=lambda run: totals.append(sums(run))
            )
            try:
                run = await sender.issue(items)
                stopped = False
            except BatchError as error:
                run, stopped = error.run, True
            report = run.report()
            rewards = emulator.reward_counts()
            assert sum(report.counts.values()) == run.total
            assert max(rewards.values(), default=1) == 1
            assert stopped or run.total == len(items)
            accepted = {handle.id for handle in run.handles}
            assert len(accepted) <= emulator.jobs_accepted
            assert emulator.jobs_accepted <= len(accepted) + len(report.in_doubt)

    totals: list[bool] = []
    asyncio.run(check())
    assert all(totals)


async def test_an_end_is_an_end(emulator: Emulator, client: ThanxClient) -> None:
    """An iterator that has ended is not asked again: one that reads a queue would wait for ever."""

    class Once:
        def __init__(self) -> None:
            self.left = guests(3)

        def __iter__(self) -> Iterator[str]:
            return self

        def __next__(self) -> str:
            if not self.left:
                assert self.left is not None, "asked again"
                self.left = None  # type: ignore[assignment]  # a second StopIteration would be an error
                raise StopIteration
            return self.left.pop(0)

    run = await AsyncBatcher(client, **TARGET).issue(Once())
    assert (await run.wait()).issued == 3


async def test_sources_are_closed(emulator: Emulator, client: ThanxClient) -> None:
    """A generator is closed when its run stops, and not some day."""
    closed = []

    async def endless() -> AsyncIterator[str]:
        try:
            for guest in guests(100_000):
                yield guest
        finally:
            closed.append("async")

    def also_endless() -> Iterator[str]:
        try:
            yield from guests(100_000)
        finally:
            closed.append("sync")

    for source in (endless(), also_endless()):
        async with AsyncBatcher(client, **TARGET, batch_size=10).stream(source) as handles:
            await anext(aiter(handles))
    assert closed == ["async", "sync"]


async def test_a_slow_source_gives_the_loop_back_after_each_item(client: ThanxClient) -> None:
    """However long one item takes, the loop has its turn before the next."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    def slow() -> Iterator[str]:
        for guest in guests(20):
            until = time.perf_counter() + 0.01
            while time.perf_counter() < until:
                pass
            seen.append(turns)
            yield guest

    seen: list[int] = []
    counting = asyncio.create_task(count())
    await AsyncBatcher(client, **TARGET).plan(slow())
    counting.cancel()
    assert len(set(seen)) >= len(seen) - 1
