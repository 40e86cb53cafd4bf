"""Takes in what webhooks have told of a run's jobs at other processes, through the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from thanx_async._core.errors import ThanxError
from thanx_async._core.escaping import get_logger

if TYPE_CHECKING:
    from thanx_async.jobs import JobRegistry
    from thanx_async.ledger import Ledger, RelayLedger

_log = get_logger("thanx_async.webhooks")

_LOOK = 0.25


@asynccontextmanager
async def listening(ledger: Ledger | None, run_id: str, jobs: JobRegistry | None) -> AsyncIterator[None]:
    """Look into the ledger for relayed events within the block, if the client may believe events."""
    if ledger is None or jobs is None or not jobs.trust.is_active:
        yield
        return
    from thanx_async.ledger import RelayLedger  # loaded already, with the ledger

    if not isinstance(ledger, RelayLedger):
        yield
        return
    task = asyncio.create_task(_listen(ledger, run_id, jobs))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _listen(ledger: RelayLedger, run_id: str, jobs: JobRegistry) -> None:
    while True:
        try:
            for job in await ledger.relayed(run_id):
                jobs.relayed(job)
        except ThanxError as error:  # what is not heard is polled
            _log.debug("relayed events were not read: %s", error)
        await asyncio.sleep(_LOOK)
