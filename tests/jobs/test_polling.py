"""The schedule by itself, on jobs that follow a course, and over sockets on virtual time."""

import asyncio
import math
import statistics
from collections.abc import Collection
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import MERCHANT, ONCE, TARGET, batcher, guests, issue, polls, until
from thanx_async import (
    THANX_RATE_LIMITS,
    AuthenticationError,
    JobHandle,
    JobTimeoutError,
    LocalRateLimiter,
    NotFoundError,
    RateLimit,
    ThanxClient,
)
from thanx_async.emulator import Counter, Emulator, Faults, JobSpeed, ScriptedAnswer
from thanx_async.jobs._schedule import PollSchedule
from thanx_async.jobs._speeds import JobCourse
from thanx_async.limiter._limits import in_flight
from thanx_async.models import IssuanceJob

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@attrs.frozen
class Course:
    """What a job really does: accepted, started, over; ``stall`` seconds without progress at the half."""

    total: int
    accepted: float
    start: float
    end: float
    stall: float = 0.0
    dated: bool = True
    progress: bool = True
    grain: int = 1

    def snapshot(self, now: float) -> IssuanceJob:
        finished = now >= self.end
        state = "completed" if finished else "processing" if now >= self.start else "pending"
        running, at = self.end - self.start - self.stall, now - self.start
        if at > running / 2:
            at = max(running / 2, at - self.stall)
        done = int(self.total * at / running) if self.progress and at > 0 else 0
        done -= done % self.grain
        return IssuanceJob(
            id="job",
            state=state,
            total_count=self.total,
            processed_count=self.total if finished else max(0, min(self.total - 1, done)),
            created_at=_date(self.accepted) if self.dated else None,
            started_at=_date(self.start) if self.dated and now >= self.start else None,
            completed_at=_date(self.end) if self.dated and finished else None,
        )


@attrs.frozen
class Hanging(Course):
    """A job that comes to ``part`` of its identifiers, so many a second, and stands still until its end."""

    part: float = 0.02
    speed: float = 100.0

    def snapshot(self, now: float) -> IssuanceJob:
        job = super().snapshot(now)
        done = min(int(self.part * self.total), int(self.speed * max(0.0, now - self.start)))
        return job if job.is_finished else attrs.evolve(job, processed_count=done)


def _date(at: float) -> datetime:
    return EPOCH + timedelta(seconds=at)


@attrs.define(eq=False)
class Watched:
    """A job that somebody waits for; sleeps until its due time as it was last asked for, or until woken."""

    course: Course
    track: JobCourse
    due: float | None = None
    polls: list[float] = attrs.field(factory=list)
    told: bool = False

    def wake(self) -> None:
        self.due = None

    def hear(self, schedule: PollSchedule) -> None:
        """A webhook tells of the job's end."""
        schedule.heard()
        schedule.hint(self.track, self.course.end)
        self.told, self.due = True, self.course.end

    @property
    def lag(self) -> float:
        return self.polls[-1] - self.course.end


def simulate(courses: list[Course], spacing: float = 0.2, told: Collection[Course] = ()) -> list[Watched]:
    """Poll jobs as the schedule says, a request every ``spacing`` seconds, until all are known to be over.

    A webhook tells of the end of those in ``told``.
    """
    schedule = PollSchedule(THANX_RATE_LIMITS)
    rows = [
        Watched(row, schedule.follow(row.snapshot(row.accepted), row.accepted, accepted=True))
        for row in sorted(courses, key=lambda row: row.accepted)
    ]
    waiting = {row: ExitStack() for row in rows}
    for row, stack in waiting.items():
        stack.enter_context(schedule.watching(row.track, row.wake))
    now = 0.0
    untold = sorted((row for row in rows if row.course in told), key=lambda row: row.course.end)
    while waiting:
        while asleep := [row for row in waiting if row.due is None]:
            asleep[0].due = asleep[0].course.end if asleep[0].told else schedule.due(asleep[0].track)
        row = min(waiting, key=lambda row: row.due or 0.0)
        assert row.due is not None
        if untold and untold[0].course.end <= row.due:
            untold.pop(0).hear(schedule)
            continue
        assert row.due < math.inf, "somebody must be due as long as anybody waits"
        row.due = due = row.course.end if row.told else schedule.due(row.track)
        if due <= max(now, min(other.due or 0.0 for other in waiting)):
            now = max(now + spacing, due)
            job = row.course.snapshot(now)
            schedule.observe(row.track, job, now)
            row.polls.append(now)
            row.due, row.told = None, False
            if job.is_finished:
                waiting.pop(row).close()
        assert len(row.polls) < 500
    return rows


def steady(count: int, seconds: float, total: int = 10_000) -> list[Course]:
    """Jobs of one duration, accepted five a second."""
    return [Course(total, 0.2 * n, 0.2 * n + 0.2, 0.2 * n + seconds) for n in range(count)]


def queued(count: int, seconds: float) -> list[Course]:
    """Jobs that the server runs one after the other."""
    return [Course(10_000, 0.2 * n, 10 + n * seconds, 10 + (n + 1) * seconds) for n in range(count)]


@pytest.mark.parametrize("seconds", [20.0, 300.0, 10_800.0])
def test_equal_jobs_are_polled_about_once_for_each_stretch_of_time(seconds: float) -> None:
    """The first job tells of the others: few polls, and the ends are known soon."""
    rows = simulate(steady(40, seconds))
    polls = [len(row.polls) for row in rows]
    assert statistics.median(polls) <= (1 if seconds <= 20 else 8)
    assert statistics.median(row.lag for row in rows) <= 0.1 * seconds


def test_jobs_in_a_queue_are_not_looked_at_before_their_turn() -> None:
    """One that has not started yet speaks for all behind it."""
    rows = simulate(queued(40, 20.0))
    assert sum(len(row.polls) for row in rows) <= 5 * 40
    assert statistics.median(row.lag for row in rows) <= 2.0


def test_a_stalled_job_is_looked_at_less_and_less() -> None:
    """A standstill of ten minutes costs tens of polls, not hundreds, and its end is seen within a tenth."""
    (row,) = simulate([Course(10_000, 0.0, 0.2, 620.0, stall=600.0)])
    assert len(row.polls) < 50
    assert row.lag <= 0.1 * 620 + 2


def test_many_stalled_jobs_share_a_quarter_of_the_budget() -> None:
    """Polls that only make sure leave most of the limits to issuing, however many jobs stand still."""
    stalled = [Course(1000, 0.2 * n, 0.2 * n, 620.0 + 0.2 * n, stall=600.0) for n in range(1, 100)]
    rows = simulate([Course(1000, 0.0, 0.0, 20.0), *stalled])
    assert sum(len(row.polls) for row in rows) <= 0.25 * 2000 / 900 * 640 + 4 * 100


def test_a_job_without_numbers_is_found_finished() -> None:
    """Neither progress nor dates: the waits grow with the time that has passed."""
    rows = simulate([Course(100, 0.2 * n, 1, 60.0 + 0.2 * n, dated=False, progress=False) for n in range(20)])
    assert max(row.lag for row in rows) <= 75
    assert sum(len(row.polls) for row in rows) < 4 * 20


@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("seconds", [0.3, 2.0, 20.0])
def test_hundreds_of_jobs_without_dates_are_not_looked_at_later_and_later(
    seconds: float, progress: bool
) -> None:
    """Thanx may leave out when a job ended: each look then only tells by when at the latest."""
    courses = [
        Course(10_000, 0.02 * n, 0.02 * n, 0.02 * n + seconds, dated=False, progress=progress)
        for n in range(300)
    ]
    rows = simulate(courses, spacing=0.002)
    assert max(row.lag for row in rows) <= 2 + 1.5 * seconds
    assert sum(len(row.polls) for row in rows) <= 1.1 * len(rows)


def test_a_job_that_hangs_after_little_progress_keeps_nobody_waiting() -> None:
    """The scout that stands still gives its place to the next in line."""
    hanging = Hanging(10_000, 0.0, 0.0, 5000.0, dated=False)
    rows = simulate([hanging, *[Course(5000, 25.0 + n, 25.1 + n, 25.2 + n) for n in range(3)]])
    assert max(row.lag for row in rows[1:]) <= 65


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("part", [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9])
def test_jobs_that_hang_partway_keep_nobody_waiting(part: float, count: int, *, dated: bool) -> None:
    """However far they have come: nobody waits for the end that their progress seems to tell of."""
    hung = [
        Hanging(10_000, 0.2 * n, 0.2 * n + 0.2, 3600.0, dated=dated, part=part, speed=5000.0)
        for n in range(count)
    ]
    good = [attrs.evolve(course, dated=dated) for course in steady(count + 4, 2.2)[count:]]
    rows = simulate([*hung, *good])
    assert max(row.lag for row in rows[count:]) <= max(20, 13 * count)


def test_a_fast_job_that_hangs_spends_no_polls_on_others() -> None:
    """Slower jobs are not looked at again and again because of one that was faster and then stopped."""
    fast = Hanging(10_000, 0.0, 0.2, 5000.0, part=0.3, speed=3000.0)
    slow = [Course(10_000, 0.2 * n, 0.2 * n + 0.2, 0.2 * n + 1000.2, progress=True) for n in range(1, 50)]
    rows = simulate([fast, *slow])
    assert sum(len(row.polls) for row in rows[1:]) < 5 * len(slow)
    assert max(row.lag for row in rows[1:]) < 60


def test_other_sizes_are_predicted_by_size() -> None:
    """A last, smaller batch is expected sooner, by the speed of the others."""
    rows = simulate([*steady(10, 20.0), Course(5000, 2.0, 2.2, 12.0)])
    assert len(rows[-1].polls) == 1
    assert rows[-1].lag < 2.0


COURSES = st.lists(
    st.builds(
        lambda total, accepted, wait, run, stall, dated, progress, grain: Course(
            total, accepted, accepted + wait, accepted + wait + run + stall, stall, dated, progress, grain
        ),
        st.integers(1, 10_000),
        st.floats(0, 100),
        st.sampled_from([0.0, 0.2, 30.0, 600.0]),
        st.floats(0.1, 20_000),
        st.sampled_from([0.0, 0.0, 5.0, 1000.0]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([1, 100, 2500]),
    ),
    min_size=1,
    max_size=12,
)


@given(COURSES, st.data())
def test_any_job_is_known_to_be_over_in_time(courses: list[Course], data: st.DataObject) -> None:
    """Whatever jobs do and whichever webhooks get lost: nobody is forgotten, and no job polled for ever."""
    told = data.draw(st.sets(st.sampled_from(courses))) if data.draw(st.booleans()) else ()
    longest = max(course.end - course.accepted for course in courses)
    for row in simulate(courses, told=told):
        taken = row.course.end - row.course.accepted
        assert 0 <= row.lag <= max(10 * taken, 4 * longest) + 130
        if not told:
            assert all(
                later - earlier > 0.49 for earlier, later in zip(row.polls, row.polls[1:], strict=False)
            )


@given(st.integers(1, 1000), st.floats(0.001, 3600), st.one_of(st.none(), st.floats(0, 1e6)))
def test_requests_at_once_are_bounded(requests: int, seconds: float, latency: float | None) -> None:
    """Little's law, between 2 and 32, for any limits and any latency."""
    assert 2 <= in_flight([RateLimit(requests, seconds)], latency) <= 32


SLOW = JobSpeed(identifiers_per_second=0.5)
ERROR = ScriptedAnswer(500, b'{"error": {"code": "GENERIC_ERROR", "message": "x"}}')


async def test_forty_jobs_while_issuing() -> None:
    """Jobs of 20 s: about one poll each, known within 2 s of their end, and issuing hardly notices."""
    seen: dict[str, float] = {}
    loop = asyncio.get_running_loop()

    async def follow(handle: JobHandle) -> None:
        await handle
        seen[handle.id] = loop.time()

    async with (
        Emulator(speed=JobSpeed(identifiers_per_second=0.5), counter=Counter.SLIDING_LOG) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
        asyncio.TaskGroup() as group,
    ):
        async with batcher(client).stream(guests(400)) as handles:
            async for handle in handles:
                group.create_task(follow(handle))
        issued = loop.time()
        while len(seen) < 40:
            await asyncio.sleep(1)
        jobs = emulator.requests
        created = [row.time for row in jobs if row.method == "POST"]
    by_job = [polls(emulator).count(path) for path in set(polls(emulator))]
    lags = [at - begun - 20.2 for at, begun in zip(seen.values(), created, strict=True)]
    assert statistics.median(by_job) <= 1.5
    assert max(lags) <= 2.0
    assert issued <= 1.05 * 39 * 0.2 + 0.5
    assert emulator.refused == 0


async def test_polls_leave_half_of_a_long_window_to_issuing() -> None:
    """Once half of a window is spent, polls go no faster than the window bears for ever."""
    limits = [(10, 1.0), (60, 60.0)]
    async with (
        Emulator(limits=limits, counter=Counter.SLIDING_LOG, speed=JobSpeed(start_delay=0)) as emulator,
        ThanxClient(
            "c", "t", base_url=emulator.url, limiter=LocalRateLimiter([RateLimit(*row) for row in limits])
        ) as client,
    ):
        run = await batcher(client).issue(guests(300))
        waiting = asyncio.gather(*run.handles)
        await asyncio.sleep(5)
        begun = asyncio.get_running_loop().time()
        await issue(client, 1)
        assert asyncio.get_running_loop().time() - begun < 2
        await waiting


async def test_a_plan_counts_a_poll_for_each_job() -> None:
    """The least duration is that of all requests under both limits: ten to issue, and ten to look."""
    limiter = LocalRateLimiter([RateLimit(2, 1), RateLimit(10, 60)])
    plan = await batcher(ThanxClient("c", "t", limiter=limiter)).plan(guests(100))
    assert plan.requests == 10
    assert plan.least_duration == pytest.approx(60 + 9 * 0.5)


@pytest.mark.parametrize("status", [400, 408, 418, 500, 502, 503])
async def test_a_failed_poll_ends_no_waiting(status: int) -> None:
    """Whoever waits for a job goes on waiting where a poll gets no usable answer, at growing intervals."""
    async with (
        Emulator(speed=SLOW) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, retry=ONCE) as client,
    ):
        handle = await issue(client, 10)
        emulator.script(*[ScriptedAnswer(status)] * 4)
        jobs = await asyncio.gather(*(handle.wait() for _ in range(5)))
        assert {job.state for job in jobs} == {"completed"}
        assert 5 <= len(polls(emulator)) <= 8


async def test_a_poll_that_is_refused_is_shared_and_forgotten() -> None:
    """Whoever waited for a job that is refused gets the error, after one request; later callers poll anew."""
    async with (
        Emulator(speed=SLOW) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, retry=ONCE) as client,
    ):
        handle = await issue(client, 10)
        emulator.script(ScriptedAnswer(401))
        errors = await asyncio.gather(*(handle.wait() for _ in range(5)), return_exceptions=True)
        assert [type(error) for error in errors] == [AuthenticationError] * 5
        assert len(polls(emulator)) == 1
        assert (await handle).state == "completed"


async def test_polls_without_an_answer_keep_nobody_waiting() -> None:
    """Where as many polls as are usual at once get no answer, others are sent all the same."""
    async with Emulator(speed=SLOW) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        await (await batcher(client).issue(guests(10))).wait()
        handles = (await batcher(client).issue(guests(40, start=10))).handles
        emulator.script(*[ScriptedAnswer(delay=1000)] * 2)
        waits = [asyncio.create_task(handle.wait(timeout=30)) for handle in handles]
        ended = await asyncio.gather(*waits, return_exceptions=True)
    assert [type(end) for end in ended].count(JobTimeoutError) == 2
    assert sum(isinstance(end, IssuanceJob) and end.state == "completed" for end in ended) == 2


async def test_one_lost_job_does_not_keep_the_others() -> None:
    """A job that Thanx does not know any more is an error of the run's wait, after all others are known."""
    async with (
        Emulator(speed=SLOW) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        run = await batcher(client).issue(guests(30))
        gone = ScriptedAnswer(404, b'{"error": {"code": "RESOURCE_NOT_FOUND", "message": "x"}}')
        emulator.script(gone)
        with pytest.raises(NotFoundError):
            await run.wait()
        assert run.report().counts["issued"] == 20
        assert (await run.wait()).counts["issued"] == 30


async def test_a_waiter_cancelled_in_its_poll_hands_over() -> None:
    """The request of a cancelled waiter is lost, and the next waiter sends another at once."""
    async with (
        Emulator(speed=JobSpeed(start_delay=0), faults=Faults(delay=1.0)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        handle = await issue(client)
        first, second = asyncio.create_task(handle.wait()), asyncio.create_task(handle.wait())
        await until(lambda: polls(emulator))
        first.cancel()
        before = asyncio.get_running_loop().time()
        assert (await second).state == "completed"
        assert asyncio.get_running_loop().time() - before < 2.5
        assert (first.cancelled(), len(polls(emulator))) == (True, 2)


async def test_a_timeout_works_while_polls_wait_for_the_limits() -> None:
    """A wait ends in time although its poll is held back by a refusal."""
    async with Emulator(speed=SLOW) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        handle = await issue(client, 10)
        emulator.script(ScriptedAnswer(429, b"", headers={"Retry-After": "600"}))
        before = asyncio.get_running_loop().time()
        with pytest.raises(JobTimeoutError):
            await handle.wait(timeout=30)
        assert asyncio.get_running_loop().time() - before == pytest.approx(30)


async def test_a_look_of_somebody_else_ends_the_wait() -> None:
    """A waiter takes over what another call has found out, without a poll of its own."""
    async with Emulator(speed=SLOW) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        handle = await issue(client, 10)
        waiter = asyncio.create_task(client.job(handle.id, merchant_id=MERCHANT).wait())
        await asyncio.sleep(0.5)
        emulator.script(_completed(handle.id))
        await handle.refresh()
        assert (await asyncio.wait_for(waiter, 0.1)).state == "completed"
        assert len(polls(emulator)) == 1


def _completed(job_id: str) -> ScriptedAnswer:
    return ScriptedAnswer(
        200, b'{"issuance_job": {"id": "%b", "state": "completed", "total_count": 10}}' % job_id.encode()
    )


async def test_a_job_accepted_long_ago_is_looked_at_at_once() -> None:
    """The answer to a replayed key is old: by its date the job is over, so it is not waited for again."""
    async with (
        Emulator(speed=SLOW, limits=[]) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        await issue(client, 10)
        first = await client.issue_rewards(**TARGET, identifiers=guests(10), idempotency_key="k")
        await first
        await asyncio.sleep(600)
        before = asyncio.get_running_loop().time()
        other = ThanxClient("c", "t", base_url=emulator.url)
        async with other:
            await other.issue_rewards(**TARGET, identifiers=guests(10), idempotency_key="new")
            again = await other.issue_rewards(**TARGET, identifiers=guests(10), idempotency_key="k")
            assert (await again).id == first.id
        assert asyncio.get_running_loop().time() - before < 5


async def test_revoked_jobs_are_waited_for() -> None:
    """After a revocation the wait is for its end, and the time that the job has run does not slow it."""
    speed = JobSpeed(identifiers_per_second=0.01, revoke_seconds=5)
    async with Emulator(speed=speed) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        handle = await issue(client, 10)
        await handle
        before = asyncio.get_running_loop().time()
        await handle.revoke()
        assert (await handle).state == "revoked"
        assert asyncio.get_running_loop().time() - before < 10
