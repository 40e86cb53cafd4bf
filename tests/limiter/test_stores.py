"""What every limiter keeps to, wherever its state is: in memory, in a file, in PostgreSQL or in Redis."""

import asyncio
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import HANGS, now, on_virtual_time, until
from tests.limiter.sending import LIMITS, REQUESTS, check, course, send
from tests.limiter.stores import Place, virtual
from thanx_async import ConnectionFailedError, Lane, RateLimit, RateLimiter
from thanx_async.limiter import PacedLimiter

Places = Callable[[], Place]


@settings(max_examples=20)
@given(limits=LIMITS, requests=REQUESTS, reserve=st.sampled_from([0, 0.1, 0.9]))
def test_no_window_ever_holds_too_many(
    place: Places, limits: list[RateLimit], requests: list[tuple[float, str, Lane]], reserve: float
) -> None:
    """By the log of all processes together no limit is broken, and nobody leaves a ticket or a booking."""

    async def main() -> None:
        async with place() as shared:
            limiters = [shared.limiter(limits, reserve=reserve) for _ in range(3)]
            check(await course(limiters, requests), limits)
            state = await shared.state()
            assert (state.tickets, state.flights) == ([], {})

    with virtual():
        on_virtual_time(main)


async def test_first_come_first_served(wall: SimpleNamespace, place: Places) -> None:
    """Waiters of a lane go in the order in which they came, also when some have left."""
    order: list[int] = []
    async with place() as shared:
        limiter = shared.limiter()

        async def request(number: int) -> None:
            async with limiter.slot():
                order.append(number)

        tasks = [asyncio.create_task(request(number)) for number in range(12)]
        await until(lambda: len(order) == 3)
        for task in tasks[5:8]:
            task.cancel()
        await asyncio.wait(tasks)
    assert order == [0, 1, 2, 3, 4, 8, 9, 10, 11]


async def test_refusals_are_shared(wall: SimpleNamespace, place: Places) -> None:
    """A pause after a refusal, its probe and the count of refusals are everybody's."""
    sent: list[float] = []
    async with place() as shared:
        one, other = shared.limiter(), shared.limiter()
        await send(one, sent, status=429, headers={"Retry-After": "20"})
        probe = asyncio.create_task(send(other, sent, took=30))
        await asyncio.sleep(21)
        follower = asyncio.create_task(send(one, sent))
        await asyncio.sleep(10)
        assert len(sent) == 2
        await asyncio.wait([probe, follower])
        assert (await shared.state()).refusal.count == 1
    assert sent[1] == pytest.approx(20, abs=0.1)
    assert sent[2] == pytest.approx(50, abs=0.5)


async def test_outages_are_shared(wall: SimpleNamespace, place: Places) -> None:
    """Without an answer everybody pauses, one probes, and its answer lets all of them go on."""
    sent: list[float] = []

    async def lost(limiter: RateLimiter) -> None:
        async with limiter.slot():
            sent.append(now())
            raise ConnectionFailedError("broken")

    async with place() as shared:
        one, other = shared.limiter(), shared.limiter()
        for _ in range(5):
            with pytest.raises(ConnectionFailedError):
                await lost(one)
        probe = asyncio.create_task(send(other, sent, took=2))
        await until(lambda: len(sent) == 6)
        followers = [asyncio.create_task(send(limiter, sent)) for limiter in (one, other, one)]
        await asyncio.sleep(1.5)
        assert len(sent) == 6
        assert other.status().no_answer_for
        await asyncio.wait([probe, *followers])
        assert (await shared.state()).refusal.failures == 0
    assert sent[5] - sent[4] >= 1.99
    assert sent[6] - sent[5] >= 1.99


async def test_lanes_take_turns(wall: SimpleNamespace, place: Places) -> None:
    """A process with many requests does not starve one with few, and polls get one slot in ten.

    In memory, busy and quiet are one process, and requests of a lane go in the order in which they came.
    """
    order: list[str] = []

    async def request(limiter: RateLimiter, name: str, lane: Lane) -> None:
        async with limiter.slot(lane):
            order.append(name)

    async with place() as shared:
        busy, quiet = shared.limiter(), shared.limiter()
        async with asyncio.TaskGroup() as group:
            for _ in range(30):
                group.create_task(request(busy, "busy", Lane.ISSUE))
            for _ in range(3):
                group.create_task(request(quiet, "quiet", Lane.ISSUE))
                group.create_task(request(quiet, "poll", Lane.POLL))
    if busy is not quiet:
        assert order[:7].count("quiet") == 3
    assert [order[:end].count("poll") for end in (8, 18, 28, 36)] == [0, 1, 2, 3]


async def test_lanes_of_processes_take_turns(wall: SimpleNamespace, place: Places) -> None:
    """While interactive and bulk requests wait, every fourth slot is for bulk, whichever process it is."""
    order: list[Lane] = []

    async def request(limiter: RateLimiter, lane: Lane) -> None:
        async with limiter.slot(lane):
            order.append(lane)

    async with place() as shared:
        service, run = shared.limiter(), shared.limiter()
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(request(run, Lane.ISSUE))
                group.create_task(request(service, Lane.INTERACTIVE))
    assert 18 <= order[:25].count(Lane.INTERACTIVE) <= 20
    assert order[:25].count(Lane.ISSUE) >= 5


async def test_the_reserve_is_shared(wall: SimpleNamespace, place: Places) -> None:
    """What a run leaves is there for the service of another process, and both see it."""
    sent: list[float] = []
    limits = [RateLimit(20, 1), RateLimit(50, 100)]
    async with place() as shared:
        run, service = shared.limiter(limits, reserve=0.2), shared.limiter(limits, reserve=0.2)
        await send(service, sent, lane=Lane.INTERACTIVE)
        tasks = [asyncio.create_task(send(run, sent)) for _ in range(60)]
        await asyncio.sleep(10)
        assert len(sent) == 40
        status = run.status()
        assert status.windows[1].reserved == 10
        assert status.bulk_reason == "the limit of 50 requests in 100 s, of which 10 are reserved"
        assert status.held_for < 1 < 80 < status.bulk_held_for
        before = now()
        for _ in range(10):
            await send(service, sent, lane=Lane.INTERACTIVE)
        assert now() - before < 1
        assert len(sent) == 50
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert (await shared.state()).tickets == []


async def test_the_oldest_guest_goes_first(wall: SimpleNamespace, kept: Places) -> None:
    """Processes space their micro-batches together, and the one with the oldest guest has the next turn."""
    limits = [RateLimit(10, 1), RateLimit(60, 60)]
    async with kept() as shared:
        first, second, third = (shared.limiter(limits) for _ in range(3))
        assert isinstance(first, PacedLimiter)
        assert isinstance(second, PacedLimiter)
        assert isinstance(third, PacedLimiter)
        assert await first.turn_in(0.5) == 0
        await send(first, [], lane=Lane.INTERACTIVE)
        young = await second.turn_in(0.5)
        assert 0.6 < young < 0.8
        assert await third.turn_in(3) == pytest.approx(young, abs=0.01)
        await asyncio.sleep(young)
        assert await second.turn_in(0.5 + young) > 0
        assert await third.turn_in(3 + young) == 0
        await send(third, [], lane=Lane.INTERACTIVE)
        assert await second.turn_in(0.5 + young) > 0.6


async def test_processes_share_evenly(wall: SimpleNamespace, kept: Places) -> None:
    """Processes that send as much as they may get as much as each other."""
    sent: list[list[float]] = [[], [], []]

    async def work(limiter: RateLimiter, times: list[float]) -> None:
        while True:
            await send(limiter, times, took=0.05)

    async with kept() as shared:
        limiters = [shared.limiter([RateLimit(20, 1), RateLimit(60, 3)]) for _ in sent]
        tasks = [
            asyncio.create_task(work(limiter, times))
            for limiter, times in zip(limiters, sent, strict=True)
            for _ in range(3)
        ]
        await asyncio.sleep(3)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    counts = [len(times) for times in sent]
    assert sum(counts) > 45
    assert max(counts) <= min(counts) + 2


async def test_a_new_process_knows_what_was_spent(wall: SimpleNamespace, kept: Places) -> None:
    """After a restart the 15-minute budget is as spent as before, and no request is refused."""
    sent: list[float] = []
    limits = [RateLimit(5, 1), RateLimit(100, 60)]
    async with kept() as shared:
        first = shared.limiter(limits)
        for _ in range(100):
            await send(first, sent, took=0.05)
        assert (await shared.state()).last
        again = shared.limiter(limits)
        waiting = asyncio.create_task(send(again, sent))
        await until(lambda: again.status().reason)
        status = again.status()
        await waiting
    assert [(window.used, window.free) for window in status.windows] == [(5, 0), (100, 0)]
    assert status.reason == "the limit of 100 requests in 60 s"
    assert sent[-1] == pytest.approx(sent[0] + 60, abs=0.5)
    assert sent[-1] > sent[0] + 60


async def test_a_clock_that_went_back(wall: SimpleNamespace, kept: Places) -> None:
    """A state from the future makes nobody wait longer than a window, nor forget what was spent."""
    sent: list[float] = []
    limits = [RateLimit(2, 60)]
    async with kept() as shared:
        first = shared.limiter(limits)
        await send(first, sent)
        await send(first, sent)
        wall.epoch -= 1e6
        again = shared.limiter(limits)
        for _ in range(3):
            await send(again, sent)
        await send(first, sent)
    assert sent[2] - sent[1] == pytest.approx(30, abs=0.5)
    assert all(60 <= later - earlier < 61.5 for earlier, later in zip(sent, sent[2:], strict=False))


async def test_an_abandoned_request_counts(wall: SimpleNamespace, place: Places) -> None:
    """What a killed process has sent counts until its lease is over, and one window more."""
    sent: list[float] = []
    async with place() as shared:
        await shared.limiter([RateLimit(1, 5)]).slot().__aenter__()
        await send(shared.limiter([RateLimit(1, 5)]), sent)
    assert sent[0] == pytest.approx(65, abs=0.1)


async def test_cancelled_waiters_leave_nothing(wall: SimpleNamespace, place: Places) -> None:
    """The ticket stays while another request of the process can use it, and goes with the last."""
    sent: list[float] = []
    async with place() as shared:
        limiter = shared.limiter([RateLimit(1, 100)])
        await send(limiter, sent)
        tasks = [asyncio.create_task(send(limiter, sent)) for _ in range(2)]
        await asyncio.sleep(1)
        tasks[0].cancel()
        await asyncio.sleep(1)
        assert len((await shared.state()).tickets) == 1
        tasks[1].cancel()
        await asyncio.wait(tasks)
        state = await shared.state()
        assert (state.tickets, state.flights) == ([], {})
    assert sent == [0.0]


@pytest.mark.realtime
async def test_cancelled_at_any_moment(place: Places) -> None:
    """However far a request is on its way to the slot, its cancellation gives back the slot and the turn."""
    async with place() as shared:
        limiter = shared.limiter([RateLimit(1000, 1)])
        for steps in range(60):
            task = asyncio.create_task(send(limiter, []))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            state = await shared.state()
            assert (state.tickets, state.flights) == ([], {})


async def test_the_state_is_visible(wall: SimpleNamespace, place: Places) -> None:
    """The status and the repr tell what is used and what is free, and the status needs no request before."""
    sent: list[float] = []
    limits = [RateLimit(5, 1), RateLimit(2000, 900)]
    async with place() as shared:
        limiter = shared.limiter(limits)
        assert [window.free for window in limiter.status().windows] == [5, 2000]
        for _ in range(3):
            await send(limiter, sent, took=0.1)
        status = limiter.status()
        shown = repr(limiter)
    assert [(window.used, window.free) for window in status.windows] == [(3, 2), (3, 1997)]
    assert status.latency == pytest.approx(0.1, abs=0.01)
    assert shown.endswith(
        ": 3 of 5 in 1 s, 3 of 2,000 in 900 s; next in 0.1 s after even spacing; 0 waiting, 0 refused>"
    ) or shown.startswith("<LocalRateLimiter 3 of 5 in 1 s")


async def test_the_last_issuing_request_is_known(wall: SimpleNamespace, place: Places) -> None:
    """The status tells how long nobody has issued, whichever process it was, and polls do not count."""
    async with place() as shared:
        one, other = shared.limiter([RateLimit(1, 10)]), shared.limiter([RateLimit(1, 10)])
        await send(one, [], lane=Lane.POLL)
        assert one.status().issuing_ago is None
        issuing = asyncio.create_task(send(one, []))
        await asyncio.sleep(5)
        assert one.status().issuing_ago == 0
        await shared.state()
        await issuing
        await asyncio.sleep(20)
        await send(other, [], lane=Lane.POLL)
        assert one.status().issuing_ago == pytest.approx(20, abs=0.5)
        assert other.status().issuing_ago == pytest.approx(20, abs=0.5)


PROGRAM = """
import asyncio, sys, time
from tests.limiter.sending import send
from tests.limiter.stores import Place
from thanx_async import Lane, RateLimit

async def main(kind, where, name):
    async with Place(kind, where) as shared:
        shared.name = name
        limiter = shared.limiter([RateLimit(10, 0.2), RateLimit(25, 0.9)], reserve=0.1)
        sent = []
        print("ready", flush=True)
        sys.stdin.readline()
        lanes = [*Lane] * 7
        await asyncio.gather(
            *[send(limiter, sent, lane=lane, took=0.01, clock=time.monotonic) for lane in lanes[:20]]
        )
        print(*sent)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.realtime
@pytest.mark.slow
async def test_processes_keep_the_limits_together(kept: Places) -> None:
    """Two processes that start at the same time keep the limits as one."""
    shared = kept()
    pipe = asyncio.subprocess.PIPE
    runs = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, shared.kind, shared.where, shared.name, stdin=pipe, stdout=pipe
        )
        for _ in range(2)
    ]
    for run in runs:
        assert run.stdout
        assert await run.stdout.readline() == b"ready\n"
    async with asyncio.timeout(HANGS):
        done = await asyncio.gather(*[run.communicate(b"\n") for run in runs])
    sent = [[float(text) for text in out.split()] for out, _ in done]
    assert [len(times) for times in sent] == [20, 20]
    assert max(map(min, sent)) < min(map(max, sent))
    check(sorted(sent[0] + sent[1]), [RateLimit(10, 0.2), RateLimit(25, 0.9)])
