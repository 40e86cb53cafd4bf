"""Messages that mark the names of arguments, so that another surface can show names of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self


class Name(str):
    """The name of an argument, as a part of a `Message`."""

    __slots__ = ()


class Message(str):
    """A message made of parts: texts, the names of arguments, and other messages."""

    parts: tuple[str, ...]

    def __new__(cls, *parts: str) -> Self:
        self = super().__new__(cls, "".join(parts))
        self.parts = tuple(
            inner for part in parts for inner in (part.parts if isinstance(part, Message) else (part,))
        )
        return self

    def join(self, messages: Iterable[str], /) -> Message:
        """As `str.join`, which would lose the marks."""
        parts = [part for message in messages for part in (self, message)]
        return Message(*parts[1:])

    def renamed(self, names: Mapping[str, str]) -> str:
        """The message with other names for arguments; an argument without one keeps its own."""
        return "".join(names.get(part, part) if isinstance(part, Name) else part for part in self.parts)
