"""Thanx away for a while: everybody waits, one request probes, and nothing is doubled or given up."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.helpers import TARGET, guests
from thanx_async import AsyncBatcher, BatchError, LocalRateLimiter, RetryPolicy, ServerError, ThanxClient
from thanx_async.emulator import Emulator, Faults, JobSpeed, ScriptedAnswer

SECONDS = 25
Outage = Callable[[Emulator], AbstractAsyncContextManager[None]]


def errors_of(**rates: float) -> Outage:
    @asynccontextmanager
    async def outage(emulator: Emulator) -> AsyncIterator[None]:
        emulator.faults = Faults(**rates)  # type: ignore[arg-type]  # all of these are rates
        yield
        emulator.faults = Faults()

    return outage


@asynccontextmanager
async def nobody_listens(emulator: Emulator) -> AsyncIterator[None]:
    await emulator.__aexit__(None, None, None)
    yield
    await emulator.__aenter__()


@asynccontextmanager
async def asking_to_wait(emulator: Emulator) -> AsyncIterator[None]:
    busy = ScriptedAnswer(503, headers={"Retry-After": "5"})
    emulator.script(*[busy] * (SECONDS // 5))
    yield


OUTAGES = {
    "502": errors_of(html_502=1),
    "502 after Thanx has acted": errors_of(html_504=1),
    "broken connections": errors_of(reset_after=1),
    "nobody listens": nobody_listens,
    "503 with Retry-After": asking_to_wait,
}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with Emulator(port=port, limits=[], speed=JobSpeed(1e6, 0.1)) as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    async with ThanxClient("c", "t", base_url=emulator.url) as opened:
        yield opened


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
async def test_a_run_goes_on_after_an_outage(emulator: Emulator, client: ThanxClient, outage: Outage) -> None:
    """A bulk run waits an outage out, with a request a second at most, and each guest gets one reward."""
    batcher = AsyncBatcher(client, **TARGET, batch_size=10)
    issuing = asyncio.create_task(batcher.issue(guests(500)))
    while emulator.jobs_accepted < 10:
        await asyncio.sleep(0.01)
    before = len(emulator.requests)
    async with outage(emulator):
        await asyncio.sleep(SECONDS)
        assert len(emulator.requests) - before <= SECONDS
        assert "no answer from Thanx" in repr(client.limiter)
    report = await (await issuing).wait()
    assert report.counts["issued"] == 500
    assert set(emulator.reward_counts().values()) == {1}
    assert client.limiter.status().no_answer_for is None


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
async def test_callers_of_add_wait_an_outage_out(
    emulator: Emulator, client: ThanxClient, outage: Outage
) -> None:
    """Guests who are added in an outage get their reward after it, each one."""
    async with AsyncBatcher(client, **TARGET) as batcher:
        await batcher.add("first@example.com")
        before = len(emulator.requests)
        async with outage(emulator):
            adding = []
            for guest in guests(SECONDS):
                adding.append(asyncio.create_task(batcher.add(guest)))
                await asyncio.sleep(1)
            assert len(emulator.requests) - before <= SECONDS
        await asyncio.gather(*adding)
    assert len(emulator.reward_counts()) == SECONDS + 1
    assert set(emulator.reward_counts().values()) == {1}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
async def test_waiting_for_jobs_outlasts_an_outage(
    emulator: Emulator, client: ThanxClient, outage: Outage
) -> None:
    """Jobs that end while Thanx gives no answer are known after it."""
    emulator.speed = JobSpeed(10, 0.1)
    run = await AsyncBatcher(client, **TARGET, batch_size=50).issue(guests(100))
    before = len(emulator.requests)
    async with outage(emulator):
        waiting = asyncio.create_task(run.wait())
        await asyncio.sleep(SECONDS)
        assert len(emulator.requests) - before <= SECONDS
    assert (await waiting).counts["issued"] == 100


async def test_traffic_comes_back_at_the_pace_of_the_limits() -> None:
    """Whoever has waited for the end of an outage is sent evenly, and nobody is refused."""
    async with Emulator() as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        emulator.faults = Faults(html_502=1)
        adding = [
            asyncio.create_task(client.issue_rewards(**TARGET, identifiers=[guest])) for guest in guests(20)
        ]
        await asyncio.sleep(SECONDS)
        emulator.faults = Faults()
        await asyncio.gather(*adding)
        assert client.limiter.status().refused == 0
    assert set(emulator.reward_counts().values()) == {1}


async def test_patience_ends(emulator: Emulator) -> None:
    """Once patience is over the run stops, and tells what is in doubt and what is unsent."""
    retry = RetryPolicy(patience=60)
    async with ThanxClient("c", "t", base_url=emulator.url, retry=retry) as client:
        emulator.faults = Faults(error_500=1)
        with pytest.raises(BatchError) as caught:
            await AsyncBatcher(client, **TARGET, batch_size=10).issue(guests(50))
    assert isinstance(caught.value.__cause__, ServerError)
    counts = caught.value.run.report().counts
    assert counts["in_doubt"] + counts["unsent"] == 50
    assert counts["in_doubt"] >= 10


async def test_single_failures_pause_nobody() -> None:
    """Where every other request fails, the others go on at the pace of the limits."""
    limiter = LocalRateLimiter()
    async with (
        Emulator(faults=Faults(seed=1, error_500=0.3), limits=[]) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client,
    ):
        started = asyncio.get_running_loop().time()
        run = await AsyncBatcher(client, **TARGET, batch_size=10).issue(guests(1000))
        assert len(run.handles) == 100
        assert asyncio.get_running_loop().time() - started < 90
    assert set(emulator.reward_counts().values()) == {1}
