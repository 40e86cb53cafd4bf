"""Opens files and standard input: as text in the right encoding, or as the bytes of a workbook."""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._kinds import FIRST, Workbook, encoding_of, foreign, may_be_workbook, workbook_kind

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK = 1 << 16


class _Rewound(io.RawIOBase):
    """A stream that begins with what was read from it already. Pipes can't be rewound."""

    def __init__(self, first: bytes, rest: BinaryIO) -> None:
        self._first = first
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        data = self._first[: len(view)] or self._rest.read1(len(view))  # type: ignore[attr-defined]  # buffered
        self._first = self._first[len(data) :]
        view[: len(data)] = data
        return len(data)


def binary(name: str) -> BinaryIO:
    """The file, or standard input for ``-``.

    Raises:
        ConfigurationError: the file can't be read.
    """
    if not name:
        raise ConfigurationError("FILE is empty; - reads standard input")
    if name == "-":
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise ConfigurationError(f"cannot read {name}: {error.strerror}") from error


def share_read(stream: BinaryIO | None) -> float | None:
    """The part of a regular file that is read, from 0 to 1; None for all others."""
    with suppress(OSError, ValueError):  # no file, or closed
        if stream is not None and stat.S_ISREG((found := os.fstat(stream.fileno())).st_mode):
            return min(1.0, os.lseek(stream.fileno(), 0, os.SEEK_CUR) / max(1, found.st_size))
    return None


def content(
    stream: BinaryIO, name: str, *, encoding: str | None, is_json: bool
) -> TextIO | tuple[Workbook, bytes]:
    """The text of a stream, or the kind and bytes of a workbook.

    A byte order mark outranks ``encoding``. Bytes that are not in the encoding are kept or marked, so that
    only the guests with such bytes are rejected.

    Raises:
        ConfigurationError: the stream holds something else, or the encoding is unknown.
    """
    first = _first_bytes(stream, name)
    marked = encoding_of(first)
    if may_be_workbook(first):
        data = first + stream.read()
        kind = workbook_kind(data)
        if isinstance(kind, Workbook):
            return kind, data
        raise ConfigurationError(f"{name} {kind}")
    is_narrow = marked in (None, "utf-8-sig")
    is_declared = encoding is not None
    if is_narrow and (what := foreign(first, is_json=is_json, is_declared=is_declared)):
        raise ConfigurationError(f"{name} {what}")
    raw = io.BufferedReader(_Rewound(first, stream), _CHUNK)
    return _decoded(raw, marked or encoding or "utf-8")


def _first_bytes(stream: BinaryIO, name: str) -> bytes:
    """The first bytes; of a pipe what its writer has written first."""
    try:
        first = stream.read(8)
        return first + (stream.read1(FIRST) if len(first) == 8 else b"")  # type: ignore[attr-defined]  # buffered
    except OSError as error:  # a directory, for instance
        raise ConfigurationError(f"cannot read {name}: {error.strerror}") from error


def _decoded(raw: io.BufferedReader[_Rewound], encoding: str) -> TextIO:
    try:
        errors = "surrogateescape" if encoding.lower().startswith("utf-8") else "replace"
        return io.TextIOWrapper(raw, encoding=encoding, errors=errors, newline="")
    except LookupError:
        raise ConfigurationError(
            f"there is no encoding {encoding!r}; give --encoding utf-8, cp1252 or utf-16, for instance"
        ) from None
