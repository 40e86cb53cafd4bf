"""`SteadyStore`, which outlasts a time in which the server of a store does not answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import attrs

from thanx_async._core.errors import ConfigurationError
from thanx_async._core.escaping import get_logger
from thanx_async._core.tasks import RESOLUTION, to_its_end
from thanx_async.limiter._state import LimiterState
from thanx_async.limiter._store import Store, StoreAwayError

T = TypeVar("T")
Change = Callable[[LimiterState, float], None]

_log = get_logger("thanx_async.limiter")

_FIRST_RETRY = 0.1
_LONGEST_RETRY = 2.0


@attrs.frozen
class Outage:
    """A time in which the server of a store does not answer.

    Attributes:
        store: the server.
        failures: the number of failed attempts.
        retry: when to try again, by the clock of the store.
    """

    store: str
    failures: int
    retry: float

    @property
    def reason(self) -> str:
        """What requests wait for."""
        return f"{self.store}, which does not answer"


class SteadyStore:
    """A store that is told what has ended even while its server is away: it is recorded afterwards."""

    def __init__(self, store: Store) -> None:
        self.outage: Outage | None = None
        self._store = store
        self._late: list[Change] = []
        self._task: asyncio.Task[None] | None = None
        self._has_failed = False

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        """Change the state, after all changes that came during an outage. See `Store.transact`."""
        if not self._store.is_remote:
            return await self._store.transact(change)
        late, self._late = self._late, []

        def changed(state: LimiterState, now: float) -> T:
            for earlier in late:
                earlier(state, now)
            return change(state, now)

        try:
            result = await self._store.transact(changed)
        except BaseException as error:
            self._late = late + self._late
            if isinstance(error, StoreAwayError):
                self._failed(error)
            elif isinstance(error, ConfigurationError):
                self._answered()
            raise
        self._answered()
        return result

    async def record(self, change: Change) -> None:
        """Change the state now, or after an outage. Any other failure of the store is logged once."""
        try:
            if self.outage is None:
                work = self.transact(change)
                await (to_its_end(work) if self._store.is_remote else work)
                return
        except StoreAwayError:
            pass  # below
        except ConfigurationError as error:
            self._unrecorded(error)
            return
        self._late.append(change)
        if self._task is None or self._task.done() or self._task.get_loop() is not asyncio.get_running_loop():
            self._task = asyncio.create_task(self._record_late())

    async def aclose(self) -> None:
        """Try once more to record what came during an outage."""
        if self._task is not None:
            self._task.cancel()
        if self._late:
            with suppress(ConfigurationError):
                await self.transact(_nothing)

    async def _record_late(self) -> None:
        """Try until the store answers, as a waiting request does."""
        while self._late:
            if outage := self.outage:
                await asyncio.sleep(max(outage.retry - self._store.now(), RESOLUTION))
            try:
                await self.transact(_nothing)
            except StoreAwayError:
                continue
            except ConfigurationError as error:
                self._unrecorded(error)
                return

    def _unrecorded(self, error: ConfigurationError) -> None:
        if not self._has_failed:
            self._has_failed = True
            _log.warning("a request could not be recorded, and counts as late as possible: %s", error)

    def _failed(self, error: StoreAwayError) -> None:
        if self.outage is None:
            _log.warning("%s; requests wait until it answers", error)
        failures = self.outage.failures + 1 if self.outage else 1
        pause = min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(failures - 1, 10))
        retry = self._store.now() + pause * random.uniform(0.5, 1)  # noqa: S311 - processes spread out
        self.outage = Outage(error.store, failures, retry)

    def _answered(self) -> None:
        if self.outage is not None:
            _log.warning("%s answers again", self.outage.store)
            self.outage = None


def _nothing(state: LimiterState, now: float) -> None:
    """Leave the state as it is."""
