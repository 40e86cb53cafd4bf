"""`Worker`, a daemon thread for blocking work, such as SQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """A thread that runs functions one after another, for any number of event loops.

    The first function starts the thread. A function runs even if its caller was cancelled, but never delays
    the exit of the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run the function in the thread. Returns a future of the result, on the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._work.put(lambda: _do(work, loop, future))
        if self._thread is None:
            self._start()
        return future

    def stop(self) -> None:
        """Stop the thread after all functions given to it so far."""
        self._work.put(None)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=_run, args=[self._work], name=self._name, daemon=True)
                self._thread.start()


def _run(queue: SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := queue.get()) is not None:
        call()
        del call  # it may hold the last reference to an object that is closed by garbage collection


def _do(work: Callable[[], T], loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - the caller gets any error
        _report(loop, _fail, future, error)
    else:
        _report(loop, _succeed, future, result)


def _report(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: object) -> None:
    with suppress(RuntimeError):  # the loop is closed, so no caller is waiting
        loop.call_soon_threadsafe(call, *arguments)


def _succeed(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[object], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
