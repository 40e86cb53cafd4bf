"""Jobs of `add` whose outcome nobody asks for."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.helpers import LOST, ONCE, SECRET, TARGET, completed, guests, issuing, now, polls, sign, until
from thanx_async import AsyncBatcher, ConnectionFailedError, SQLiteLedger, ThanxClient
from thanx_async.emulator import Emulator, Faults, JobSpeed, ScriptedAnswer
from thanx_async.instrumentation import JobRecord, Record
from thanx_async.webhooks import verify

HANGING = Faults(job_hangs=1)


class Told:
    """A hook, and the jobs that it was told of."""

    def __init__(self) -> None:
        self.jobs: list[JobRecord] = []

    def __call__(self, record: Record) -> None:
        if isinstance(record, JobRecord):
            self.jobs.append(record)


@pytest.fixture
def told() -> Told:
    return Told()


@asynccontextmanager
async def following(emulator: Emulator, told: Told) -> AsyncIterator[AsyncBatcher]:
    async with (
        ThanxClient("c", "t", base_url=emulator.url, hook=told) as client,
        AsyncBatcher(client, **TARGET, follow_outcomes=True) as batcher,
    ):
        yield batcher


async def test_failures_that_nobody_asks_for_are_told(emulator: Emulator, told: Told) -> None:
    """Each job of `add` is told to the hook with its counts, at one poll a job."""
    async with following(emulator, told) as batcher:
        for number in range(20):
            pair = [*guests(1, start=number), f"unknown{number}@example.com"]
            await asyncio.gather(*map(batcher.add, pair))
            await asyncio.sleep(1)
        await until(lambda: len(told.jobs) == 20, pause=1)
    assert [(record.issued, record.failed, record.polls) for record in told.jobs] == [(1, 1, 1)] * 20
    assert len({record.job_id for record in told.jobs}) == 20
    assert len(polls(emulator)) == 20


async def test_nothing_is_followed_by_default(emulator: Emulator, told: Told) -> None:
    """Without it no request is spent on what nobody asks for."""
    async with (
        ThanxClient("c", "t", base_url=emulator.url, hook=told) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        await batcher.add("a@example.com")
        await asyncio.sleep(600)
    assert polls(emulator) == []
    assert told.jobs == []


async def test_what_a_caller_has_seen_costs_nothing_more(emulator: Emulator, told: Told) -> None:
    """A job whose outcome was asked for is not polled again, and not told again."""
    async with following(emulator, told) as batcher:
        await batcher.add("a@example.com")
        assert (await batcher.outcome("a@example.com")).issued
        before = len(polls(emulator))
        await asyncio.sleep(600)
        assert len(polls(emulator)) == before
    assert len(told.jobs) == 1


async def test_a_busy_service(told: Told) -> None:
    """At the limits its batches become fewer, within the longest pace; nothing is refused, no poll wasted."""
    sent: dict[bool, int] = {}
    for follow in (False, True):
        async with (
            Emulator() as emulator,
            ThanxClient("c", "t", base_url=emulator.url, hook=told) as client,
            AsyncBatcher(client, **TARGET, follow_outcomes=follow) as batcher,
        ):
            async with asyncio.TaskGroup() as group:
                for guest in guests(600):
                    group.create_task(batcher.add(guest, timeout=2.5))
                    await asyncio.sleep(0.5)
            sent[follow] = len(issuing(emulator))
            assert emulator.refused == 0
            assert len(polls(emulator)) <= (sent[follow] if follow else 0)
    assert sum(record.issued for record in told.jobs) > 500
    assert sent[False] / 2 < sent[True] < sent[False]


async def test_a_webhook_is_a_hint_here_too(emulator: Emulator, told: Told) -> None:
    """A job that a webhook has told of costs the one poll that proves it."""
    async with following(emulator, told) as batcher:
        handle = await batcher.add("a@example.com")
        body = completed(handle.id)
        batcher._client.notify(verify(body, sign(body), SECRET))
        await until(lambda: told.jobs, pause=1)
        assert now() < 60
    assert len(polls(emulator)) == 1


async def test_slow_jobs(told: Told) -> None:
    """A job that takes most of an hour is polled ever more rarely, and told all the same."""
    speed = JobSpeed(start_delay=3000, identifiers_per_second=1e6)
    async with Emulator(speed=speed) as emulator, following(emulator, told) as batcher:
        await batcher.add("a@example.com")
        await until(lambda: told.jobs, pause=10)
    assert len(polls(emulator)) < 100


async def test_jobs_that_never_end(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """They are given up after an hour, which the log says without naming a guest."""
    async with Emulator(faults=HANGING) as emulator, following(emulator, told) as batcher:
        await batcher.add("a@example.com")
        await until(lambda: "is not followed any more" in caplog.text, pause=60)
        spent = len(polls(emulator))
        await asyncio.sleep(7200)
        assert len(polls(emulator)) == spent
    assert told.jobs == []
    assert "a@example.com" not in caplog.text


async def test_the_number_of_jobs_is_bounded(
    told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While too many jobs have not ended, further ones are not followed, which is said once."""
    monkeypatch.setattr("thanx_async.batching._follower._MAX_JOBS", 2)
    async with Emulator() as emulator, following(emulator, told) as batcher:
        for number in range(3):
            await batcher.add(f"a{number}@example.com")
        await until(lambda: len(told.jobs) == 2)
        await batcher.add("later@example.com")
        await until(lambda: len(told.jobs) == 3)
        await asyncio.sleep(600)
    assert len(told.jobs) == 3
    assert caplog.text.count("not all outcomes are followed") == 1


@pytest.mark.parametrize("after", [0.0, 5.0, 14.9, 15.0, 15.1])
async def test_it_ends_with_the_batcher(
    after: float, emulator: Emulator, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing does not wait for jobs, and says how many were left; nothing of it is left running."""
    caplog.set_level(logging.INFO, "thanx_async")
    emulator.script(ScriptedAnswer(), ScriptedAnswer(delay=30))
    async with following(emulator, told) as batcher:
        await batcher.add("a@example.com")
        await asyncio.sleep(after)
        begun = now()
        report = await batcher.aclose()
        assert now() - begun < 1
        assert report.unsent == ()
        tasks = {task for task in asyncio.all_tasks() if "_wait" in repr(task.get_coro())}
        assert tasks == set()
    assert told.jobs == []
    assert "the outcomes of 1 jobs are not followed any more" in caplog.text


async def test_guests_sent_while_closing_are_not_followed(emulator: Emulator, told: Told) -> None:
    """What goes out as the batcher closes does not keep it open."""
    async with following(emulator, told) as batcher:
        adding = asyncio.create_task(batcher.add("a@example.com"))
        await asyncio.sleep(0)
        begun = now()
        await batcher.aclose()
        assert now() - begun < 1
        assert (await adding).total == 1
    assert polls(emulator) == []


async def test_a_cancelled_body(emulator: Emulator, told: Told) -> None:
    """A cancellation of the service ends it too, and goes on to whoever cancelled."""

    async def serve() -> None:
        async with following(emulator, told) as batcher:
            await batcher.add("a@example.com")
            await asyncio.sleep(1e9)

    serving = asyncio.create_task(serve())
    await asyncio.sleep(16)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert serving.cancelled()


@pytest.mark.parametrize(
    "answer",
    [
        ScriptedAnswer(404, b'{"error": {"code": "NOT_FOUND", "message": "no job a@example.com"}}'),
        ScriptedAnswer(401, b"{}"),
    ],
)
async def test_a_refused_poll(
    answer: ScriptedAnswer, emulator: Emulator, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends the following of this job only."""
    async with following(emulator, told) as batcher:
        first = await batcher.add("a@example.com")
        emulator.script(answer)
        await until(lambda: "is not followed any more" in caplog.text, pause=1)
        assert f"the outcome of job {first.id} is not followed" in caplog.text
        await batcher.add("b@example.com")
        await until(lambda: told.jobs, pause=1)
    assert "a@example.com" not in caplog.text


async def test_a_batch_that_was_in_doubt_is_followed(
    emulator: Emulator, told: Told, ledger: SQLiteLedger
) -> None:
    """Its job counts once the batch is settled by itself."""
    emulator.script(LOST)
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=ONCE, hook=told) as client,
        AsyncBatcher(client, **TARGET, ledger=ledger, follow_outcomes=True) as batcher,
    ):
        with pytest.raises(ConnectionFailedError):
            await batcher.add("a@example.com")
        await until(lambda: told.jobs, pause=1)
    assert [(record.issued, record.failed) for record in told.jobs] == [(1, 0)]
