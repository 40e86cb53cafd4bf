"""`GroupCommit`, which puts the guests of concurrent callers in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy

from thanx_async._core.errors import LedgerError
from thanx_async._core.tasks import to_its_end
from thanx_async.ledger import NewGuest, Put

MAYBE_PUT = "the guest may have been put: put the same id again to make sure"


class _Entry:
    """A guest who is being put, and what has become of it."""

    __slots__ = ("error", "guest", "put")

    def __init__(self, guest: NewGuest) -> None:
        self.guest = guest
        self.put: Put | None = None
        self.error: Exception | None = None

    def result(self) -> Put:
        """What became of the guest.

        Raises:
            Exception: the put failed.
        """
        if self.put is not None:
            return self.put
        if self.error is not None:
            raise self.error
        error = LedgerError("the put that this one was committed with was interrupted: put the same id again")
        error.in_doubt = True
        raise error


class GroupCommit:
    """Puts each guest in one transaction with all others who came while the last one was committed.

    For a store whose transactions exclude one another anyway. Elsewhere a guest whose id waits for somebody's
    open transaction would hold up all others.

    Args:
        put_all: puts guests in one transaction.
    """

    def __init__(self, put_all: Callable[[list[NewGuest]], Awaitable[list[Put]]]) -> None:
        self._put_all = put_all
        self._pending: list[_Entry] = []
        self._putting = asyncio.Lock()

    async def put(self, guest: NewGuest) -> Put:
        """Put a guest."""
        entry = _Entry(guest)
        self._pending.append(entry)
        try:
            async with self._putting:
                if entry in self._pending:
                    entries, self._pending = self._pending, []
                    await self._put_together(entries)
        except asyncio.CancelledError as error:
            if entry in self._pending:
                self._pending.remove(entry)
                error.add_note("nothing was put")
            else:
                error.add_note(MAYBE_PUT)
            raise
        return entry.result()

    async def _put_together(self, entries: list[_Entry]) -> None:
        """Put the guests, and tell each entry what became of it, even if this caller is cancelled."""
        guests = [entry.guest for entry in entries]
        work = asyncio.ensure_future(self._put_all(guests))
        try:
            await to_its_end(work)
        except Exception as error:  # noqa: BLE001 - each of the callers gets it, this one as well
            for entry in entries:
                entry.error = copy(error)  # raised by many, one instance would collect their frames
        finally:
            if work.done() and not work.cancelled() and work.exception() is None:
                for entry, put in zip(entries, work.result(), strict=True):
                    entry.put = put
