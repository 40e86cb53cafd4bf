"""Drains a lane while this process holds the lane's lease, and stands by while another one does."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from thanx_async._core.errors import LeaseError, LedgerError, LedgerUnavailableError
from thanx_async._core.escaping import get_logger
from thanx_async.ledger import LaneLedger, RunRecord
from thanx_async.outbox._owned import DrainSettings, OwnedLane
from thanx_async.outbox._sender import LaneSender

_log = get_logger("thanx_async.outbox")

_STANDBY = 2.0
_FIRST_WAIT = 1.0
_MAX_WAIT = 30.0


async def drained(ledger: LaneLedger, lane: RunRecord, sender: LaneSender, settings: DrainSettings) -> None:
    """Drain a lane; see `Outbox.drain`."""
    sender.check_loop()
    waits = _Waits()
    while True:
        try:
            async with _lease(ledger, lane) as claimed:
                waits = _Waits()
                await OwnedLane(ledger, claimed, sender, settings).drain()
                return
        except LeaseError as error:
            if settings.until_empty and await _is_empty(ledger, lane):
                return
            await waits.stand_by(error)
        except LedgerUnavailableError as error:
            await waits.for_store(error)


class _Waits:
    """The waits between attempts to drain. Their reason is logged once."""

    def __init__(self) -> None:
        self._wait = _FIRST_WAIT
        self._told: type[LedgerError] | None = None

    async def stand_by(self, error: LeaseError) -> None:
        self._tell(logging.INFO, "standing by", error)
        await asyncio.sleep(_STANDBY * random.uniform(0.5, 1))  # noqa: S311 - jitter

    async def for_store(self, error: LedgerUnavailableError) -> None:
        self._tell(logging.WARNING, "the drain waits", error)
        await asyncio.sleep(self._wait * random.uniform(0.5, 1))  # noqa: S311 - jitter
        self._wait = min(_MAX_WAIT, 2 * self._wait)

    def _tell(self, level: int, what: str, error: LedgerError) -> None:
        if self._told is not type(error):
            self._told = type(error)
            _log.log(level, "%s: %s", what, error)


@asynccontextmanager
async def _lease(ledger: LaneLedger, lane: RunRecord) -> AsyncIterator[RunRecord]:
    claimed = await ledger.claim(lane)
    try:
        if claimed.revoked_at is not None:
            raise LedgerError(f"the lane {lane.run_id!r} was revoked: nothing more of it is issued")
        yield claimed
    finally:
        try:
            await ledger.release(lane.run_id)
        except LedgerError as error:
            _log.warning("the lane %s could not be given back: %s", lane.run_id, error)


async def _is_empty(ledger: LaneLedger, lane: RunRecord) -> bool:
    report = await ledger.report(lane.run_id)
    return not (report.waiting or report.in_doubt or report.accepted)
