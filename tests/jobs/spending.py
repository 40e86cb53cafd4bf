"""What a run spends on issuing and on learning its outcomes: requests, polls and virtual seconds."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.helpers import SECRET, guests, recording
from thanx_async import THANX_RATE_LIMITS, LocalRateLimiter, RateLimit, ThanxClient
from thanx_async.emulator import Counter, Emulator, Faults, JobSpeed, Webhooks
from thanx_async.limiter._limits import least_duration
from thanx_async.webhooks import aiohttp_handler

LATENCY = 0.06

Jobs = Callable[[int], tuple[float, float]]
"""Seconds until the job with this number starts, and seconds for which it runs."""


def equal(seconds: float) -> Jobs:
    """All jobs take the same time."""
    return lambda _: (0.0, seconds)


def uniform(least: float, most: float) -> Jobs:
    """Jobs take any time between two."""
    return lambda number: (0.0, random.Random(number).uniform(least, most))


def lognormal(median: float, sigma: float = 1.0) -> Jobs:
    """Most jobs are short, and some take very long."""
    return lambda number: (0.0, median * math.exp(random.Random(number).gauss(0, sigma)))


def queued(seconds: float, *, every: float = 0.2) -> Jobs:
    """Thanx runs the jobs one after another, where one is accepted ``every`` so many seconds."""
    return lambda number: (max(0.0, number * (seconds - every)), seconds)


@attrs.frozen
class Spent:
    """What a run has cost.

    Attributes:
        requests: batches that were issued.
        polls: requests that asked for a job.
        accepted: when the last batch was accepted, in seconds from the start of the run.
        known: when every outcome was known.
        least: the least possible for ``known``, with one poll for each job.
        refused: answers with a 429.
    """

    requests: int
    polls: int
    accepted: float
    known: float
    least: float
    refused: int


async def spend(
    requests: int,
    jobs: Jobs,
    *,
    lost: float | None = None,
    batch: int = 100,
    seed: int = 0,
    limits: Sequence[RateLimit] = THANX_RATE_LIMITS,
) -> Spent:
    """Issue so many batches and wait for all outcomes, against the emulator with Thanx's limits.

    Args:
        requests: the number of batches.
        jobs: how long each job takes.
        lost: the rate of webhooks that get lost; None for no webhooks at all.
        batch: guests in a batch; the fewer, the coarser the progress that jobs report.
        seed: decides which webhooks get lost.
        limits: the rate limits, all of which the run may use up: nothing is reserved for others.
    """
    async with _thanx(jobs, batch, limits) as (emulator, client), AsyncExitStack() as stack:
        if lost is not None:
            await stack.enter_async_context(_webhooks(emulator, client, lost, seed))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        run = await recording(client, None, batch_size=batch).issue(guests(batch * requests))
        accepted = loop.time() - begun
        report = await run.wait()
        known = loop.time() - begun
        assert report.counts["issued"] == batch * requests
        polls = sum(row.method == "GET" for row in emulator.requests)
    return Spent(requests, polls, accepted, known, _least(requests, jobs, limits), emulator.refused)


def _least(requests: int, jobs: Jobs, limits: Sequence[RateLimit]) -> float:
    """When all can be known at best, where each job takes one poll."""
    pace = limits[0].seconds / limits[0].requests
    ends = (number * pace + sum(jobs(number)) for number in range(requests))
    return max(least_duration(2 * requests, limits), *ends) + LATENCY


@asynccontextmanager
async def _thanx(
    jobs: Jobs, batch: int, limits: Sequence[RateLimit]
) -> AsyncIterator[tuple[Emulator, ThanxClient]]:
    """Thanx, whose every answer takes its time, and a client."""

    def rule(_: str, value: str) -> None:
        wait, seconds = jobs(int(value.removeprefix("guest").partition("@")[0]) // batch)
        emulator.speed = JobSpeed(identifiers_per_second=batch / seconds, start_delay=wait)

    emulator = Emulator(
        limits=[(limit.requests, limit.seconds) for limit in limits],
        counter=Counter.SLIDING_LOG,
        faults=Faults(delay=LATENCY),
        fails=rule,
        track_guests=False,
    )
    async with (
        emulator,
        ThanxClient("client", "token", base_url=emulator.url, limiter=LocalRateLimiter(limits)) as client,
    ):
        yield emulator, client


@asynccontextmanager
async def _webhooks(emulator: Emulator, client: ThanxClient, lost: float, seed: int) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_post("/", aiohttp_handler(client, SECRET))
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        emulator.webhooks = Webhooks(url, SECRET, reward_issued=False, lost=lost, seed=seed)
        yield
