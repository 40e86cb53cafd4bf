"""The ledger in a file, for any number of processes of one machine."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter

from thanx_async._batches import BatchOutcome
from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError
from thanx_async._core.tasks import to_its_end
from thanx_async.ledger._records import BatchRecord, RunRecord
from thanx_async.retry import KEYS_LAST

if TYPE_CHECKING:
    from thanx_async.ledger._sqlite_batches import LedgerFile

T = TypeVar("T")

_log = logging.getLogger("thanx_async.ledger")

_BEAT = 60.0


class SQLiteLedger:
    """A ledger in a file, for any number of processes of one machine::

        async with SQLiteLedger("runs.sqlite") as ledger:
            batcher = AsyncBatcher(client, ..., ledger=ledger)

    The file and those beside it (``-wal``, ``-shm``, and ``-bodies`` with the bytes of batches in doubt)
    can be read by their owner only. The folder must be on a local disk. Containers that share it need
    different host names, by which processes are told apart.

    Args:
        path: the file; it is made if it does not exist.
        replay_within: seconds after which a batch in doubt is not sent again by itself. Thanx keeps
            idempotency keys for a time that it does not publish; a key that it has forgotten would
            issue twice.

    Raises:
        LedgerError: on entering and in all methods: the file is locked, damaged, not a ledger, from a
            newer version or read-only, or the disk is full; the message says what to do.
    """

    def __init__(self, path: str | os.PathLike[str], *, replay_within: float = KEYS_LAST) -> None:
        checks.number("replay_within", replay_within, 0, endless=True)
        self.path = checks.path("path", path)
        self.replay_within = replay_within
        self._store: LedgerFile | None = None
        self._turn: CapacityLimiter | None = None
        self._beat: asyncio.Task[None] | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<SQLiteLedger {self.path}{'' if self._store else ' (not open)'}>"

    async def __aenter__(self) -> Self:
        self._turn = CapacityLimiter(1)
        try:
            await to_its_end(self._open())
        except BaseException:
            if self._store:
                await self.__aexit__(None, None, None)
            raise
        return self

    async def _open(self) -> None:
        from thanx_async.ledger._sqlite_batches import LedgerFile  # who has no ledger has no use for sqlite3

        self._store = await self._in_turn(lambda: LedgerFile(self.path))
        self._beat = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Keep the leases of the claimed runs, however long a batch waits to be sent."""
        while True:
            await asyncio.sleep(_BEAT)
            try:
                await self._do(lambda store: store.runs.renew_all())
            except Exception as error:  # noqa: BLE001 - the next one may succeed
                _log.warning("leases of runs were not renewed: %s", error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        store, self._store = self._opened, None
        await to_its_end(self._close(store))

    async def _close(self, store: LedgerFile) -> None:
        try:
            await self._end_beat()
        finally:
            await self._in_turn(store.close)

    async def _end_beat(self) -> None:
        if self._beat is None:
            return
        home = self._beat.get_loop()
        if home is asyncio.get_running_loop():
            self._beat.cancel()
            await asyncio.wait([self._beat])
        elif not home.is_closed():
            home.call_soon_threadsafe(self._beat.cancel)

    async def claim(self, run: RunRecord) -> RunRecord:
        claimed: list[RunRecord] = []
        try:
            await self._do(lambda store: claimed.append(store.runs.claim(run)))
        except BaseException:
            if claimed:
                await self.release(run.run_id)
            raise
        return claimed[0]

    async def release(self, run_id: str) -> None:
        await self._do(lambda store: store.release(run_id))

    async def run(self, run_id: str) -> RunRecord | None:
        return await self._do(lambda store: store.runs.find(run_id))

    async def runs(self) -> list[RunRecord]:
        return await self._do(lambda store: store.runs.all())

    async def save_run(self, run: RunRecord) -> None:
        await self._do(lambda store: store.runs.save(run))

    async def batches(self, run_id: str) -> list[BatchRecord]:
        return await self._do(lambda store: store.batches(run_id))

    async def in_doubt(self) -> list[BatchRecord]:
        return await self._do(lambda store: store.in_doubt())

    async def body(self, run_id: str, number: int) -> bytes:
        return await self._do(lambda store: store.body(run_id, number))

    async def record(self, batch: BatchRecord, body: bytes) -> BatchRecord:
        return await self._do(lambda store: store.record(batch, body))

    async def accept(self, run_id: str, number: int, job_id: str) -> None:
        await self._do(lambda store: store.accept(run_id, number, job_id))

    async def finish(self, run_id: str, outcomes: Mapping[int, BatchOutcome]) -> None:
        await self._do(lambda store: store.finish(run_id, outcomes))

    async def withdraw(self, run_id: str, number: int) -> None:
        await self._do(lambda store: store.withdraw(run_id, number))

    @property
    def _opened(self) -> LedgerFile:
        if self._store is None:
            raise ConfigurationError("the ledger is not open: use it as `async with SQLiteLedger(...)`")
        return self._store

    async def _do(self, work: Callable[[LedgerFile], T]) -> T:
        store = self._opened
        return await to_its_end(self._in_turn(lambda: work(store)))

    async def _in_turn(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(self._alone, work, limiter=self._turn)

    def _alone(self, work: Callable[[], T]) -> T:
        # Who cancels all tasks of the loop ends the waiting for a thread, and not the thread.
        with self._lock:
            return work()
