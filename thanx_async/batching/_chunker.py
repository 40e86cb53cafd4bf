"""The cutting of a stream of identifiers into batches: plain feed and flush, no I/O."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterator, Sequence

import attrs

from thanx_async._batches import Positions
from thanx_async.identifiers import MAX_BATCH, normalise_all, raw_value
from thanx_async.models import counted

_SETS = 16
_MANY = 20_000
_DUPLICATE = "already in this input"


@attrs.frozen
class Chunk:
    """What goes into one request. ``number`` counts the batches of a run from 0."""

    number: int
    positions: Positions
    values: list[str] = attrs.field(repr=counted)


@attrs.frozen
class Dropped:
    """An item that goes into no batch: ``value`` is its text, None unless values are kept."""

    position: int
    value: str | None = attrs.field(repr=False)
    reason: str


class Seen:
    """The values so far, in several sets: a single large one would hold the loop whenever it grows."""

    def __init__(self) -> None:
        self._sets: list[set[str]] = [set() for _ in range(_SETS)]

    def add(self, values: Sequence[str]) -> list[int]:
        """Take values in; returns the indices of those that were there already."""
        parts: list[list[str]] = [[] for _ in range(_SETS)]
        for value in values:
            parts[hash(value) % _SETS].append(value)
        before, known = len(self), set[str]()
        for home, part in zip(self._sets, parts, strict=True):
            known |= home.intersection(part)
            home.update(part)
        now = len(self)
        if before < _MANY <= now:
            # The sets of a long run become old while they are small: a collection of young objects that
            # walked through a million guests would hold the loop.
            gc.collect(1)
        return [] if now == before + len(values) else _repeated(values, known)

    def __len__(self) -> int:
        return sum(map(len, self._sets))

    def free(self) -> Iterator[None]:
        """Forget the values, set by set: all at once would hold the loop."""
        while self._sets:
            del self._sets[-1]
            yield


def _repeated(values: Sequence[str], known: set[str]) -> list[int]:
    """The indices of those that are known, or come a second time."""
    indices = []
    for index, value in enumerate(values):
        if value in known:
            indices.append(index)
        known.add(value)
    return indices


class Chunker:
    """Parses, drops duplicates, and cuts batches: ``feed()`` items, then ``flush()`` the rest.

    Finding duplicates costs about 110 bytes a guest, until `free`.
    """

    def __init__(self, size: int = MAX_BATCH, *, deduplicate: bool = True, keep_values: bool = True) -> None:
        self.read = 0
        self.rejected: list[Dropped] = []
        self.duplicates: list[Dropped] = []
        self._size = size
        self._next_size = size
        self._keep = keep_values
        self._seen = Seen() if deduplicate else None
        self._number = 0
        self._begin(first=0)

    def _begin(self, first: int) -> None:
        self._first = first
        self._values: list[str] = []
        self._gaps = array("L")

    @property
    def pending(self) -> Positions:
        """Where the identifiers stand that wait for the rest of their batch."""
        return Positions(self._first, len(self._values), self._gaps)

    def cut_first_at(self, size: int) -> None:
        """Give the first batch a size of its own; to be called before the first `feed`."""
        self._next_size = min(size, self._size)

    def feed(self, items: Sequence[object]) -> list[Chunk]:
        """Take the next items of the input; returns the batches that they filled."""
        values, refused = normalise_all(items)
        known = self._seen.add(values) if self._seen is not None else []
        batches: list[Chunk] = []
        done = 0
        for index in sorted({*refused, *known}):
            batches += self._take(values[done:index])
            if index in refused:
                self._drop(self.rejected, raw_value(items[index]), refused[index])
            else:
                self._drop(self.duplicates, values[index], _DUPLICATE)
            done = index + 1
        return batches + self._take(values[done:])

    def skip(self, items: int) -> None:
        """Count items of the input that an earlier process has read."""
        self.read += items

    def flush(self) -> list[Chunk]:
        """The last batch, if anything waits."""
        return [self._cut()] if self._values else []

    def free(self) -> Iterator[None]:
        """After the end of the input, forget what finds duplicates, in steps."""
        seen, self._seen = self._seen, None
        return seen.free() if seen is not None else iter(())

    def _take(self, values: list[str]) -> list[Chunk]:
        batches = []
        while values:
            room = self._next_size - len(self._values)
            taken, values = values[:room], values[room:]
            self._values += taken
            self.read += len(taken)
            if len(self._values) == self._next_size:
                batches.append(self._cut())
        return batches

    def _cut(self) -> Chunk:
        batch = Chunk(self._number, Positions(self._first, len(self._values), self._gaps), self._values)
        self._number += 1
        self._next_size = self._size
        self._begin(first=self.read)
        return batch

    def _drop(self, rows: list[Dropped], value: str, reason: str) -> None:
        rows.append(Dropped(self.read, value if self._keep else None, reason))
        self.read += 1
        if self._values:
            self._gaps.append(len(self._values))
        else:
            self._first = self.read
