"""Which guests a run of ``issue --once`` takes. Pure: no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping

from thanx_async.ledger import BatchRecord, BatchState, Choices

_LAST = 2**62


class Places:
    """The positions that the batches of a run have, and what became of the guests there.

    Attributes:
        failed: the positions of those who certainly got no reward.
    """

    def __init__(self, batches: Iterable[BatchRecord] = ()) -> None:
        rows = sorted(batches, key=lambda batch: batch.positions.first)
        self._firsts = [batch.positions.first for batch in rows]
        self._lasts = [batch.positions.last for batch in rows]
        self._finished = [batch.state is BatchState.FINISHED for batch in rows]
        self.failed: frozenset[int] = frozenset(
            batch.positions[index] for batch in rows if batch.outcome for index, _ in batch.outcome.failures
        )

    def covers(self, place: int) -> bool:
        """Whether a batch has the position."""
        index = bisect_right(self._firsts, place) - 1
        return index >= 0 and place <= self._lasts[index]

    def is_issued(self, place: int) -> bool:
        """Whether the guest at a position has a reward."""
        index = bisect_right(self._firsts, place) - 1
        return self.covers(place) and self._finished[index] and place not in self.failed

    def uncovered(self) -> list[tuple[int, int]]:
        """The ranges of positions that no batch has, and of those who were left out after all batches."""
        begins = [0, *(last + 1 for last in self._lasts)]
        ends = [*(first - 1 for first in self._firsts), _LAST]
        gaps = [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin <= end]
        return [*gaps, (-_LAST, -1 - begins[-1])]


class Decision:
    """What a run decides about the next guests of its input.

    A decision holds for as long as the run can go on, so that the run's batches stay the same.

    Args:
        run_id: the run.
        known: what this run and others have decided.
        failed: the positions of guests who certainly got no reward, by the run's id.
        own: where the run's recorded batches are.
        place: the position of the next guest who stays.

    Attributes:
        place: the argument, moved on by those who stay.
        stays: for each guest, whether the run takes the guest.
        left_out: for each of the others the run that has the guest, and the position there; "" if none has
            any more.
    """

    def __init__(
        self, run_id: str, known: Choices, failed: Mapping[str, Collection[int]], own: Places, place: int
    ) -> None:
        self.place = place
        self.stays: list[bool] = []
        self.left_out: list[tuple[str, int]] = []
        self._run_id = run_id
        self._known = known
        self._failed = failed
        self._own = own
        self._new: dict[bytes, int] = {}

    def about(self, guests: Iterable[bytes]) -> Mapping[bytes, int]:
        """Decide about guests, of which an empty one stays. Returns what was not decided before."""
        for guest in guests:
            stays = not guest or self._takes(guest)
            self.stays.append(stays)
            self.place += stays
        return self._new

    def _takes(self, guest: bytes) -> bool:
        known = self._known[guest]
        decided = self._new.get(guest, known.get(self._run_id))
        if decided is None and self._own.covers(self.place):
            return True  # the input has changed, as the run will find: its batch holds other guests
        holder = self._holder(known)
        if decided is None:
            decided = self._new[guest] = self.place if holder is None else -1 - self.place
        if decided < 0:
            self.left_out.append(("", 0) if holder is None else (holder, known[holder]))
        return decided >= 0

    def _holder(self, known: Mapping[str, int]) -> str | None:
        """The other run that gave the guest a reward, or may do so."""
        for run_id, position in known.items():
            if run_id != self._run_id and position >= 0 and position not in self._failed.get(run_id, ()):
                return run_id
        return None
