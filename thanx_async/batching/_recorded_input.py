"""What earlier processes did of a run, held against the input that is read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from thanx_async._batches import Positions, digest_of
from thanx_async._core.errors import InputChangedError
from thanx_async._core.messages import Message, Name
from thanx_async.batching._batch import Batch
from thanx_async.batching._chunker import Chunk
from thanx_async.ledger import BatchRecord


class RecordedInput:
    """The recorded batches of a run, by number.

    ``encode`` makes a request's bytes from its values, and ``adopt`` gives a batch the recorded fate.
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
        self.last = max(self._records, default=-1)

    def meet(self, batches: Sequence[Batch], chunks: Sequence[Chunk]) -> None:
        """Give batches that were just cut again their recorded fates, where there are any.

        Raises:
            InputChangedError: the input has other guests in one of them; that one is held as in doubt.
        """
        changed = None
        for batch, chunk in zip(batches, chunks, strict=True):
            record = self._records.get(chunk.number)
            if record is None:
                continue
            if how := self._difference(chunk, record):
                batch.contradict(record)
                changed = changed or _changed(record, how)
            else:
                self._adopt(batch, record)
        if changed is not None:
            raise changed

    def _difference(self, chunk: Chunk, record: BatchRecord) -> str | None:
        if not _same_places(chunk.positions, record.positions):
            return f"is now {_places(chunk.positions)}: {_course(chunk.positions, record)}"
        if digest_of(self._encode(chunk.values)) != record.digest:
            return "now holds other guests"
        return None

    def check_end(self, batches: int) -> None:
        """The input has ended after so many batches.

        Raises:
            InputChangedError: more were recorded.
        """
        for number in range(batches, self.last + 1):
            if number in self._records:
                raise _changed(self._records[number], "is not in it any more: the input is shorter")


def _same_places(one: Positions, other: Positions) -> bool:
    return (one.first, one.count, one.packed()) == (other.first, other.count, other.packed())


def _places(positions: Positions) -> str:
    return f"positions {positions.first} to {positions.last} ({len(positions):,} guests)"


def _course(now: Positions, record: BatchRecord) -> str:
    if now.first == record.positions.first and len(now) > len(record.positions):
        return "the input has grown since"
    return "items were added, removed or changed there"


def _changed(record: BatchRecord, how: str) -> InputChangedError:
    positions = record.positions
    return InputChangedError(
        Message(
            f"the input of run {record.run_id!r} has changed: batch {record.number}, recorded as"
            f" {_places(positions)}, {how}. Nothing was sent; start the run with the same input again, or"
            " give what is new to a run with another ",
            Name("run_id"),
        ),
        batch=record.number,
        first=positions.first,
        last=positions.last,
    )
