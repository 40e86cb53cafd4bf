"""What limiters of many machines share: a store that swaps its state on a server, and the limiter over it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

import attrs

from thanx_async._core.errors import ConfigurationError
from thanx_async.limiter._pacing import Pacing
from thanx_async.limiter._protocol import LimiterStatus
from thanx_async.limiter._queue import QueuedLimiter
from thanx_async.limiter._state import LimiterState
from thanx_async.limiter._store import Clock
from thanx_async.limiter._stored import pack_state, unpack_state

T = TypeVar("T")

_SAMPLES = 16
_OUTDATED = 60.0
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.1


@attrs.frozen
class Reading:
    """The stored state, packed, with the time of the server; the state is None if there is none yet."""

    packed: bytes | None
    time: float


class Backend(Protocol):
    """A server that holds one state under a name."""

    @property
    def label(self) -> str:
        """The server and the name, for messages."""

    async def swap(self, decide: Callable[[Reading], bytes]) -> bool:
        """Read the state, and write the one that ``decide`` returns, unless another process was faster.

        Returns whether the state was written. A cancellation is raised at once.

        Raises:
            StoreAwayError: the server does not answer; the state may have been written.
            ConfigurationError: the server cannot be used.
        """

    async def aclose(self) -> None:
        """Close the connections. The next swap connects again."""


def server_time(reading: Reading) -> float:
    """The server's time of a reading, in seconds."""
    return reading.time


class ServerClock:
    """The server's clock, as far as it is known between readings.

    A reading is made some time after it was asked for, so the estimate is ahead of the server, by the least
    such time of the last minute. So a request that waits by this clock, and then asks the server, is not
    there too early, and an answer is not noted too early.
    """

    def __init__(self) -> None:
        self._local = Clock()
        self._offsets: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)
        self._ahead = 0.0

    def local(self) -> float:
        """The clock of the event loop."""
        self._local.attach()
        return self._local.time()

    def read(self, asked: float, time: float, seen: float) -> float:
        """The shared time at a reading of the server's clock.

        If that clock was set back, the time continues from ``seen``, the latest time of any process.

        Args:
            asked: when the reading was asked for, by the local clock.
            time: the reading.
            seen: the latest time in the stored state.
        """
        while self._offsets and self._offsets[0][0] < asked - _OUTDATED:
            self._offsets.popleft()
        self._offsets.append((asked, time - asked))
        self._ahead += max(0.0, seen - time - self._ahead)
        return time + self._ahead

    def time(self) -> float:
        """The estimate of the shared time."""
        return self.local() + min((offset for _, offset in self._offsets), default=0.0) + self._ahead


class SharedStore:
    """A `Store` on a server, for the processes of many machines."""

    is_remote = True

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.state = LimiterState()
        self._packed: bytes | None = None
        self._clock = ServerClock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()

    def now(self) -> float:
        """See `Store.now`."""
        return max(self._clock.time(), self.state.clock)

    def look(self, view: Callable[[LimiterState, float], T]) -> T:
        """See `Store.look`."""
        return view(self.state, self.now())

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        """See `Store.transact`. A cancellation is raised at once; the state may have been saved or not."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._turn = loop, asyncio.Lock()
        pause = _FIRST_PAUSE
        async with self._turn:
            while not (results := await self._attempt(change)):
                await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - against the next collision
                pause = min(2 * pause, _LONGEST_PAUSE)
        return results[0]

    async def _attempt(self, change: Callable[[LimiterState, float], T]) -> list[T]:
        """The result of the change; an empty list if another process was faster."""
        asked = self._clock.local()
        state, packed = self.state, b""
        results: list[T] = []

        def decide(reading: Reading) -> bytes:
            nonlocal state, packed
            state = self._newest(reading)
            results.append(change(state, self._clock.read(asked, server_time(reading), state.clock)))
            packed = pack_state(state)
            return packed

        if not await self.backend.swap(decide):
            return []
        self.state, self._packed = state, packed
        return results

    def _newest(self, reading: Reading) -> LimiterState:
        """The stored state, or the one last seen here if the server has lost it in a crash or a failover."""
        try:
            stored = LimiterState() if reading.packed is None else unpack_state(reading.packed)
        except Exception as error:
            raise ConfigurationError(
                f"the rate limiter cannot use {self.backend.label}: its content is damaged, or a newer"
                " thanx_async wrote it; delete it, or update thanx_async"
            ) from error
        if self._packed is not None and stored.clock < self.state.clock:
            return unpack_state(self._packed)
        return stored


class SharedLimiter(QueuedLimiter):
    """The base class of limiters for many machines."""

    def __init__(self, pacing: Pacing, backend: Backend) -> None:
        super().__init__(pacing, SharedStore(backend))
        self._backend = backend

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._backend.label}: {self.status()}>"

    async def __aenter__(self) -> Self:
        await self.refresh()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def refresh(self) -> LimiterStatus:
        """Read the server's state, and return it.

        Raises:
            ConfigurationError: the server cannot be used, or does not answer.
        """
        await self._queues.refresh()
        return self.status()

    async def aclose(self) -> None:
        """Close the connections. The next request connects again."""
        await self._queues.steady.aclose()
        await self._backend.aclose()
