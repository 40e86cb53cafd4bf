"""What the readers of all formats hand on: guests, rows without one, and blank rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import attrs

from thanx_async._core.errors import InvalidIdentifierError

# Broader than valid guests: neither a header nor a line of a note looks like this.
_NUMBER = r"(?!\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b)\W*(?:\d\W*){7,}"
_GUEST = re.compile(rf"\S+@\S+|^{_NUMBER}$")
_SHOWN, _LONGEST = 10, 40

NO_COUNTRY = "the phone number has no + and country code"
"""How the reason begins for which `--country` may be the remedy."""

BLANK = object()
"""Stands for a blank row, which is no guest and counts as none."""


@attrs.frozen
class Unread(Mapping[str, object]):
    """A row without a guest: its text is the row, and reading its keys raises the reason."""

    _row: str = attrs.field(repr=False)
    _reason: str

    def __getitem__(self, key: str) -> object:
        raise InvalidIdentifierError(self._reason)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __str__(self) -> str:
        return self._row.strip()


def holds_guest(text: str) -> bool:
    """Whether a header or key holds what looks like a guest."""
    return _GUEST.search(text) is not None


def is_like_guest(text: str) -> bool:
    """Whether all of a text looks like a guest, valid or not."""
    return _GUEST.fullmatch(text.strip(" \t\"'")) is not None


def advised(reason: str) -> str:
    """The reason for a rejection, with the option that may help."""
    return f"{reason}: give --country, such as US" if reason.startswith(NO_COUNTRY) else reason


def names(header: list[str]) -> str:
    """The names of the columns, shortened."""
    shown = [name[:_LONGEST] for name in header[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(header) - _SHOWN:,} more" if len(header) > _SHOWN else "")
