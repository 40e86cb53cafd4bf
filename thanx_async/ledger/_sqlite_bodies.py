"""`BodyFile`, which keeps the request bodies of batches in doubt, in slots of a file beside the ledger.

Slots are written and wiped in place. A database would write the same bytes four times (log and table, and
both again to zero them), which costs more than all other work of recording. Its log would also keep copies of
personal data.
"""

from __future__ import annotations

import operator
import os
import stat
from collections.abc import Collection
from errno import ELOOP
from pathlib import Path
from typing import SupportsIndex

from thanx_async._core.errors import LedgerError

STRIDE = 2**22
"""The size of a slot in bytes, more than 10,000 of the longest addresses need. The file is sparse."""

_MAX_SLOTS = 2**20


def check_place(slot: SupportsIndex, size: SupportsIndex = 0) -> tuple[int, int]:
    """A recorded slot, and the length of its body.

    Raises:
        TypeError, ValueError: they are impossible.
    """
    place = operator.index(slot), operator.index(size)
    if not (0 <= place[0] < _MAX_SLOTS and 0 <= place[1] <= STRIDE):
        raise ValueError
    return place


_PRIVATE = 0o600
_HOLE: int | None = getattr(os, "SEEK_HOLE", None)
_sync = getattr(os, "fdatasync", os.fsync)

_BODY_START = b'{"'
"""The first bytes of each request body."""

_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


class BodyFile:
    """A file of slots that only its owner can read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            if error.errno == ELOOP:
                raise self._foreign("is a symbolic link") from error
            raise

    def adopt(self, used: Collection[int], *, is_new: bool) -> None:
        """Make sure that an existing file belongs to the ledger, before anything is changed.

        Args:
            used: the slots of batches in doubt.
            is_new: whether the ledger has never recorded a run, so that the file must be empty.

        Raises:
            LedgerError: the file does not belong to the ledger; it is not changed.
        """
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode):
            raise self._foreign("is not a regular file")
        if found.st_nlink > 1:
            raise self._foreign("has another name, by a hard link")
        starts = (self.read(slot, 2) for slot in range(-(-found.st_size // STRIDE)) if slot not in used)
        if (is_new and found.st_size) or not all(start.startswith((_BODY_START, b"\0")) for start in starts):
            raise self._foreign("holds something else")
        if stat.S_IMODE(found.st_mode) != _PRIVATE and hasattr(os, "fchmod"):
            os.fchmod(self._file, _PRIVATE)

    def _foreign(self, why: str) -> LedgerError:
        return LedgerError(f"{self._path}, the file for the bytes of batches in doubt, {why}: move it away")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def length(self, slot: int) -> int:
        """The number of bytes in the slot that may not be wiped."""
        start = slot * STRIDE
        try:
            end = min(os.lseek(self._file, start, _HOLE), start + STRIDE) if _HOLE else start + STRIDE
        except OSError:  # the slot is beyond the end of the file
            return 0
        return len(self.read(slot, end - start).rstrip(b"\0"))

    def write(self, slot: int, body: bytes, *, stale: int) -> None:
        """Write the body to disk, and wipe what remains of the ``stale`` bytes before it."""
        self._put(slot * STRIDE, body)
        self._put(slot * STRIDE + len(body), bytes(max(stale - len(body), 0)))
        _sync(self._file)

    def read(self, slot: int, size: int) -> bytes:
        """Read the first ``size`` bytes of the slot."""
        os.lseek(self._file, slot * STRIDE, os.SEEK_SET)
        return os.read(self._file, size)

    def wipe(self, slot: int, size: int) -> None:
        """Overwrite the first ``size`` bytes of the slot with zeros."""
        self._put(slot * STRIDE, bytes(size))

    def scrub(self, used: Collection[int]) -> None:
        """Wipe unused slots, where a killed process may have left bytes."""
        os.ftruncate(self._file, (max(used, default=-1) + 1) * STRIDE)
        for slot in range(max(used, default=0)):
            if slot not in used:
                self.wipe(slot, self.length(slot))

    def _put(self, start: int, data: bytes) -> None:
        os.lseek(self._file, start, os.SEEK_SET)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
