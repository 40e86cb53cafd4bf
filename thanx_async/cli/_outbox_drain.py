"""The command that drains outboxes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import attrs

from thanx_async._core import checks
from thanx_async._core.errors import ThanxError
from thanx_async._core.tasks import changed
from thanx_async.batching import Guard
from thanx_async.cli._client import connect
from thanx_async.cli._driving import on_signals
from thanx_async.cli._options import Flag, Whole, as_typed
from thanx_async.cli._outbox import Which, show
from thanx_async.cli._output import write
from thanx_async.cli._status import ISSUED, STOPPED, warn
from thanx_async.cli._store import lanes, outbox_of
from thanx_async.client import ThanxClient
from thanx_async.ledger import RunRecord
from thanx_async.retry import RetryPolicy

_LOOKS_EVERY = 5.0


@attrs.frozen
class _Settings:
    guard: Guard
    linger: float
    until_empty: bool


async def drain(
    *,
    which: Which,
    linger: float = 1.0,
    until_empty: Flag = False,
    max_rewards: Whole | None = None,
    canary: Whole | None = None,
    max_failure_rate: float | None = None,
) -> int:
    """
    Parameters
    ----------
    linger:
        Seconds for which the first guest of a batch waits for others.
    until_empty:
        Stop once nobody waits and all jobs have ended.
    max_rewards:
        Stop before an outbox could have issued more than this many rewards in all.
    canary:
        Issue to this many guests first, and wait for their job; needs --max-failure-rate.
    max_failure_rate:
        From 0 to 1: stop once more than this share of the guests in finished jobs has failed.
    """
    checks.number("linger", linger, 0)
    guard = Guard(max_rewards=max_rewards, canary=canary, max_failure_rate=max_failure_rate)
    settings = _Settings(guard, linger, until_empty)
    async with connect(store=which.store, retry=RetryPolicy()) as client:
        draining = asyncio.create_task(_Drains(which, client, settings).run())
        with on_signals(draining.cancel):
            await asyncio.wait([draining])
    if draining.cancelled():
        write("Stopped. The next drain sends what was in progress again, with the same keys")
        return STOPPED if until_empty else ISSUED  # without it, nothing but a signal ends a drain that works
    return ISSUED if draining.result() else STOPPED


class _Drains:
    """Drains the outboxes in a store side by side, also those that are made later."""

    def __init__(self, which: Which, client: ThanxClient, settings: _Settings) -> None:
        self._which = which
        self._client = client
        self._settings = settings
        self._drains: dict[str, asyncio.Task[bool]] = {}
        self._ended = asyncio.Event()
        self._has_warned = False

    async def run(self) -> bool:
        """Drain, until all outboxes are empty or have failed. Returns whether none has failed.

        Raises:
            ConfigurationError: the store cannot be used.
        """
        found = await self._found()
        if not found:
            self._say_none()
        async with asyncio.TaskGroup() as group:
            self._start(group, found)
            while not (self._settings.until_empty or self._have_all_ended()):
                await changed(self._ended, _LOOKS_EVERY)
                self._ended.clear()
                self._start(group, await self._found_later())
        return all(drain.result() for drain in self._drains.values())

    async def _found(self) -> list[RunRecord]:
        store = self._which.store
        if isinstance(store, Path) and not store.exists():  # the first put makes it
            return []
        return await lanes(store, self._which.wanted)

    async def _found_later(self) -> list[RunRecord]:
        """The outboxes, as far as the store can be read: the drains of those that are known wait for it."""
        try:
            return await self._found()
        except ThanxError as error:
            if not self._has_warned:
                warn(f"cannot look for new outboxes: {as_typed(error)}")
            self._has_warned = True
        return []

    def _say_none(self) -> None:
        none = f"{self._which.store} has no outbox of this credential that fits"
        write(f"{none}: nobody waits" if self._settings.until_empty else f"{none} yet: waiting for the first")

    def _start(self, group: asyncio.TaskGroup, found: list[RunRecord]) -> None:
        for run in found:
            if run.run_id not in self._drains:
                task = self._drains[run.run_id] = group.create_task(self._drain(run))
                task.add_done_callback(lambda _: self._ended.set())

    def _have_all_ended(self) -> bool:
        return bool(self._drains) and all(drain.done() for drain in self._drains.values())

    async def _drain(self, run: RunRecord) -> bool:
        """Drain one outbox. Returns whether that succeeded; otherwise the others go on."""
        name = "/".join(run.target)
        settings = self._settings
        try:
            async with outbox_of(self._which.store, run.target) as outbox:
                write(f"Draining {name}")
                await outbox.drain(
                    self._client,
                    guard=settings.guard,
                    linger=settings.linger,
                    until_empty=settings.until_empty,
                )
                await show(outbox)
        except ThanxError as error:
            warn(f"the drain of {name} stopped: {as_typed(error)}")
            return False
        return True
