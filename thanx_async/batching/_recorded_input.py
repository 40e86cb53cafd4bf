"""Compares the input of a restarted run with its recorded batches, and raises `InputChangedError`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from thanx_async._batches import Positions, digest_of
from thanx_async._core.errors import InputChangedError
from thanx_async._core.messages import Message, Name
from thanx_async.batching._batch import Batch
from thanx_async.batching._chunker import Chunk
from thanx_async.ledger import BatchRecord


class RecordedInput:
    """The batches that earlier processes recorded for a run.

    Args:
        records: the recorded batches, by number.
        encode: makes a request's bytes from its identifiers.
        adopt: gives a batch its recorded fate.
    """

    def __init__(
        self,
        records: Mapping[int, BatchRecord],
        encode: Callable[[list[str]], bytes],
        adopt: Callable[[Batch, BatchRecord], None],
    ) -> None:
        self._records = records
        self._encode = encode
        self._adopt = adopt
        self.last_number = max(self._records, default=-1)

    def restore(self, batches: Sequence[Batch], chunks: Sequence[Chunk]) -> None:
        """Give newly cut batches their recorded fates, if they have any.

        Raises:
            InputChangedError: the input has other guests in one of them; that batch is held as in doubt.
        """
        first_change = None
        for batch, chunk in zip(batches, chunks, strict=True):
            record = self._records.get(chunk.number)
            if record is None:
                continue
            if difference := self._difference(chunk, record):
                batch.mark_conflict(record)
                first_change = first_change or _input_changed(record, difference)
            else:
                self._adopt(batch, record)
        if first_change is not None:
            raise first_change

    def _difference(self, chunk: Chunk, record: BatchRecord) -> str | None:
        if not _same_positions(chunk.positions, record.positions):
            return f"is now {_span(chunk.positions)}: {_cause(chunk.positions, record)}"
        if digest_of(self._encode(chunk.values)) != record.digest:
            return "now holds other guests"
        return None

    def check_end(self, batches: int) -> None:
        """Check the number of batches at the end of the input.

        Raises:
            InputChangedError: more batches were recorded.
        """
        for number in range(batches, self.last_number + 1):
            if number in self._records:
                raise _input_changed(self._records[number], "is not in it any more: the input is shorter")


def _same_positions(one: Positions, other: Positions) -> bool:
    return (one.first, one.count, one.packed()) == (other.first, other.count, other.packed())


def _span(positions: Positions) -> str:
    return f"positions {positions.first} to {positions.last} ({len(positions):,} guests)"


def _cause(now: Positions, record: BatchRecord) -> str:
    if now.first == record.positions.first and len(now) > len(record.positions):
        return "the input has grown since"
    if now.first == record.positions.first and len(now) < len(record.positions):
        return "fewer items were read than before"
    return "items were added, removed or changed there"


def _input_changed(record: BatchRecord, difference: str) -> InputChangedError:
    positions = record.positions
    return InputChangedError(
        Message(
            f"the input of run {record.run_id!r} has changed: batch {record.number}, recorded as"
            f" {_span(positions)}, {difference}. Nothing was sent; start the run with the same input again,"
            " or issue the new guests in a run with another ",
            Name("run_id"),
        ),
        batch=record.number,
        first=positions.first,
        last=positions.last,
    )
