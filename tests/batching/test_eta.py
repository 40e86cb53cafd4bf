"""The times that plans and runs promise, beside what then happens, on virtual time."""

import asyncio
from datetime import UTC, datetime

import pytest

from tests.helpers import batcher, guests
from thanx_async import LocalRateLimiter, RateLimit, ThanxClient
from thanx_async.batching import Eta
from thanx_async.emulator import Emulator, Faults, JobSpeed

LIMITS = [(5, 1.0), (60, 60.0)]
AT_ONCE = JobSpeed(start_delay=0, identifiers_per_second=1e9)


def _client(emulator: Emulator) -> ThanxClient:
    limiter = LocalRateLimiter([RateLimit(*row) for row in LIMITS])
    return ThanxClient("c", "t", base_url=emulator.url, limiter=limiter)


def _seconds(eta: Eta | None) -> tuple[float, float]:
    assert eta is not None
    now = datetime.now(UTC)
    return (eta.last_accepted - now).total_seconds(), (eta.all_known - now).total_seconds()


@pytest.mark.parametrize("batches", [1, 12, 50, 100, 150])
@pytest.mark.parametrize("spent", [0, 40])
async def test_a_plan_tells_when_the_run_will_end(batches: int, spent: int) -> None:
    """The last batch is accepted and all outcomes are known as planned, also in a spent window."""
    loop = asyncio.get_running_loop()
    async with Emulator(limits=LIMITS, speed=AT_ONCE) as emulator, _client(emulator) as client:
        for _ in range(spent):
            await client.get_scopes()
        plan = await batcher(client).plan(guests(10 * batches))
        accepted_in, known_in = _seconds(Eta(plan.last_accepted, plan.all_known))
        begun = loop.time()
        run = await batcher(client).issue(guests(10 * batches))
        accepted = loop.time() - begun
        await run.wait()
        known = loop.time() - begun
    assert accepted_in == pytest.approx(accepted, rel=0.05, abs=0.5)
    assert known_in == pytest.approx(known, rel=0.05, abs=1.5)


@pytest.mark.parametrize("count", [60, 100])
async def test_a_run_tells_when_it_will_end(count: int) -> None:
    """At every moment of a run, its expected end is about the one that comes, also at a window's edge."""
    loop = asyncio.get_running_loop()
    promised: list[tuple[float, float]] = []
    faults = Faults(delay=0.2)
    async with Emulator(limits=LIMITS, speed=AT_ONCE, faults=faults) as emulator, _client(emulator) as client:
        stream = batcher(client).stream(guests(10 * count))
        async with stream as handles:
            async for _ in handles:
                if len(promised) < count - 1:
                    promised.append((loop.time(), _seconds(stream.run.eta(total=10 * count))[0]))
        ended = loop.time()
        await stream.run.wait()
        assert stream.run.eta() is None
    assert len(promised) == count - 1
    for moment, left in promised:
        assert left == pytest.approx(ended - moment, rel=0.05, abs=2.0)
