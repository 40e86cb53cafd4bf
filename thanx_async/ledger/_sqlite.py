"""The ledger in a file, for any number of processes of one machine."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, TypeVar

from thanx_async._batches import BatchOutcome
from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError
from thanx_async._core.tasks import Home, to_its_end
from thanx_async._core.worker import Worker
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

    It belongs to the event loop on which it was opened, and works on a thread of its own. It can be opened
    again after it was closed, or after its loop was; blocks may be nested, and the outermost closes it.

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
        self._worker = Worker("thanx-ledger")
        self._beat: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._home = Home("the ledger", "async with SQLiteLedger(...) as ledger")

    def __repr__(self) -> str:
        return f"<SQLiteLedger {self.path}{'' if self._store else ' (not open)'}>"

    def __reduce__(self) -> NoReturn:
        raise checks.unpicklable("a ledger", "give each process its path, to open it there")

    async def __aenter__(self) -> Self:
        lost, forked = self._home.is_lost, self._home.is_forked
        if not self._home.enter():
            await self._ready.wait()
            return self
        self._ready = asyncio.Event()
        try:
            if lost:
                await self._drop(forked=forked)
            await to_its_end(self._open())
        except BaseException:
            await self.aclose()
            raise
        finally:
            self._ready.set()
        return self

    async def _open(self) -> None:
        from thanx_async.ledger._sqlite_batches import LedgerFile  # who has no ledger has no use for sqlite3

        self._worker = Worker("thanx-ledger")
        self._store = await self._worker.do(lambda: LedgerFile(self.path))
        self._beat = asyncio.create_task(self._renew(self._store))

    async def _renew(self, store: LedgerFile) -> None:
        """Keep the leases of the claimed runs, however long a batch waits to be sent."""
        while True:
            await asyncio.sleep(_BEAT)
            try:
                await to_its_end(self._worker.do(store.runs.renew_all))
            except Exception as error:  # noqa: BLE001 - the next one may succeed
                _log.warning("leases of runs were not renewed: %s", error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._home.is_open and self._home.leave():
            await self.aclose()

    async def aclose(self) -> None:
        """Close it, as the end of the outermost ``async with`` does, from whatever loop; it can be opened
        again. Runs that it has claimed are given back."""
        forked = self._home.is_forked
        self._home.end()
        await self._drop(forked=forked)

    async def _drop(self, *, forked: bool) -> None:
        store, self._store = self._store, None
        if store is not None and not forked:
            await to_its_end(self._close(store))
        elif store is not None:
            store.leave_to_parent()
        else:
            self._worker.stop()

    async def _close(self, store: LedgerFile) -> None:
        try:
            await self._end_beat()
        finally:
            try:
                await self._worker.do(store.close)
            finally:
                self._worker.stop()

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

    async def _do(self, work: Callable[[LedgerFile], T]) -> T:
        self._home.check()
        store = self._store
        if store is None:
            raise ConfigurationError("the ledger is being opened or closed")
        return await to_its_end(self._worker.do(lambda: work(store)))
