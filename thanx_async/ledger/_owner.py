"""`Owner`, which identifies the process that holds the lease of a run, and tells whether it has ended."""

from __future__ import annotations

import os
import socket
from uuid import uuid4

import attrs

_PROCESS = uuid4().hex


@attrs.frozen
class Owner:
    """One claim of a run by one process. ``process`` distinguishes processes with the same process id."""

    host: str
    pid: int
    process: str
    claim: str

    @classmethod
    def new(cls) -> Owner:
        """A new claim of this process."""
        return cls(socket.gethostname(), os.getpid(), _PROCESS, uuid4().hex)

    @classmethod
    def unpacked(cls, text: str) -> Owner:
        """The owner from the text of `packed`."""
        host, pid, process, claim = text.rsplit(" ", 3)
        return cls(host, int(pid), process, claim)

    def packed(self) -> str:
        """The owner as one line of text."""
        return f"{self.host} {self.pid} {self.process} {self.claim}"

    @classmethod
    def living(cls, text: str | None) -> str | None:
        """The owner in words, from the text of `packed`; None if the process has certainly ended."""
        owner = None if text is None else cls.unpacked(text)
        return None if owner is None or owner.is_certainly_dead() else str(owner)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}{' (this process)' if self.is_this_process else ''}"

    @property
    def is_this_process(self) -> bool:
        """Whether the claim is one of this process itself."""
        return (self.process, self.pid) == (_PROCESS, os.getpid())

    def is_certainly_dead(self) -> bool:
        """Whether the owner was a process of this machine that has ended."""
        if self.host != socket.gethostname() or os.name != "posix":
            return False
        if self.pid == os.getpid():
            return self.process != _PROCESS
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
