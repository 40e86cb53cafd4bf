"""Guests who are left out (``--exclude``)."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import islice

import attrs

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._items import BLANK
from thanx_async.cli._opening import HowToRead, every_value
from thanx_async.identifiers import normalise_all

_SLICE = 10_000


@attrs.define
class Exclusion:
    """The guests in a file, and how many items they have taken away so far."""

    name: str
    _guests: frozenset[str] = attrs.field(repr=False)
    count: int = 0

    def kept(self, items: list[object]) -> list[bool]:
        """For each item, whether it stays."""
        values, _ = normalise_all(items)
        kept = [value not in self._guests for value in values]
        self.count += kept.count(False)
        return kept

    def note(self) -> str:
        """How many were left out, in words."""
        return f"{self.count:,} left out: {'they are' if self.count != 1 else 'it is'} in {self.name}"


def exclusion(name: str, how: HowToRead) -> Exclusion:
    """Read the guests in a file.

    Args:
        how: how the other file is read: its columns, where this file has them, and its country.

    Raises:
        ConfigurationError: the file can't be read, or holds something but no guest.
    """
    how = HowToRead(column=how.column, country=how.country)
    guests: set[str] = set()
    is_empty = True
    with ExitStack() as stack:
        items = (item for item in every_value(name, name, how, stack) if item is not BLANK)
        while part := list(islice(items, _SLICE)):
            is_empty = False
            values, _ = normalise_all(part)
            guests.update(values)
    guests.discard("")
    if not guests and not is_empty:
        raise ConfigurationError(f"{name} holds no guest whom to leave out")
    return Exclusion(name, frozenset(guests))
