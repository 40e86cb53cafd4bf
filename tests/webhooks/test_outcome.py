"""Outcomes from the signed event: as a poll would tell them, without the poll; and found out if they lie."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import (
    FAST,
    MERCHANT,
    SECRET,
    TARGET,
    batcher,
    guests,
    issuing,
    now,
    on_virtual_time,
    polls,
    recording,
    until,
)
from thanx_async import (
    AsyncBatcher,
    Events,
    IssuanceReport,
    IssuanceRun,
    LocalRateLimiter,
    RateLimit,
    SQLiteLedger,
    ThanxClient,
)
from thanx_async._batches import Trust
from thanx_async._core.columns import Numbered
from thanx_async.client import internals
from thanx_async.emulator import Emulator, JobSpeed, Oddity, Webhooks
from thanx_async.instrumentation import JobRecord, Record
from thanx_async.jobs import EventTrust
from thanx_async.webhooks import aiohttp_handler

HOOKS = Webhooks("http://to-be-set", SECRET, reward_issued=False)
PLENTY = [(10_000, 1.0)]


def listed(count: int, *, failing: int = 1) -> list[str]:
    """So many guests, of which in each ten so many are unknown to Thanx."""
    return [
        f"unknown{number}@example.com" if number % 10 < failing else f"guest{number}@example.com"
        for number in range(count)
    ]


@pytest.fixture(autouse=True)
def unsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is polled by chance."""
    monkeypatch.setattr(EventTrust, "is_sampled", lambda *_: False)


@asynccontextmanager
async def hooked(
    hooks: Webhooks = HOOKS,
    *,
    events: Events = Events.OUTCOME,
    speed: JobSpeed = FAST,
    limits: Sequence[tuple[int, float]] = PLENTY,
    log: list[Record] | None = None,
) -> AsyncIterator[tuple[Emulator, ThanxClient]]:
    """An emulator that posts its events to the endpoint of a client of it."""
    records = [] if log is None else log
    async with (
        Emulator(speed=speed, limits=limits, id_tag="") as emulator,
        ThanxClient(
            "c",
            "t",
            base_url=emulator.url,
            limiter=LocalRateLimiter([RateLimit(*limit) for limit in limits]),
            hook=records.append,
            events=events,
        ) as client,
    ):
        app = web.Application()
        app.router.add_post("/hook", aiohttp_handler(client, SECRET))
        async with TestServer(app) as server:
            emulator.webhooks = attrs.evolve(hooks, url=str(server.make_url("/hook")))
            yield emulator, client


def trust(client: ThanxClient) -> EventTrust:
    return internals(client)[1].trust


def trusting(client: ThanxClient) -> None:
    """Let the client have seen enough events confirmed."""
    trust(client).adopt(Trust(3, 1))


async def heard(emulator: Emulator, count: int) -> None:
    """Wait until the emulator has posted so many ends of jobs, and the client has taken them in."""

    def posted() -> bool:
        webhooks = emulator.statistics()["webhooks"]
        assert isinstance(webhooks, dict)
        return int(webhooks.get("reward_batch.completed", 0)) >= count

    await until(posted)
    await asyncio.sleep(0.2)


async def reported(values: Iterable[str]) -> IssuanceReport:
    """The report of a run whose jobs are all polled."""
    async with hooked(events=Events.HINT) as (_, client):
        return await (await batcher(client).issue(values, run_id="run")).wait()


def polled_jobs(emulator: Emulator) -> int:
    return len(set(polls(emulator)))


async def test_after_three_confirmed_events_nothing_is_polled() -> None:
    """The report is the one that polls give, and so is each job."""
    values = listed(200)
    async with hooked() as (emulator, client):
        run = await batcher(client).issue(values, run_id="run")
        report = await run.wait()
        assert len(polls(emulator)) <= 10
        assert any(handle.job and handle.job.by_event for handle in run.handles)
        before = len(polls(emulator))
        again = await batcher(client).issue(listed(100), run_id="more")
        assert (await again.wait()).counts["failed"] == 10
        assert len(polls(emulator)) == before
        told = [handle.job for handle in run.handles if handle.job and handle.job.by_event]
        for job in told:
            polled = await client.get_issuance_job(job.id, merchant_id=MERCHANT)
            assert attrs.evolve(job, by_event=False, started_at=polled.started_at, completed_at=None) == (
                attrs.evolve(polled, completed_at=None)
            )
    assert report == await reported(values)


async def test_events_are_hints_by_default() -> None:
    """Without the option each job is polled, and nothing is by event."""
    async with hooked(events=Events.HINT) as (emulator, client):
        run = await batcher(client).issue(listed(100))
        await run.wait()
        assert polled_jobs(emulator) == 10
        assert not any(handle.job and handle.job.by_event for handle in run.handles)
        assert trust(client).known == Trust()


async def test_without_failures_no_trust_is_earned() -> None:
    """Events that never told of a failure are all confirmed by a poll."""
    async with hooked() as (emulator, client):
        await (await batcher(client).issue(guests(100))).wait()
        assert polled_jobs(emulator) == 10
        assert (trust(client).known.with_failures, trust(client).known.is_earned) == (0, False)
        assert trust(client).known.confirmed > 3


HARMLESS = [Oddity.SPELLING]
NOTICED = [
    Oddity.CUT,
    Oddity.SUM,
    Oddity.TOTAL,
    Oddity.MERCHANT,
    Oddity.STRANGER,
    Oddity.TWICE,
    Oddity.FAILED,
    Oddity.OLD,
    Oddity.FORGED,
]
BELIEVED = [Oddity.SWAPPED, Oddity.HIDDEN, Oddity.REASON]


def test_every_oddity_is_covered() -> None:
    """Whatever is added to the emulator has a test here."""
    assert sorted([*HARMLESS, *NOTICED, *BELIEVED]) == sorted(Oddity)


@pytest.mark.parametrize("oddity", [*HARMLESS, *NOTICED])
async def test_an_odd_event_does_no_harm(oddity: Oddity) -> None:
    """What does not agree with the batch is a hint: one poll a job, the polled report, and trust is kept."""
    values = listed(100, failing=2)
    hooks = attrs.evolve(HOOKS, odd=1, oddities=(oddity,))
    async with hooked(hooks) as (emulator, client):
        trusting(client)
        report = await (await batcher(client).issue(values, run_id="run")).wait()
        await heard(emulator, 10)
        assert polled_jobs(emulator) == (0 if oddity in HARMLESS else 10)
        assert not trust(client).known.broken
    assert report == await reported(values)


@pytest.mark.parametrize("oddity", BELIEVED)
async def test_a_lie_that_agrees_is_found_by_verifying(
    oddity: Oddity, caplog: pytest.LogCaptureFixture
) -> None:
    """Then the polls stand, for all jobs; the error names no guest; events are hints for good."""
    values = listed(100, failing=2)
    async with hooked(attrs.evolve(HOOKS, odd=1, oddities=(oddity,))) as (emulator, client):
        trusting(client)
        run = await batcher(client).issue(values, run_id="run")
        believed = await run.wait()
        assert polls(emulator) == []
        found = await run.verify(0.1)
        assert [row.batch.count for row in found.disagreeing] == [10]
        assert (found.confirmed, found.unchecked) == ([], [])
        report = run.report()
        assert polled_jobs(emulator) == 10
        assert trust(client).known.broken
        more = await (await batcher(client).issue(values, run_id="more")).wait()
        assert polled_jobs(emulator) == 20
    honest = await reported(values)
    assert believed != report == honest
    assert more.counts == honest.counts
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "@" not in errors[0]


async def test_verifying_what_is_true() -> None:
    """Every job is confirmed at one poll, nothing changes, and a second time there is nothing to poll."""
    values = listed(100)
    async with hooked() as (emulator, client):
        trusting(client)
        run = await batcher(client).issue(values, run_id="run")
        before = await run.wait()
        assert polls(emulator) == []
        assert (await run.verify(0)).confirmed == []
        assert len((await run.verify(0.25)).confirmed) == 3
        assert len((await run.verify()).confirmed) == 7
        assert len(polls(emulator)) == 10
        assert (await run.verify()).confirmed == []
        assert run.report() == before
        assert trust(client).known.confirmed == 3 + 10


async def test_a_sample_is_polled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lie among them is found within the run's own wait, and all that was believed is polled."""
    monkeypatch.setattr(EventTrust, "is_sampled", lambda _, job_id: job_id == "job000005")
    values = listed(100, failing=2)
    async with hooked() as (emulator, client):
        trusting(client)
        await (await batcher(client).issue(values)).wait()
        assert len(polls(emulator)) == 1
    async with hooked(attrs.evolve(HOOKS, odd=1, oddities=(Oddity.SWAPPED,))) as (emulator, client):
        trusting(client)
        report = await (await batcher(client).issue(values, run_id="run")).wait()
        assert polled_jobs(emulator) == 10
    assert report == await reported(values)


async def test_the_sample_takes_nothing_from_issuing(monkeypatch: pytest.MonkeyPatch) -> None:
    """While less than half of the long limit is free, it is not polled, and nobody waits for it."""
    monkeypatch.setattr(EventTrust, "is_sampled", lambda *_: True)
    async with hooked(limits=[(5, 1.0), (30, 900.0)]) as (emulator, client):
        trusting(client)
        report = await (await batcher(client).issue(listed(300), run_id="run")).wait()
        assert report.issued == 270
        assert now() < 30
        assert polls(emulator) == []
        await asyncio.sleep(2700)
        assert polled_jobs(emulator) == 30


async def test_an_event_before_the_answer() -> None:
    """Events that come before the 202 are remembered."""
    values = listed(100)
    async with hooked(attrs.evolve(HOOKS, early=1)) as (emulator, client):
        trusting(client)
        report = await (await batcher(client).issue(values, run_id="run")).wait()
        assert polls(emulator) == []
    assert report == await reported(values)


async def test_events_twice_and_late_and_lost() -> None:
    """The report is the polled one, whatever the network does."""
    values = listed(300)
    hooks = attrs.evolve(HOOKS, lost=0.2, duplicated=0.4, late=0.4, early=0.3, seed=3)
    async with hooked(hooks) as (emulator, client):
        report = await (await batcher(client).issue(values, run_id="run")).wait()
        assert polled_jobs(emulator) < 25
        await asyncio.sleep(10)
        assert not trust(client).known.broken
    assert report == await reported(values)


async def test_two_events_that_differ(caplog: pytest.LogCaptureFixture) -> None:
    """The second one of a job that tells another outcome ends the trust, and the job is polled."""
    async with hooked() as (emulator, client):
        trusting(client)
        handle = await client.issue_rewards(**TARGET, identifiers=listed(10))
        assert (await handle).by_event
        emulator.webhooks = attrs.evolve(emulator.webhooks or HOOKS, url="http://127.0.0.1:9/")
        _, jobs = internals(client)
        claim = attrs.evolve(
            jobs._pollers["job000001"].signs.claims[0], issued=10, failed=0, failures=Numbered.of([])
        )
        jobs.ended("job000001", claim)
        job = await handle
        assert (job.by_event, job.success_count) == (False, 9)
        assert trust(client).known.broken
    assert "two events" in caplog.text


async def test_jobs_of_single_requests() -> None:
    """`issue_rewards` has the outcome from the event as well; a job attached to by its id has not."""
    async with hooked() as (emulator, client):
        trusting(client)
        handle = await client.issue_rewards(**TARGET, identifiers=listed(10))
        job = await handle
        assert (job.by_event, job.success_count, polls(emulator)) == (True, 9, [])
    async with (
        hooked(speed=JobSpeed(identifiers_per_second=10)) as (emulator, client),
        ThanxClient("c", "t", base_url=emulator.url) as other,
    ):
        trusting(client)
        issued = await other.issue_rewards(**TARGET, identifiers=listed(10))
        job = await client.job(issued.id, merchant_id=MERCHANT)
        assert (job.by_event, len(polls(emulator)) > 0) == (False, True)


async def test_values_are_not_needed() -> None:
    """With ``keep_values=False`` the guests are known by place only, and the outcome is the same."""
    values = listed(100)
    async with hooked() as (emulator, client):
        trusting(client)
        sender = AsyncBatcher(client, **TARGET, batch_size=10, keep_values=False)
        report = await (await sender.issue(values, run_id="run")).wait()
        assert polls(emulator) == []
        assert {row.identifier for row in report.failed} == {None}
        assert [row.position for row in report.failed] == list(range(0, 100, 10))


async def test_guests_who_are_added() -> None:
    """`add` and `outcome` need no poll, and say that an event told it."""
    log: list[Record] = []
    async with hooked(log=log) as (emulator, client):
        trusting(client)
        async with batcher(client) as service:
            await asyncio.gather(*(service.add(guest) for guest in listed(10)))
            failed = await service.outcome("unknown0@example.com")
            issued = await service.outcome("guest1@example.com")
        assert (failed.issued, failed.reason, failed.by_event) == (False, "User not found", True)
        assert (issued.issued, issued.by_event, polls(emulator)) == (True, True, [])
    ends = [record for record in log if isinstance(record, JobRecord)]
    assert [(record.issued, record.failed, record.polls) for record in ends] == [(9, 1, 0)]


async def test_settled_waiters_take_no_turn() -> None:
    """Hundreds who wait for a turn to poll are done at once when the events can be believed."""
    async with hooked(limits=[(5, 1.0), (2000, 900.0)]) as (emulator, client):
        run = await batcher(client).issue(listed(1500))
        begun = now()
        await run.wait()
        assert now() - begun < 10
        assert len(polls(emulator)) < 20


async def test_twenty_million_guests() -> None:
    """2,000 requests fit into the rate limits, and every outcome is known with the last of them."""
    async with hooked(limits=[(5, 1.0), (2000, 900.0)]) as (emulator, client):
        trusting(client)
        begun = now()
        run = await AsyncBatcher(client, **TARGET, batch_size=2).issue(listed(4000))
        report = await run.wait()
        assert now() - begun < 430
        assert (report.issued, len(report.failed)) == (3600, 400)
        assert (len(issuing(emulator)), len(polls(emulator))) == (2000, 0)


async def outcomes(ledger: SQLiteLedger, run_id: str = "run") -> list[tuple[bool, bool]]:
    """Of each batch: whether its outcome is recorded, and was told by an event."""
    rows = [record.outcome for record in await ledger.batches(run_id)]
    return [(row is not None, row is not None and row.by_event) for row in rows]


async def test_a_new_process_does_not_begin_anew(path: Path) -> None:
    """Trust is kept with the ledger, for the credential that earned it."""
    async with SQLiteLedger(path) as ledger, hooked() as (emulator, client):
        await (await recording(client, ledger).issue(listed(100), run_id="one")).wait()
        assert polls(emulator)
        known = await ledger.exchange_trust(client.base_url, "c", Trust())
        assert known.is_earned
        assert await ledger.exchange_trust(client.base_url, "other", Trust()) == Trust()
    async with SQLiteLedger(path) as ledger, hooked() as (emulator, client):
        await ledger.exchange_trust(client.base_url, "c", known)
        await (await recording(client, ledger).issue(listed(100), run_id="two")).wait()
        assert polls(emulator) == []
        assert await outcomes(ledger, "two") == [(True, True)] * 10


async def killed(client: ThanxClient, ledger: SQLiteLedger, values: list[str]) -> None:
    """A run whose process dies before any job has ended."""
    await recording(client, ledger).issue(values, run_id="run")


@pytest.mark.parametrize("failing", [0, 1])
async def test_after_a_restart(path: Path, failing: int) -> None:
    """Jobs without failures need no poll; which guests the others name is not known any more."""
    speed = JobSpeed(identifiers_per_second=0.5, start_delay=0)
    values = listed(30, failing=failing)
    async with hooked(speed=speed) as (_, client):
        async with SQLiteLedger(path) as ledger:
            await killed(client, ledger, values)
        await asyncio.sleep(0.1)
        async with SQLiteLedger(path) as ledger:
            trusting(client)
            run = await recording(client, ledger).resume("run")
            report = await run.wait()
            assert (report.issued, len(report.failed)) == (30 - 3 * failing, 3 * failing)
            assert await outcomes(ledger) == [(True, not failing)] * 3


async def test_a_run_is_verified_later(path: Path) -> None:
    """Another process polls what was believed, and the ledger has the polled outcomes afterwards."""
    async with hooked(attrs.evolve(HOOKS, odd=1, oddities=(Oddity.HIDDEN,))) as (emulator, client):
        async with SQLiteLedger(path) as ledger:
            trusting(client)
            await (await recording(client, ledger).issue(listed(50), run_id="run")).wait()
            assert await outcomes(ledger) == [(True, True)] * 5
        async with (
            SQLiteLedger(path) as ledger,
            ThanxClient("c", "t", base_url=emulator.url) as other,
        ):
            run = await recording(other, ledger).resume("run", replay=False)
            assert (await run.wait()).issued == 50
            assert polls(emulator) == []
            found = await run.verify()
            assert len(found.disagreeing) + len(found.unchecked) + len(found.confirmed) == 5
            assert len(found.disagreeing) == 5
            assert run.report().issued == 45
            assert await outcomes(ledger) == [(True, False)] * 5
            assert (await ledger.exchange_trust(other.base_url, "c", Trust())).broken


async def test_what_was_believed_is_polled_when_trust_is_lost(path: Path) -> None:
    """A run that goes on after another process has found a lie polls what it had believed."""
    async with hooked() as (emulator, client), SQLiteLedger(path) as ledger:
        trusting(client)
        await (await recording(client, ledger).issue(listed(50), run_id="run")).wait()
        assert polls(emulator) == []
        await ledger.exchange_trust(client.base_url, "c", Trust(broken=True))
        run = await recording(client, ledger).resume("run")
        assert len((await run.wait()).failed) == 5
        assert polled_jobs(emulator) == 5
        assert await outcomes(ledger) == [(True, False)] * 5


@pytest.mark.parametrize("failing", [0, 1])
async def test_a_worker_hears_for_another(path: Path, failing: int) -> None:
    """Where nobody has failed, the event is believed by the process that waits; otherwise it is a hint."""
    async with (
        SQLiteLedger(path) as ours,
        SQLiteLedger(path) as theirs,
        hooked(speed=JobSpeed(identifiers_per_second=1)) as (emulator, client),
        ThanxClient("c", "t", base_url=emulator.url) as other,
    ):
        app = web.Application()
        app.router.add_post("/hook", aiohttp_handler(other, SECRET, relay=theirs))
        async with TestServer(app) as server:
            emulator.webhooks = attrs.evolve(HOOKS, url=str(server.make_url("/hook")))
            trusting(client)
            run = await recording(client, ours).issue(listed(50, failing=failing), run_id="run")
            report = await run.wait()
            assert (report.issued, len(report.failed)) == (50 - 5 * failing, 5 * failing)
            told = [bool(handle.job and handle.job.by_event) for handle in run.handles]
            assert told == [not failing] * 5


@given(
    sizes=st.lists(st.integers(0, 3), min_size=4, max_size=8),
    lie=st.none() | st.sampled_from(sorted(Oddity)),
    hooks=st.builds(
        Webhooks,
        st.just("http://to-be-set"),
        st.just(SECRET),
        reward_issued=st.just(False),
        seed=st.integers(0, 1000),
        merchant_id=st.booleans(),
        duplicated=st.sampled_from([0.0, 0.5]),
        lost=st.sampled_from([0.0, 0.3]),
        early=st.sampled_from([0.0, 0.5]),
    ),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_lie_changes_nothing_or_is_found(sizes: list[int], lie: Oddity | None, hooks: Webhooks) -> None:
    """With honest events the report is the polled one; with any lie it is, or verifying finds it."""
    values = [guest for number, failing in enumerate(sizes) for guest in _ten(number, failing)]
    if lie is not None:
        hooks = attrs.evolve(hooks, odd=0.5, oddities=(lie,))

    async def check() -> None:
        honest = await reported(values)
        async with hooked(hooks) as (_, client):
            trusting(client)
            run = await batcher(client).issue(values, run_id="run")
            report = await run.wait()
            if lie is None:
                assert report == honest
            found = await run.verify()
            assert (report != honest) <= (bool(found.disagreeing) or trust(client).known.broken)
            assert run.report() == honest

    on_virtual_time(check)


def _ten(number: int, failing: int) -> list[str]:
    return [f"unknown{number}x{n}@example.com" for n in range(failing)] + [
        f"guest{number}x{n}@example.com" for n in range(10 - failing)
    ]


async def test_pickled_and_shown() -> None:
    """A run by event can be pickled, and its repr tells the same counts."""
    async with hooked() as (_, client):
        trusting(client)
        run: IssuanceRun = await batcher(client).issue(listed(20))
        await run.wait()
        assert "18 issued, 2 failed" in repr(run)
