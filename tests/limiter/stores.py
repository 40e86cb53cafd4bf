"""The places that limiters can share, one for each kind of limiter, and virtual time for all of them."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Self, TypeVar
from uuid import uuid4

import pytest

from tests.helpers import now
from thanx_async import ConfigurationError, LocalRateLimiter, RateLimit, SQLiteRateLimiter
from thanx_async.limiter import _shared as _limiter_shared
from thanx_async.limiter import _sqlite as _limiter_sqlite
from thanx_async.limiter._queue import QueuedLimiter
from thanx_async.limiter._state import LimiterState
from thanx_async.postgres import PostgresRateLimiter
from thanx_async.redis import RedisRateLimiter

T = TypeVar("T")

SHORT = (RateLimit(5, 1.0),)


class Inline:
    """Does the work at once, in place of a thread; the result comes with the next step of the loop."""

    def __init__(self, name: str) -> None:
        del name

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        try:
            loop.call_soon(future.set_result, work())
        except ConfigurationError as error:
            loop.call_soon(future.set_exception, error)
        return future

    def stop(self) -> None: ...


@contextmanager
def virtual() -> Iterator[SimpleNamespace]:
    """Clocks of files and servers that go with the loop's virtual time; transactions take none of it."""
    clock = SimpleNamespace(epoch=1.7e9)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_limiter_sqlite, "Worker", Inline)
        patch.setattr(_limiter_sqlite, "wall_clock", lambda: clock.epoch + now())
        patch.setattr(_limiter_shared, "server_time", lambda _: clock.epoch + now())
        yield clock


class Place:
    """What some limiters share: a file, a row or a key, or the one limiter of a process."""

    def __init__(self, kind: str, where: str) -> None:
        self.kind = kind
        self.where = where
        self.name = uuid4().hex
        self.made: list[QueuedLimiter] = []
        self._reader: QueuedLimiter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for limiter in self.made:
            if isinstance(limiter, _limiter_shared.SharedLimiter):
                await limiter.aclose()

    def limiter(
        self, limits: Sequence[RateLimit] = SHORT, *, strict: bool = True, reserve: float = 0.0
    ) -> QueuedLimiter:
        """Another limiter here, as if of another process; in memory it is always the same one."""
        if self.kind != "memory" or not self.made:
            self.made.append(self._made(limits, strict=strict, reserve=reserve))
        return self.made[-1]

    def _made(self, limits: Sequence[RateLimit], *, strict: bool, reserve: float) -> QueuedLimiter:
        match self.kind:
            case "memory":
                return LocalRateLimiter(limits, strict=strict, reserve=reserve)
            case "sqlite":
                return SQLiteRateLimiter(Path(self.where) / self.name, limits, strict=strict, reserve=reserve)
            case "postgres":
                return PostgresRateLimiter(self.where, limits, strict=strict, reserve=reserve, name=self.name)
        return RedisRateLimiter(self.where, limits, strict=strict, reserve=reserve, name=self.name)

    async def state(self) -> LimiterState:
        """What is stored."""
        if self._reader is None:
            self.limiter()
            self._reader = self.made[-1]
        await self._reader._queues.refresh()
        return self._reader._queues.store.state
