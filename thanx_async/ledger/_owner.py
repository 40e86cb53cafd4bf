"""The owner of a run's lease: a claim of one process, and whether that process is still alive."""

from __future__ import annotations

import os
import socket
from uuid import uuid4

import attrs

_PROCESS = uuid4().hex


@attrs.frozen
class Owner:
    """One claim of one process. ``process`` distinguishes processes that reuse a process id."""

    host: str
    pid: int
    process: str
    claim: str

    @classmethod
    def new(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), _PROCESS, uuid4().hex)

    @classmethod
    def unpacked(cls, text: str) -> Owner:
        host, pid, process, claim = text.rsplit(" ", 3)
        return cls(host, int(pid), process, claim)

    def packed(self) -> str:
        return f"{self.host} {self.pid} {self.process} {self.claim}"

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
