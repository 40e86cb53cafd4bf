"""Messages that mark argument names, so that a command line can show its options instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self


class Name(str):
    """An argument name within a `Message`."""

    __slots__ = ()


class Message(str):
    """A message made of strings, argument names and other messages."""

    parts: tuple[str, ...]

    def __new__(cls, *parts: str) -> Self:
        self = super().__new__(cls, "".join(parts))
        self.parts = tuple(
            inner for part in parts for inner in (part.parts if isinstance(part, Message) else (part,))
        )
        return self

    def join(self, messages: Iterable[str], /) -> Message:
        """Like `str.join`, but keeps the marks."""
        parts = [part for message in messages for part in (self, message)]
        return Message(*parts[1:])

    def renamed(self, names: Mapping[str, str]) -> str:
        """The message with its argument names replaced; names that are not in ``names`` stay."""
        return "".join(names.get(part, part) if isinstance(part, Name) else part for part in self.parts)
