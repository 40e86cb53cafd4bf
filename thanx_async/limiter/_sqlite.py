"""`SQLiteRateLimiter`, for all processes of one machine, and the store that keeps its state in a file."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from thanx_async._core import checks, sqlite
from thanx_async._core.errors import ConfigurationError
from thanx_async._core.escaping import printable
from thanx_async._core.sqlite import Format, Problem, Trouble, connect, explained, transaction
from thanx_async._core.tasks import to_its_end
from thanx_async._core.worker import Worker
from thanx_async.limiter._limits import THANX_RATE_LIMITS, RateLimit
from thanx_async.limiter._pacing import Pacing
from thanx_async.limiter._protocol import LimiterStatus
from thanx_async.limiter._queue import QueuedLimiter
from thanx_async.limiter._reserve import DEFAULT_RESERVE
from thanx_async.limiter._state import LimiterState
from thanx_async.limiter._store import Clock
from thanx_async.limiter._stored import dump_state, load_state

T = TypeVar("T")

_APPLICATION = 0x74686C72  # "thlr"


def wall_clock() -> float:
    """Seconds since 1970, on the clock that all processes share."""
    return time.time()


class SQLiteStore:
    """A `Store` in one row of a file. A transaction locks the file for well under a millisecond.

    The first transaction opens the file. The garbage collection of the store closes it.
    """

    is_remote = False

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        self.state = LimiterState()
        self._clock = Clock(lambda: wall_clock())
        self._lock = threading.Lock()
        self._in_use = threading.Lock()
        self._process = 0
        self._worker: Worker | None = None
        self._connection: sqlite3.Connection | None = None

    def now(self) -> float:
        """See `Store.now`."""
        self._clock.attach()
        return max(self._clock.time(), self.state.clock)

    def look(self, view: Callable[[LimiterState, float], T]) -> T:
        """See `Store.look`."""
        return view(self.state, self.now())

    async def transact(self, change: Callable[[LimiterState, float], T]) -> T:
        """See `Store.transact`."""
        self._clock.attach()
        return await to_its_end(self._own_worker().do(lambda: self._transact(change)))

    def _own_worker(self) -> Worker:
        """The worker thread of this process. A forked child gets a thread of its own and reopens the file."""
        with self._lock:
            if self._worker is None or self._process != os.getpid():
                sqlite.leave_to_parent(self._connection)
                self._connection = None
                self._in_use = threading.Lock()
                self._process = os.getpid()
                self._worker = Worker("thanx-limiter")
                weakref.finalize(self, self._worker.stop)
            return self._worker

    def _transact(self, change: Callable[[LimiterState, float], T]) -> T:
        with self._in_use, explained(self._error):
            if self._connection is None:
                self._connection = self._open()
            connection = self._connection
            with transaction(connection):
                state = self._loaded(connection.execute("SELECT state FROM limiter").fetchone())
                result = change(state, self._clock.catch_up(state.clock))
                connection.execute("UPDATE limiter SET state = ?", (dump_state(state),))
            self.state = state
            return result

    def _loaded(self, row: tuple[bytes]) -> LimiterState:
        try:
            return load_state(row[0])
        except Exception as error:
            raise self._unusable("its content is damaged", "move it away, and start again") from error

    def _open(self) -> sqlite3.Connection:
        form = Format(_APPLICATION, _MIGRATIONS, durable=False, log_required=False)
        connection = connect(self.path, form, self._error)
        weakref.finalize(self, sqlite.close_idle, connection, self._in_use, os.getpid())
        return connection

    def _error(self, trouble: Trouble) -> ConfigurationError:
        match trouble.problem:
            case Problem.LOCKED:
                why = f"another process has locked it for {sqlite.BUSY:g} s"
                return self._unusable(why, "end that process")
            case Problem.FOREIGN:
                return self._unusable(trouble.detail, "give another path")
            case Problem.NEWER:
                return self._unusable(
                    f"a newer thanx_async wrote it (version {trouble.detail})",
                    "update thanx_async, or give another path",
                )
            case Problem.SYSTEM:
                return self._unusable(trouble.detail, "give a path that can be written")
            case Problem.DAMAGED | Problem.NOT_A_DATABASE:
                return self._unusable(trouble.detail, "move it away, and it is made anew")
        return self._unusable(trouble.detail, "give a file on a local disk that can be written")

    def _unusable(self, why: str, advice: str) -> ConfigurationError:
        return ConfigurationError(
            f"the rate limiter cannot use {self.path}: {why}; {advice}", argument="path"
        )


_MIGRATIONS = (
    f"""
    CREATE TABLE limiter (state BLOB NOT NULL);
    INSERT INTO limiter VALUES (x'{dump_state(LimiterState()).hex()}')
    """,  # noqa: S608 - no input in it
)


class SQLiteRateLimiter(QueuedLimiter):
    """A rate limiter for all processes of one machine that use the same file, across restarts.

    The processes take turns. They share the log of requests, the pauses, and the measurements of the network.
    A request of a killed process counts as answered after 60 seconds. Each process can have limits of its
    own, and applies them to the requests of all processes.

    The first request creates the file, which only its owner can read. `status` shows the last state that this
    process has read; `refresh` reads the file.

    Args:
        path: the file, on a local disk, in an existing directory.
        limits, strict, reserve: as for `LocalRateLimiter`.

    Raises:
        ConfigurationError: an argument is invalid. Requests and `refresh` raise it if the file is damaged,
            cannot be written or belongs to another application; the file is not changed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        limits: Sequence[RateLimit] = THANX_RATE_LIMITS,
        *,
        strict: bool = True,
        reserve: float = DEFAULT_RESERVE,
    ) -> None:
        self.path: Path = checks.path("path", path).absolute()
        super().__init__(Pacing(limits, strict=strict, reserve=reserve), SQLiteStore(self.path))

    def __repr__(self) -> str:
        return f"<SQLiteRateLimiter {printable(str(self.path))}: {self.status()}>"

    async def refresh(self) -> LimiterStatus:
        """Read the file, and return the state of all processes."""
        await self._queues.refresh()
        return self.status()
