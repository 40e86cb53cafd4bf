"""`LaneUpkeep`, the chores of the process that drains a lane."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from math import inf
from time import time

from thanx_async._core.errors import LedgerError
from thanx_async.ledger import LaneLedger, RunRecord
from thanx_async.limiter import RateLimiter

_FORGETS_EVERY = 3600.0
_NOTED_FROM = 1.0
_NOTE_LASTS = 30.0
_END_LASTS = 86_400.0


class LaneUpkeep:
    """Deletes old ids, and writes down why nothing is sent.

    Attributes:
        lane: the lane, with its settings as they were read last.
    """

    def __init__(self, ledger: LaneLedger, lane: RunRecord, limiter: RateLimiter) -> None:
        self.lane: RunRecord = lane
        self._ledger = ledger
        self._limiter = limiter
        self._forget_at = -inf
        self._noted_at = -inf
        self._noted: str | None = ""  # an earlier drain may have left a note

    async def do(self) -> None:
        """Do what is due."""
        await self._forget_some()
        await self._write_note()

    async def note_end(self, error: Exception) -> None:
        """Write down for the status what has ended the drain, until another one begins."""
        if not isinstance(error, LedgerError):
            text = f"the last drain ended with {type(error).__name__}"
            with suppress(LedgerError):  # the first error says more
                await self._ledger.note(self.lane.run_id, text, _END_LASTS)

    async def _forget_some(self) -> None:
        """Delete ids that are old enough, in short transactions, once an hour."""
        now = asyncio.get_running_loop().time()
        if now < self._forget_at:
            return
        run_id = self.lane.run_id
        self.lane = await self._ledger.run(run_id) or self.lane  # its settings may have changed
        keep = inf if self.lane.keep_ids is None else self.lane.keep_ids
        if keep == inf or not await self._ledger.forget_guests(run_id, time() - keep):
            self._forget_at = now + _FORGETS_EVERY

    async def _write_note(self) -> None:
        """Write down for the status why nothing is sent, now and then."""
        status, now = self._limiter.status(), asyncio.get_running_loop().time()
        text = str(status.reason) if status.held_for > _NOTED_FROM else None
        if text != self._noted or (text is not None and now - self._noted_at > _NOTE_LASTS / 2):
            await self._ledger.note(self.lane.run_id, text, status.held_for + _NOTE_LASTS)
            self._noted, self._noted_at = text, now
