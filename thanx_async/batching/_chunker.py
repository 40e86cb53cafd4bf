"""Cuts a stream of identifiers into chunks, and drops invalid items and duplicates. Pure: no I/O."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterator, Mapping, Sequence

import attrs

from thanx_async._batches import Positions
from thanx_async.batching._rows import DroppedItems, DroppedRows
from thanx_async.identifiers import MAX_BATCH, normalise_all, raw_value
from thanx_async.models import counted

_SETS = 16
_GC_THRESHOLD = 20_000
_DUPLICATE = "already in this input"


@attrs.frozen
class Chunk:
    """The identifiers of one request. ``number`` counts the chunks of a run from 0."""

    number: int
    positions: Positions
    values: list[str] = attrs.field(repr=counted)


class SeenValues:
    """All values so far, in several sets: growing a single large set would block the event loop."""

    def __init__(self) -> None:
        self._sets: list[set[str]] = [set() for _ in range(_SETS)]

    def add(self, values: Sequence[str]) -> list[int]:
        """Add values. Returns the indices of those that were there already."""
        parts: list[list[str]] = [[] for _ in range(_SETS)]
        for value in values:
            parts[hash(value) % _SETS].append(value)
        before, known = len(self), set[str]()
        for bucket, part in zip(self._sets, parts, strict=True):
            known |= bucket.intersection(part)
            bucket.update(part)
        now = len(self)
        if before < _GC_THRESHOLD <= now:
            # Move the sets to an older generation while they are small: a collection of young objects that
            # scanned a million guests would block the event loop.
            gc.collect(1)
        return [] if now == before + len(values) else _repeated(values, known)

    def __len__(self) -> int:
        return sum(map(len, self._sets))

    def free(self) -> Iterator[None]:
        """Forget the values, one set for each step: freeing all at once would block the event loop."""
        while self._sets:
            del self._sets[-1]
            yield


def _repeated(values: Sequence[str], known: set[str]) -> list[int]:
    """The indices of values that are known or come a second time."""
    indices = []
    for index, value in enumerate(values):
        if value in known:
            indices.append(index)
        known.add(value)
    return indices


class Chunker:
    """Parses items, drops duplicates, and cuts chunks: ``feed()`` items, then ``flush()`` the rest.

    Deduplication takes about 110 bytes for each guest, until `free`.

    Args:
        size: identifiers in a chunk.
        deduplicate: drop identifiers that came before.
        keep_values: keep the text of rejected items and duplicates.

    Attributes:
        read: the number of items read so far.
        size: the argument.
        keep_values: the argument.
    """

    def __init__(self, size: int = MAX_BATCH, *, deduplicate: bool = True, keep_values: bool = True) -> None:
        self.read: int = 0
        self._rejected = DroppedItems(keep_values=keep_values)
        self._duplicates = DroppedItems(keep_values=keep_values)
        self.size: int = size
        self._next_size = size
        self._sizes: Mapping[int, int] = {}
        self.keep_values = keep_values
        self._seen = SeenValues() if deduplicate else None
        self._next_number = 0
        self._begin_chunk(first=0)

    def _begin_chunk(self, first: int) -> None:
        self._first = first
        self._values: list[str] = []
        self._gaps = array("L")

    @property
    def rejected(self) -> DroppedRows:
        """Items that are not valid identifiers."""
        return self._rejected.rows()

    @property
    def duplicates(self) -> DroppedRows:
        """Items that repeat an earlier guest."""
        return self._duplicates.rows()

    @property
    def pending(self) -> Positions:
        """The positions of the identifiers that wait for the rest of their chunk."""
        return Positions(self._first, len(self._values), self._gaps)

    @property
    def pending_values(self) -> Sequence[str]:
        """The identifiers at the `pending` positions."""
        return self._values

    def cut_first_at(self, size: int) -> None:
        """Give the first chunk a smaller size. Call this before the first `feed`."""
        self._next_size = min(size, self.size)

    def cut_as_before(self, sizes: Mapping[int, int]) -> None:
        """Give chunks the sizes that they had in an earlier process. Call this before the first `feed`.

        Args:
            sizes: by the chunk's number.
        """
        self._sizes = sizes
        self._next_size = sizes.get(0, self._next_size)

    def feed(self, items: Sequence[object]) -> list[Chunk]:
        """Take the next items of the input. Returns the chunks that they filled."""
        values, rejected = normalise_all(items)
        known = self._seen.add(values) if self._seen is not None else []
        chunks: list[Chunk] = []
        start = 0
        for index in sorted({*rejected, *known}):
            chunks += self._add(values[start:index])
            if index in rejected:
                self._leave_out(self._rejected, raw_value(items[index]), rejected[index])
            else:
                self._leave_out(self._duplicates, values[index], _DUPLICATE)
            start = index + 1
        return chunks + self._add(values[start:])

    def skip(self, items: int) -> None:
        """Count items that an earlier process has read."""
        self.read += items

    def flush(self) -> list[Chunk]:
        """The last chunk, if any identifiers are pending."""
        return [self._cut()] if self._values else []

    def free(self) -> Iterator[None]:
        """Free the memory of deduplication, in steps, once the input has ended."""
        seen, self._seen = self._seen, None
        return seen.free() if seen is not None else iter(())

    def _add(self, values: list[str]) -> list[Chunk]:
        chunks = []
        while values:
            room = self._next_size - len(self._values)
            head, values = values[:room], values[room:]
            self._values += head
            self.read += len(head)
            if len(self._values) == self._next_size:
                chunks.append(self._cut())
        return chunks

    def _cut(self) -> Chunk:
        chunk = Chunk(self._next_number, Positions(self._first, len(self._values), self._gaps), self._values)
        self._next_number += 1
        self._next_size = self._sizes.get(self._next_number, self.size)
        self._begin_chunk(first=self.read)
        return chunk

    def _leave_out(self, items: DroppedItems, value: str, reason: str) -> None:
        items.append(self.read, value, reason)
        self.read += 1
        if self._values:
            self._gaps.append(len(self._values))
        else:
            self._first = self.read
