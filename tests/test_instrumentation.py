import logging

import pytest

from tests.helpers import BAD, LOST, MERCHANT, TARGET, UNAUTHORIZED, guests
from thanx_async import AsyncBatcher, BatchError, ConnectionFailedError, RetryPolicy, ThanxClient
from thanx_async.emulator import Emulator, ScriptedAnswer
from thanx_async.instrumentation import (
    BatchEvent,
    BatchRecord,
    JobRecord,
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


async def test_a_broken_hook_harms_nothing(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """What a hook raises is logged, and the request goes on."""

    def broken(record: Record) -> None:
        raise ValueError("oops")

    async with ThanxClient("c", "t", base_url=emulator.url, hook=broken) as client:
        handle = await client.issue_rewards(**TARGET, identifiers=guests(1))
    assert handle.total == 1
    assert "the hook failed on a RequestRecord" in caplog.text


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
