"""Records what becomes of the batches of a lane."""

from __future__ import annotations

from thanx_async._core.errors import LedgerError, ThanxError
from thanx_async.batching import Batch, Send, Target
from thanx_async.ledger import Cut, LaneLedger


class LaneRecorder:
    """Keeps a ledger accurate for batches of lanes, which are recorded when they are cut.

    Args:
        ledger: an open ledger with lanes.
        target: encodes the halves of a batch.
    """

    def __init__(self, ledger: LaneLedger, target: Target) -> None:
        self._ledger = ledger
        self._target = target
        self._halves: dict[str, list[Cut]] = {}

    def take_halves(self, batch: Batch) -> list[Cut]:
        """The halves of a batch that was refused because of one guest; none of another batch."""
        return self._halves.pop(batch.key, [])

    async def restore(self, batch: Batch) -> None:
        """Give a batch in doubt its recorded bytes, to be sent again."""
        batch.replay(await self._ledger.body(batch.run_id, batch.number))

    async def deliver(self, batch: Batch, body: bytes, send: Send) -> None:
        """Send a batch, and record its fate.

        Raises:
            LedgerError: the fate could not be recorded.
            ThanxError: from ``send``.
        """
        try:
            await send(batch, body)
        except BaseException as error:
            try:
                await self._record_fate(batch)
            except LedgerError as failure:
                error.add_note(f"meanwhile: {failure}")
                if isinstance(error, ThanxError):
                    batch.mark_if_in_doubt(error)
            raise
        await self._record_fate(batch)

    async def _record_fate(self, batch: Batch) -> None:
        run_id, number = batch.run_id, batch.number
        if batch.handle is not None:
            await self._ledger.accept(run_id, number, batch.handle.id)
        elif batch.refused is not None and batch.settled:
            await self._record_refusal(batch)
        elif not batch.delivery.in_doubt:
            await self._ledger.withdraw(run_id, number)

    async def _record_refusal(self, batch: Batch) -> None:
        """A guest who is to blame for the refusal has failed; all others are sent again, or wait again."""
        if not batch.blames_one_guest:
            await self._ledger.withdraw(batch.run_id, batch.number)
        elif batch.is_split:
            halves = await self._ledger.split(batch.run_id, batch.number, self._target.encode)
            self._halves[batch.key] = halves
        else:
            await self._ledger.finish(batch.run_id, {batch.number: batch.outcome()})
