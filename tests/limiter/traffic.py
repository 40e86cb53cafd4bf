"""Services with guests, and bulk runs, on virtual time against the emulator with Thanx's limits."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import attrs

from tests.helpers import TARGET, guests, now
from thanx_async import THANX_RATE_LIMITS, AsyncBatcher, RateLimit, RateLimiter, ThanxClient
from thanx_async.emulator import Counter, Emulator, Faults, JobSpeed

_ANSWER = 0.06
_BATCH = 10


@attrs.frozen
class Traffic:
    """What has happened: how long each `add` took and when the run had its last 202, in seconds; how many
    requests were sent and refused.
    """

    adds: list[float]
    run: float
    requests: int
    refused: int

    def quantile(self, share: float) -> float:
        """The time within which this share of the calls of `add` was answered."""
        return sorted(self.adds)[int(share * (len(self.adds) - 1))]


async def traffic(
    limiters: Sequence[RateLimiter],
    *,
    limits: Sequence[RateLimit] = THANX_RATE_LIMITS,
    every: float = 1.0,
    seconds: float = 0.0,
    batches: int = 0,
    bulk: RateLimiter | None = None,
) -> Traffic:
    """Let each service get a guest ``every`` so many seconds, and a run send its batches beside them.

    Args:
        limiters: those of the services.
        limits: what Thanx allows.
        every: seconds from a guest of a service to the next.
        seconds: for how long guests come at least; with a run they come until it has ended.
        batches: the size of the run, in batches.
        bulk: the limiter of the run.
    """
    adds: list[float] = []
    ended = asyncio.Event()

    async def add(batcher: AsyncBatcher, guest: str) -> None:
        since = now()
        await batcher.add(guest)
        adds.append(now() - since)

    async def serve(batcher: AsyncBatcher, number: int) -> None:
        async with asyncio.TaskGroup() as group:
            start = now() + every * number / len(limiters)
            count = 0
            while now() < start + seconds or not ended.is_set():
                await asyncio.sleep(start + count * every - now())
                group.create_task(add(batcher, f"guest{number}.{count}@example.com"))
                count += 1

    async with AsyncExitStack() as stack:
        faults, speed = Faults(delay=_ANSWER), JobSpeed(identifiers_per_second=1e6, start_delay=1.0)
        allowed = [(limit.requests, limit.seconds) for limit in limits]
        emulator = await stack.enter_async_context(
            Emulator(limits=allowed, counter=Counter.SLIDING_LOG, faults=faults, speed=speed)
        )

        async def client(limiter: RateLimiter) -> ThanxClient:
            made = ThanxClient("c", "t", base_url=emulator.url, limiter=limiter)
            return await stack.enter_async_context(made)

        services = [
            await stack.enter_async_context(AsyncBatcher(await client(limiter), **TARGET))
            for limiter in limiters
        ]
        tasks = [asyncio.create_task(serve(service, number)) for number, service in enumerate(services)]
        begun = now()
        if bulk is not None:
            runner = AsyncBatcher(await client(bulk), **TARGET, batch_size=_BATCH)
            await runner.issue(guests(_BATCH * batches, 10**6))
        run = now() - begun
        ended.set()
        await asyncio.gather(*tasks)
        requests = len(emulator.requests)
    return Traffic(adds, run, requests, emulator.refused)
