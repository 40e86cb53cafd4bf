import asyncio
import logging
import pickle
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar

import pytest

from tests.helpers import BAD, LOST, MERCHANT, ONCE, TARGET, UNAUTHORIZED, guests
from thanx_async import (
    AsyncBatcher,
    BatchError,
    ConnectionFailedError,
    InvalidResponseError,
    Lane,
    LocalRateLimiter,
    RateLimit,
    RetryPolicy,
    ServerError,
    Slot,
    ThanxClient,
    ThanxError,
)
from thanx_async.emulator import Emulator, ScriptedAnswer
from thanx_async.instrumentation import (
    BatchEvent,
    BatchRecord,
    JobRecord,
    LimitRecord,
    Record,
    RequestRecord,
    RetryRecord,
    WaitRecord,
)

QUICK = RetryPolicy(max_attempts=2, base_delay=0.5, jitter=0)


async def test_requests_waits_and_retries(emulator: Emulator) -> None:
    """Each attempt, each wait for the limits and each retry is told once, with key and endpoint."""
    records: list[Record] = []
    emulator.script(ScriptedAnswer(fault="html_502"))
    async with ThanxClient("c", "t", base_url=emulator.url, retry=QUICK, hook=records.append) as client:
        handle = await client.issue_rewards(**TARGET, identifiers=guests(3), idempotency_key="k1")
        await handle.refresh()
    requests = [record for record in records if isinstance(record, RequestRecord)]
    assert [(row.method, row.endpoint, row.attempt, row.status, row.error) for row in requests] == [
        ("POST", "/partner/campaigns/issue", 1, 502, "ServerError"),
        ("POST", "/partner/campaigns/issue", 2, 202, None),
        ("GET", "/partner/issuance_jobs/{id}", 1, 200, None),
    ]
    assert [row.idempotency_key for row in requests] == ["k1", "k1", None]
    retries = [record for record in records if isinstance(record, RetryRecord)]
    assert retries == [RetryRecord("POST", "/partner/campaigns/issue", 1, 0.5, "ServerError", "k1")]
    waits = [record for record in records if isinstance(record, WaitRecord)]
    assert [row.lane for row in waits] == ["poll"]
    assert 0 < waits[0].seconds <= 0.2


async def test_a_refusal_and_a_lost_answer(emulator: Emulator) -> None:
    """A 429 is told as a request that is no attempt, and a lost connection as one without a status."""
    records: list[Record] = []
    emulator.script(ScriptedAnswer(429, b"{}"), *[LOST] * 2)
    async with ThanxClient("c", "t", base_url=emulator.url, retry=QUICK, hook=records.append) as client:
        with pytest.raises(ConnectionFailedError):
            await client.issue_rewards(**TARGET, identifiers=guests(3))
    requests = [record for record in records if isinstance(record, RequestRecord)]
    assert [(row.attempt, row.status, row.error) for row in requests] == [
        (1, 429, "RateLimitedError"),
        (1, None, "ConnectionFailedError"),
        (2, None, "ConnectionFailedError"),
    ]


async def test_what_an_answer_says_about_itself(emulator: Emulator) -> None:
    """The id of Thanx's answer, the wait that it asks for and the URL are in the record and on errors."""
    records: list[Record] = []
    headers = {"X-Request-Id": "req-1", "Retry-After": "7"}
    emulator.script(
        ScriptedAnswer(503, headers=headers),
        ScriptedAnswer(200, b"<html>", headers=headers),
        ScriptedAnswer(429, headers={"Retry-After": "2"}),
    )
    async with ThanxClient("c", "t", base_url=emulator.url, retry=ONCE, hook=records.append) as client:
        for kind in (ServerError, InvalidResponseError):
            with pytest.raises(ThanxError) as caught:
                await client.get_campaign("camp1")
            assert isinstance(caught.value, kind)
            assert (caught.value.request_id, caught.value.retry_after) == ("req-1", 7)
            copied = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made here
            assert (copied.request_id, copied.retry_after) == ("req-1", 7)
        await client.list_merchants()
    requests = [record for record in records if isinstance(record, RequestRecord)]
    assert [(row.request_id, row.retry_after) for row in requests] == [
        ("req-1", 7),
        ("req-1", 7),
        (None, 2),
        (None, None),
    ]
    assert [row.resend_count for row in requests] == [0, 0, 0, 1]
    assert requests[0].url == f"{emulator.url}/partner/campaigns/camp1"
    assert (requests[0].endpoint, requests[0].method) == ("/partner/campaigns/{id}", "GET")


@pytest.mark.parametrize("error", [ValueError("oops"), KeyError("oops"), asyncio.CancelledError()])
async def test_foreign_errors_have_their_own_name(emulator: Emulator, error: BaseException) -> None:
    """What a limiter of the user's raises is told by the name of its class, with the status that came."""
    records: list[Record] = []

    class Failing(LocalRateLimiter):
        @asynccontextmanager
        async def slot(self, lane: Lane = Lane.ISSUE) -> AsyncIterator[Slot]:
            async with super().slot(lane) as slot:
                yield _Failing(slot)

    class _Failing:
        def __init__(self, slot: Slot) -> None:
            self._slot = slot

        def answered(self, status: int, headers: Mapping[str, str]) -> None:
            self._slot.answered(status, headers)
            raise error

    async with ThanxClient("c", "t", base_url=emulator.url, limiter=Failing(), hook=records.append) as client:
        with pytest.raises((type(error), ThanxError)):
            await client.issue_rewards(**TARGET, identifiers=guests(1))
    (request,) = [record for record in records if isinstance(record, RequestRecord)]
    assert (request.error, request.status) == (type(error).__name__, 202)


async def test_a_broken_hook_harms_nothing(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """What a hook raises is logged, and the request goes on."""

    def broken(record: Record) -> None:
        raise ValueError("oops")

    async with ThanxClient("c", "t", base_url=emulator.url, hook=broken) as client:
        handle = await client.issue_rewards(**TARGET, identifiers=guests(1))
    assert handle.total == 1
    assert "the hook failed on a RequestRecord" in caplog.text


async def hook_body() -> None:
    raise AssertionError


async def test_a_hook_that_returns_an_awaitable_is_told(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody would await is said in the log, and nothing else goes wrong."""
    ran: list[object] = []

    def hook(record: object) -> Coroutine[object, object, None]:
        ran.append(record)
        return hook_body()

    async with ThanxClient("c", "t", base_url=emulator.url, hook=hook) as client:  # type: ignore[arg-type]  # wrong on purpose
        batcher = AsyncBatcher(client, **TARGET, on_progress=hook)  # type: ignore[arg-type]  # likewise
        run = await batcher.issue(guests(3))
    assert ran
    assert run.total == 3
    for name in ("hook", "on_progress"):
        assert f"{name} must be a plain function: it returned an awaitable" in caplog.text


async def test_a_hook_that_fails_to_note_callers(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """What a hook raises about a caller is logged, and the guest is sent."""

    class Broken:
        def __call__(self, record: Record) -> None:
            records.append(record)

        def caller(self) -> object:
            raise ValueError("oops")

    records: list[Record] = []
    async with (
        ThanxClient("c", "t", base_url=emulator.url, hook=Broken()) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        assert (await batcher.add("a@example.com")).total == 1
    assert [record.callers for record in records if isinstance(record, BatchEvent)] == [(), ()]
    assert "the hook failed to note a caller" in caplog.text


async def test_callers_are_noted(emulator: Emulator) -> None:
    """A hook that notes callers gets those of each batch, by their context, and no others."""
    caller: ContextVar[str | None] = ContextVar("caller", default=None)

    class Noting:
        def __call__(self, record: Record) -> None:
            records.append(record)

        def caller(self) -> str | None:
            return caller.get()

    async def handle(name: str | None, guest: str) -> None:
        caller.set(name)
        await batcher.add(guest)

    records: list[Record] = []
    async with (
        ThanxClient("c", "t", base_url=emulator.url, hook=Noting()) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        names = [("x", "a@example.com"), ("y", "a@example.com"), (None, "b@example.com")]
        await asyncio.gather(*(handle(*pair) for pair in names))
        await asyncio.create_task(handle("z", "c@example.com"))
    sending = [record for record in records if isinstance(record, BatchEvent) and record.fate == "sending"]
    assert [record.callers for record in sending] == [("x", "y"), ("z",)]


async def test_the_log_names_nobody(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """By default all is logged: the usual quietly, trouble loudly, and never a guest or a secret."""
    caplog.set_level(logging.DEBUG, "thanx_async")
    emulator.script(ScriptedAnswer(fault="error_500"))
    async with ThanxClient("c", "s3cret", base_url=emulator.url, retry=QUICK) as client:
        await client.issue_rewards(**TARGET, identifiers=guests(1))
        await client.job("job000001", merchant_id=MERCHANT).refresh()
    loud = [row.getMessage() for row in caplog.records if row.levelno >= logging.WARNING]
    assert loud == ["POST /partner/campaigns/issue: attempt 1 ended in ServerError; the next in 0.5 s"]
    assert "POST /partner/campaigns/issue, attempt 2: 202 after" in caplog.text
    assert "for the rate limits (poll)" in caplog.text
    assert "guest0" not in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("answers", "fate", "error"),
    [
        ([], "accepted", None),
        ([BAD], "refused", "BadRequestError"),
        ([LOST, LOST], "in_doubt", "ConnectionFailedError"),
        ([UNAUTHORIZED], "unsent", "AuthenticationError"),
    ],
)
async def test_batches(
    emulator: Emulator, answers: list[ScriptedAnswer], fate: str, error: str | None
) -> None:
    """A batch is told twice: when it is about to be sent, and with its fate."""
    records: list[Record] = []
    emulator.script(*answers)
    async with ThanxClient("c", "t", base_url=emulator.url, retry=QUICK, hook=records.append) as client:
        try:
            run = await AsyncBatcher(client, **TARGET).issue(guests(3), run_id="r")
        except BatchError as stopped:
            run = stopped.run
    sending, ended = [record for record in records if isinstance(record, BatchEvent)]
    assert (sending.fate, sending.run_id, sending.number, sending.count) == ("sending", "r", 0, 3)
    assert (ended.fate, ended.error, ended.idempotency_key) == (fate, error, sending.idempotency_key)
    assert ended.job_id == (run.handles[0].id if fate == "accepted" else None)
    assert ended.seconds >= sending.seconds >= 0


async def test_the_wait_in_a_service_counts(emulator: Emulator, client: ThanxClient) -> None:
    """The time of a batch begins when its oldest guest is added."""
    records: list[Record] = []
    async with (
        ThanxClient("c", "t", base_url=emulator.url, hook=records.append) as observed,
        AsyncBatcher(observed, **TARGET, linger=2) as batcher,
    ):
        await batcher.add("a@example.com")
    sending = next(record for record in records if isinstance(record, BatchEvent))
    assert 2 <= sending.seconds < 2.5


async def test_jobs(emulator: Emulator) -> None:
    """The end of a job is told once, with Thanx's counts, however many wait for it."""
    records: list[Record] = []
    async with ThanxClient("c", "t", base_url=emulator.url, hook=records.append) as client:
        handle = await client.issue_rewards(**TARGET, identifiers=[*guests(3), "unknown@example.com"])
        await handle
        await handle
        await handle.refresh()
    (ended,) = [record for record in records if isinstance(record, JobRecord)]
    assert (ended.job_id, ended.state, ended.total) == (handle.id, "completed", 4)
    assert (ended.issued, ended.failed) == (3, 1)
    assert ended.polls >= 1
    assert ended.seconds > 0


def test_the_former_name_of_batch_events() -> None:
    """Hooks that match records by the former name still do."""
    assert BatchRecord is BatchEvent


async def test_a_limit_that_is_nearly_spent_is_told_once(emulator: Emulator) -> None:
    """There is a record when four fifths and nearly all of a long limit are used, not for each request."""
    records: list[Record] = []
    limits = [RateLimit(100, 1), RateLimit(200, 1000)]
    limiter = LocalRateLimiter(limits, reserve=0)
    async with ThanxClient("c", "t", base_url=emulator.url, limiter=limiter, hook=records.append) as client:
        for _ in range(200):
            await client.get_scopes()
        told = [record for record in records if isinstance(record, LimitRecord)]
        assert told == [LimitRecord(200, 1000, 160, 0.8), LimitRecord(200, 1000, 190, 0.95)]
        await asyncio.sleep(2000)
        for _ in range(160):
            await client.get_scopes()
    told = [record for record in records if isinstance(record, LimitRecord)]
    assert [record.level for record in told] == [0.8, 0.95, 0.8]
