"""`SQLiteLanes`, a ledger file with lanes, for `SQLiteOutbox`."""

from __future__ import annotations

from collections.abc import Sequence

from thanx_async.ledger._choices import Choose, Ranges
from thanx_async.ledger._lanes import Cut, Encode, Fate, LaneReport, LaneView, NewGuest, Put, Settlement
from thanx_async.ledger._records import BatchRecord, RunRecord
from thanx_async.ledger._sqlite import SQLiteLedger


class SQLiteLanes(SQLiteLedger):
    """A `SQLiteLedger` that is a `LaneLedger` as well. Methods do what the protocol says."""

    async def open_lane(self, lane: RunRecord) -> tuple[RunRecord, int]:
        """The lane with this target, and its number."""
        return await self._do(lambda store: store.lanes.open(lane))

    async def configure(self, run_id: str, *, keep_ids: float | None, replay_within: float | None) -> None:
        """Change settings of a lane."""
        await self._do(lambda store: store.lanes.configure(run_id, keep_ids, replay_within))

    async def put(self, run_id: str, guests: Sequence[NewGuest]) -> list[Put]:
        """Put guests into a lane."""
        return await self._do(lambda store: store.lanes.put(run_id, guests))

    async def view(self, run_id: str, most: int) -> LaneView:
        """What waits in the lane."""
        return await self._do(lambda store: store.lanes.view(run_id, most))

    async def cut(self, run_id: str, size: int, encode: Encode) -> Cut | None:
        """Cut and record a batch."""
        return await self._do(lambda store: store.lanes.cut(run_id, size, encode))

    async def split(self, run_id: str, number: int, encode: Encode) -> list[Cut]:
        """Replace a batch by its halves."""
        return await self._do(lambda store: store.lanes.split(run_id, number, encode))

    async def open_batches(self, run_id: str) -> list[BatchRecord]:
        """The batches that are in doubt or accepted."""
        return await self._do(lambda store: store.lanes.open_batches(run_id))

    async def hold(self, run_id: str, number: int, reason: str) -> None:
        """Give up a batch."""
        await self._do(lambda store: store.held.hold(run_id, number, reason))

    async def settle(self, run_id: str, number: int, settlement: Settlement) -> None:
        """Settle a held batch."""
        await self._do(lambda store: store.held.settle(run_id, number, settlement))

    async def fate(self, run_id: str, guest: bytes) -> Fate | None:
        """The fate of the guest with this id."""
        return await self._do(lambda store: store.lanes.fate(run_id, guest))

    async def cancel(self, run_id: str, guest: bytes) -> bool:
        """Take a waiting guest out."""
        return await self._do(lambda store: store.lanes.cancel(run_id, guest))

    async def report(self, run_id: str) -> LaneReport:
        """The numbers of the lane."""
        return await self._do(lambda store: store.lanes.report(run_id))

    async def rewards(self, run_id: str) -> int:
        """The number of guests who have or may have a reward."""
        return await self._do(lambda store: store.lanes.rewards(run_id))

    async def note(self, run_id: str, text: str | None, seconds: float) -> None:
        """Write down why nothing is sent."""
        await self._do(lambda store: store.lanes.note(run_id, text, seconds))

    async def hear(self, job_id: str) -> None:
        """Take in that a job has ended."""
        await self._do(lambda store: store.lanes.hear(job_id))

    async def forget_guests(self, run_id: str, before: float) -> int:
        """Delete ids that were put before a time."""
        return await self._do(lambda store: store.lanes.forget_guests(run_id, before))

    async def choose(self, run_id: str, guests: Sequence[bytes], choose: Choose) -> None:
        """Let a claimed run decide about guests, at a time when no other run does."""
        await self._do(lambda store: store.choices.choose(run_id, guests, choose))

    async def unchoose(self, run_id: str, ranges: Ranges) -> None:
        """Forget what a claimed run has decided about the guests at some positions."""
        await self._do(lambda store: store.choices.unchoose(run_id, ranges))

    async def has_chosen(self, run_id: str) -> bool:
        """Whether a run has decided about any guest."""
        return await self._do(lambda store: store.choices.has_chosen(run_id))
