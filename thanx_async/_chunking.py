"""The cutting of a stream of identifiers into batches: plain feed and flush, no I/O."""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import attrs

from thanx_async.errors import InvalidIdentifierError
from thanx_async.identifiers import ATOMS, MAX_BATCH, normalise, raw_value
from thanx_async.models import counted

# Plain addresses only, a subset of _EMAIL as long as none is over 64 characters or has a hyphen at a dot.
_PLAIN_EMAILS = re.compile(rf"(?:{ATOMS}@(?:[a-z0-9-]++\.)++[a-z]++\n)*+")
_PLAIN_LENGTH = 64
_LOOSE_HYPHENS = ("@-", ".-", "-.")


@attrs.frozen
class Positions:
    """The places in the input of a batch's identifiers, in order.

    Held as the first place and, for each place skipped since, how many identifiers came before it: a
    batch without gaps costs nothing, however large it is.
    """

    first: int
    count: int
    _gaps: array[int] = attrs.field(factory=lambda: array("L"), repr=counted)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.first + index + bisect_right(self._gaps, index)

    def __iter__(self) -> Iterator[int]:
        return (self[index] for index in range(self.count))

    @property
    def last(self) -> int:
        return self[self.count - 1]

    def packed(self) -> bytes:
        """The gaps as bytes, two for each place skipped, the same on every machine."""
        return _little_endian(array("H", self._gaps)).tobytes()

    @classmethod
    def unpacked(cls, first: int, count: int, data: bytes) -> Positions:
        gaps = array("H")
        gaps.frombytes(data)
        return cls(first, count, array("L", _little_endian(gaps)))


def _little_endian(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


@attrs.frozen
class Batch:
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


class Chunker:
    """Parses, drops duplicates, and cuts batches: ``feed()`` items, then ``flush()`` the rest.

    The set that finds duplicates costs about 100 bytes a guest.
    """

    def __init__(self, size: int = MAX_BATCH, *, deduplicate: bool = True, keep_values: bool = True) -> None:
        self.read = 0
        self.rejected: list[Dropped] = []
        self.duplicates: list[Dropped] = []
        self._size = size
        self._next_size = size
        self._keep = keep_values
        self._seen: set[str] | None = set() if deduplicate else None
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

    def feed(self, items: Sequence[object]) -> list[Batch]:
        """Take the next items of the input; returns the batches that they filled."""
        values = _plain_emails(items)
        if values is None or not self._all_new(values):
            return [batch for item in items for batch in self._feed_one(item)]
        batches = []
        while values:
            room = self._next_size - len(self._values)
            taken, values = values[:room], values[room:]
            self._values += taken
            self.read += len(taken)
            if len(self._values) == self._next_size:
                batches.append(self._cut())
        return batches

    def flush(self) -> list[Batch]:
        """The last batch, if anything waits."""
        return [self._cut()] if self._values else []

    def _cut(self) -> Batch:
        batch = Batch(self._number, Positions(self._first, len(self._values), self._gaps), self._values)
        self._number += 1
        self._next_size = self._size
        self._begin(first=self.read)
        return batch

    def _all_new(self, values: list[str]) -> bool:
        if self._seen is None:
            return True
        if not self._seen.isdisjoint(values):
            return False
        before = len(self._seen)
        self._seen.update(values)
        if len(self._seen) == before + len(values):
            return True
        self._seen.difference_update(values)
        return False

    def _feed_one(self, item: object) -> list[Batch]:
        position = self.read
        self.read += 1
        try:
            value = normalise(item)
        except InvalidIdentifierError as error:
            self._drop(self.rejected, position, raw_value(item), error.reason)
            return []
        if self._seen is not None:
            if value in self._seen:
                self._drop(self.duplicates, position, value, "already in this input")
                return []
            self._seen.add(value)
        self._values.append(value)
        return [self._cut()] if len(self._values) == self._next_size else []

    def _drop(self, rows: list[Dropped], position: int, value: str, reason: str) -> None:
        rows.append(Dropped(position, value if self._keep else None, reason))
        if self._values:
            self._gaps.append(len(self._values))
        else:
            self._first = self.read


def _plain_emails(items: Sequence[object]) -> list[str] | None:
    """The fast path: one match over the joined items, or None where each must be looked at."""
    try:
        text = "\n".join(map(str.strip, items)).lower()  # type: ignore[arg-type]  # a non-string raises
    except TypeError:
        return None
    values = text.split("\n")
    if (
        len(values) == len(items) > 0
        and max(map(len, values)) <= _PLAIN_LENGTH
        and _PLAIN_EMAILS.fullmatch(text + "\n")
        and not any(pair in text for pair in _LOOSE_HYPHENS)
    ):
        return values
    return None
