"""Virtual time stands still while a thread of the package, or a server, works for the loop."""

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar, runtime_checkable

from thanx_async._core.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST = 5.0
"""Real seconds after which the clock goes on all the same: a test may block the thread."""


@runtime_checkable
class _VirtualLoop(Protocol):
    looptime_on: bool
    _selector: selectors.BaseSelector


class _Flights:
    """What the threads still work on for one loop, and a wait for it that takes no virtual time."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._until: dict[int, float] = {}
        self._real = type(selector).select
        self._virtual = selector.select
        self._selector = selector

    def add(self, future: asyncio.Future[T]) -> None:
        self._until[id(future)] = time.monotonic() + _LONGEST
        future.add_done_callback(lambda done: self._until.pop(id(done), None))

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout != 0 and self._until:
            left = max(self._until.values()) - time.monotonic()
            if left > 0 and (ready := self._real(self._selector, left)):
                return ready
        return self._virtual(timeout)


def patient(do: Callable[[Worker, Callable[[], T]], asyncio.Future[T]]) -> Callable[..., asyncio.Future[T]]:
    """`Worker.do` whose work takes no virtual time, though it takes real time in another thread."""

    def patched(self: Worker, work: Callable[[], T]) -> asyncio.Future[T]:
        future = do(self, work)
        loop = asyncio.get_running_loop()
        if isinstance(loop, _VirtualLoop) and loop.looptime_on:
            _flights(loop).add(future)
        return future

    return patched


def waiting_for_a_server(call: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """A method that takes no virtual time, though it waits for the network."""

    @wraps(call)
    async def patched(*arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        flight: asyncio.Future[None] = loop.create_future()
        if isinstance(loop, _VirtualLoop) and loop.looptime_on:
            _flights(loop).add(flight)
        try:
            return await call(*arguments, **named)
        finally:
            flight.cancel()

    return patched


def _flights(loop: _VirtualLoop) -> _Flights:
    selector = loop._selector
    known = getattr(selector.select, "__self__", None)
    if isinstance(known, _Flights):
        return known
    flights = _Flights(selector)
    selector.select = flights.select  # type: ignore[method-assign]  # looptime replaces it in the same way
    return flights
