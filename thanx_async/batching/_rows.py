"""Guest rows that are made when they are read, so that a report on a million of them costs nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, repeat

from thanx_async._batches import Positions
from thanx_async._core.columns import GrowingNumbered, Numbered, Rows
from thanx_async.batching._report import GuestRow


class FailedRows(Rows[GuestRow]):
    """The guests of one batch without a reward.

    Args:
        positions: of all guests of the batch.
        reasons: the index of each guest in the batch, with the reason.
        values: all identifiers of the batch, None unless values are kept.
        job_id: the batch's job.
    """

    __slots__ = ("_job_id", "_positions", "_reasons", "_values")

    def __init__(
        self, positions: Positions, reasons: Numbered[str], values: Sequence[str] | None, job_id: str | None
    ) -> None:
        self._positions = positions
        self._reasons = reasons
        # A tuple of texts, unlike a list, is nothing that the garbage collector walks.
        self._values = tuple(values[index] for index, _ in reasons) if values else None
        self._job_id = job_id

    def __len__(self) -> int:
        return len(self._reasons)

    def row(self, index: int) -> GuestRow:
        """The row at this place."""
        number, reason = self._reasons.row(index)
        value = self._values[index] if self._values else None
        return GuestRow(self._positions[number], value, reason, self._job_id)

    def __iter__(self) -> Iterator[GuestRow]:
        positions, job_id = self._positions, self._job_id
        for (number, reason), value in zip(self._reasons, self._values or repeat(None), strict=False):
            yield GuestRow(positions[number], value, reason, job_id)


class DroppedRows(Rows[GuestRow]):
    """Input items that are left out of every batch; a view has those up to its making."""

    __slots__ = ("_reasons", "_values")

    def __init__(self, reasons: Numbered[str], values: Sequence[str] | None) -> None:
        self._reasons = reasons
        self._values = values

    def __len__(self) -> int:
        return len(self._reasons)

    def row(self, index: int) -> GuestRow:
        """The row at this place."""
        position, reason = self._reasons.row(index)
        return GuestRow(position, self._values[index] if self._values is not None else None, reason)


class DroppedItems:
    """Collects the input items that are left out.

    Args:
        keep_values: keep their text.
    """

    def __init__(self, *, keep_values: bool) -> None:
        self._reasons: GrowingNumbered[str] = GrowingNumbered()
        self._values: list[str] | None = [] if keep_values else None

    def __len__(self) -> int:
        return len(self._reasons)

    def append(self, position: int, value: str, reason: str) -> None:
        """Add an item."""
        self._reasons.append(position, reason)
        if self._values is not None:
            self._values.append(value)

    def rows(self) -> DroppedRows:
        """The items so far."""
        return DroppedRows(self._reasons.view(), self._values)


class JoinedRows(Rows[GuestRow]):
    """The rows of several sequences, one after the other."""

    __slots__ = ("_ends", "_parts")

    def __init__(self, parts: Iterable[Sequence[GuestRow]]) -> None:
        self._parts = [part for part in parts if part]
        self._ends = list(accumulate(map(len, self._parts)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, index: int) -> GuestRow:
        """The row at this place."""
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]

    def __iter__(self) -> Iterator[GuestRow]:
        return chain.from_iterable(self._parts)
