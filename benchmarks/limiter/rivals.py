"""The rate limiters that are measured, ours beside six others, each as a contest."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from email.utils import formatdate
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar
from unittest import mock

import aiometer
import limits.storage.memory
import looptime
from aiolimiter import AsyncLimiter
from limits.strategies import MovingWindowRateLimiter
from pyrate_limiter import (
    AbstractBucket,
    AbstractClock,
    InMemoryBucket,
    Limiter,
    Rate,
    SingleBucketFactory,
    SQLiteBucket,
)

from benchmarks.limiter.referees import REQUESTS, SECONDS
from thanx_async import LocalRateLimiter, RateLimit, RateLimiter, SQLiteRateLimiter

T = TypeVar("T")
Send = Callable[[], Awaitable[int]]
"""Sends one request; gives the status."""
Contest = Callable[[int, int, Send], Awaitable[None]]
"""Gets so many requests through, of which so many may be in flight."""

STRICT = "thanx_async"
PACKAGES = ("aiolimiter", "pyrate-limiter", "limits", "aiometer")
_POLL = 0.02
_IDLE_LOOKS = 200
_PYRATE = [Rate(REQUESTS, int(1000 * SECONDS))]


class _VirtualTime(looptime.LoopTimeEventLoop, asyncio.SelectorEventLoop):
    """Each look at the clock takes a microsecond of it: some limiters wait for less than a clock can show,
    and would look for ever."""

    _looks = 0

    def __init__(self, *, idle_looks: int) -> None:
        super().__init__(noop_cycles=idle_looks)

    def time(self) -> float:
        self._looks += 1
        return super().time() + 1e-6 * self._looks


def on_virtual_time(main: Coroutine[object, object, T], *, sockets: bool = False) -> T:
    """Run to the end without waiting, with the loop's clock for everybody.

    Args:
        main: what to run.
        sockets: look often enough whether something came in before the time moves on.
    """
    factory = partial(_VirtualTime, idle_looks=_IDLE_LOOKS if sockets else 1)
    with asyncio.Runner(loop_factory=factory) as runner, _clock_of_limits(runner.get_loop()):
        return runner.run(main)


@contextmanager
def _clock_of_limits(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Its storage reads `time.time`, and tidies up on a thread, which changes no decision."""
    memory = limits.storage.memory
    quiet = SimpleNamespace(Timer=mock.Mock(), RLock=threading.RLock)
    with (
        mock.patch.object(memory, "time", SimpleNamespace(time=loop.time)),
        mock.patch.object(memory, "threading", quiet),
    ):
        yield


async def side_by_side(requests: int, in_flight: int, one: Callable[[], Awaitable[None]]) -> None:
    """Do one thing so many times, in as many tasks as may be in flight."""
    left = iter(range(requests))

    async def work() -> None:
        for _ in left:
            await one()

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(work())


def ours(make: Callable[[], RateLimiter]) -> Contest:
    """A limiter that is told each answer and does all the waiting, after a 429 as well."""

    async def contest(requests: int, in_flight: int, send: Send) -> None:
        limiter = make()

        async def one() -> None:
            status = 429
            while status == 429:
                async with limiter.slot() as slot:
                    status = await send()
                    slot.answered(status, {"Date": formatdate(_server_time(), usegmt=True)})

        await side_by_side(requests, in_flight, one)

    return contest


def _server_time() -> float:
    loop = asyncio.get_running_loop()
    return loop.time() if isinstance(loop, _VirtualTime) else time.time()


def retried(make: Callable[[], Callable[[Send], Awaitable[int]]]) -> Contest:
    """A limiter that is told nothing, under the retry that Thanx advises: backoff with jitter."""

    async def contest(requests: int, in_flight: int, send: Send) -> None:
        attempt = make()

        async def one() -> None:
            for wait in _backoff():
                if await attempt(send) != 429:
                    return
                await asyncio.sleep(wait)

        await side_by_side(requests, in_flight, one)

    return contest


def _backoff() -> Iterator[float]:
    longest = 0.5
    while True:
        yield longest * random.uniform(0.5, 1)
        longest = min(8.0, 2 * longest)


def _within(
    permission: Callable[[], AbstractAsyncContextManager[object]],
) -> Callable[[], Callable[[Send], Awaitable[int]]]:
    """A rival that is an asynchronous context manager, entered for each request."""

    def make() -> Callable[[Send], Awaitable[int]]:
        shared = permission()

        async def attempt(send: Send) -> int:
            async with shared:
                return await send()

        return attempt

    return make


def _even_pace() -> Callable[[Send], Awaitable[int]]:
    free = float("-inf")

    async def attempt(send: Send) -> int:
        nonlocal free
        now = asyncio.get_running_loop().time()
        turn = max(free, now)
        free = turn + SECONDS / REQUESTS
        await asyncio.sleep(turn - now)
        return await send()

    return attempt


class _LoopClock(AbstractClock):
    def now(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)


class _Bucket(InMemoryBucket):
    _clock = _LoopClock()


def _pyrate(bucket: AbstractBucket) -> Callable[[Send], Awaitable[int]]:
    limiter = Limiter(SingleBucketFactory(bucket, schedule_leak=False))

    async def attempt(send: Send) -> int:
        await limiter.try_acquire_async("thanx")
        return await send()

    return attempt


def _limits() -> Callable[[Send], Awaitable[int]]:
    strategy = MovingWindowRateLimiter(limits.storage.memory.MemoryStorage())
    item = limits.RateLimitItemPerSecond(REQUESTS, int(SECONDS))

    async def attempt(send: Send) -> int:
        while not strategy.hit(item):  # noqa: ASYNC110 - it offers nothing to wait for
            await asyncio.sleep(_POLL)
        return await send()

    return attempt


async def _aiometer(requests: int, in_flight: int, send: Send) -> None:
    """It paces a list of calls: what was refused is another, shorter list, after a backoff."""
    refused, waits = requests, _backoff()
    while refused:
        calls = [send] * refused
        statuses = await aiometer.run_all(calls, max_at_once=in_flight, max_per_second=REQUESTS / SECONDS)
        if refused := statuses.count(429):
            await asyncio.sleep(next(waits))


RIVALS: dict[str, Contest] = {
    "Semaphore(5)": retried(_within(lambda: asyncio.Semaphore(5))),
    "aiolimiter": retried(_within(lambda: AsyncLimiter(REQUESTS, SECONDS))),
    "pyrate-limiter": retried(lambda: _pyrate(_Bucket(_PYRATE))),
    "limits": retried(_limits),
    "aiometer": _aiometer,
    "even pace": retried(_even_pace),
}
OURS: dict[str, Contest] = {
    STRICT: ours(LocalRateLimiter),
    f"{STRICT}, adaptive": ours(lambda: LocalRateLimiter(strict=False)),
}
CONTESTS = RIVALS | OURS


def shared_contest(name: str, file: Path) -> Contest:
    """A contender whose processes share a file."""
    if name == "pyrate-limiter":
        path = str(file)
        return retried(
            lambda: _pyrate(SQLiteBucket.init_from_file(_PYRATE, db_path=path, use_file_lock=True))
        )
    return ours(lambda: SQLiteRateLimiter(file, [RateLimit(REQUESTS, SECONDS)]))
