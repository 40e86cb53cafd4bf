"""Pairs of a number and a value, kept in two arrays instead of one object for each pair."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from operator import eq, lt
from typing import TypeVar, overload

T = TypeVar("T", bound=Hashable)
S = TypeVar("S", bound=Hashable)
Row = TypeVar("Row")


class Rows(Sequence[Row]):
    """A sequence whose rows are made when they are read; equal to any sequence with equal rows."""

    __slots__ = ()

    @abstractmethod
    def row(self, index: int) -> Row:
        """The row at this index, from 0 to the length."""

    def __iter__(self) -> Iterator[Row]:
        return map(self.row, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        places = range(len(self))
        if isinstance(index, slice):
            return tuple(map(self.row, places[index]))
        return self.row(places[index])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"<{len(self)} rows>"


class Numbered(Rows[tuple[int, T]]):
    """Pairs of a number and a value, twelve bytes each; a value that repeats is stored once.

    The garbage collector has nothing to walk in it, whatever the number of pairs.

    Attributes:
        numbers: the numbers, followed by those of pairs that were added after a `GrowingNumbered.view`.
    """

    __slots__ = ("_codes", "_count", "_values", "numbers")

    def __init__(self, numbers: array[int], codes: array[int], values: list[T], count: int) -> None:
        self.numbers: array[int] = numbers
        self._codes = codes
        self._values = values
        self._count = count

    @staticmethod
    def of(pairs: Iterable[tuple[int, T]]) -> Numbered[T]:
        """The pairs, in their order."""
        return pairs if isinstance(pairs, Numbered) else GrowingNumbered(pairs).view()

    def __len__(self) -> int:
        return self._count

    def row(self, index: int) -> tuple[int, T]:
        """The pair at this index."""
        return self.numbers[index], self._values[self._codes[index]]

    def __iter__(self) -> Iterator[tuple[int, T]]:
        values = map(self._values.__getitem__, self._codes)
        return zip(islice(self.numbers, self._count), values, strict=False)

    def mapped(self, change: Callable[[T], S]) -> Numbered[S]:
        """The same numbers with other values. The arrays are shared."""
        return Numbered(self.numbers, self._codes, [change(value) for value in self._values], self._count)

    def by_number(self) -> Numbered[T]:
        """Sorted by number, with the last of several pairs that have the same number."""
        if self._count == len(self.numbers) and all(map(lt, self.numbers, islice(self.numbers, 1, None))):
            return self
        return Numbered.of(sorted(dict(self).items()))

    def get(self, number: int) -> T | None:
        """The value of a number, None if there is none. Needs pairs sorted by number."""
        index = bisect_left(self.numbers, number, 0, self._count)
        found = index < self._count and self.numbers[index] == number
        return self._values[self._codes[index]] if found else None


class GrowingNumbered(Numbered[T]):
    """Pairs to which more can be added."""

    __slots__ = ("_known",)

    def __init__(self, pairs: Iterable[tuple[int, T]] = ()) -> None:
        self._known: dict[T, int] = {}
        super().__init__(array("q"), array("I"), [], 0)
        for number, value in pairs:
            self.append(number, value)

    def append(self, number: int, value: T) -> None:
        """Add a pair."""
        code = self._known.setdefault(value, len(self._known))
        if code == len(self._values):
            self._values.append(value)
        self.numbers.append(number)
        self._codes.append(code)
        self._count += 1

    def view(self) -> Numbered[T]:
        """The pairs so far. Pairs that are added later are not in it."""
        return Numbered(self.numbers, self._codes, self._values, self._count)
