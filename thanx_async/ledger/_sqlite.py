"""`SQLiteLedger`, a ledger in a file, for all processes of one machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, TypeVar

from thanx_async._batches import BatchOutcome, EndedJob, Trust
from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError
from thanx_async._core.escaping import get_logger, printable
from thanx_async._core.tasks import Home, to_its_end
from thanx_async._core.worker import Worker
from thanx_async.ledger._records import BatchRecord, RunProgress, RunRecord
from thanx_async.retry import KEYS_LAST

if TYPE_CHECKING:
    from thanx_async.ledger._sqlite_batches import LedgerFile

T = TypeVar("T")

_log = get_logger("thanx_async.ledger")

_RENEWS_EVERY = 60.0
_TOLD = "AND instr(outcome, CAST('\"by_event\":true' AS BLOB))"
_FORGETS_EVERY = 3600.0
_KEPT_FOR = timedelta(days=90)


class SQLiteLedger:
    """A ledger in a file, for all processes of one machine::

        async with SQLiteLedger("runs.sqlite") as ledger:
            batcher = AsyncBatcher(client, ..., ledger=ledger)

    Only the owner can read the file and the files beside it: ``-wal``, ``-shm``, and ``-bodies`` with the
    request bodies of batches in doubt. The folder must be on a local disk. Containers that share the folder
    need different host names, since the host name identifies their processes.

    A ledger belongs to the event loop that opened it, and has a thread of its own. It can be opened again
    after it or its event loop was closed. ``async with`` blocks can be nested; the outermost one closes the
    ledger.

    Args:
        path: the file, which is created if it does not exist.
        replay_within: seconds after which a batch in doubt is not sent again automatically. A machine's sleep
            counts. Thanx does not publish how long it keeps idempotency keys; repeating a forgotten key would
            issue again.
        keep_for: how long to keep complete runs and finished batches of `AsyncBatcher.add`, in seconds or as
            a `timedelta`; infinity to keep them forever. Unfinished runs are always kept. A deleted run
            cannot be resumed or revoked, and its ``run_id`` cannot be used again, so that no guest is
            rewarded twice.

    Raises:
        LedgerError: the file is locked, damaged, read-only, not a ledger or from a newer version, or the disk
            is full. Opening and all methods raise it. The message says what to do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        replay_within: float = KEYS_LAST,
        keep_for: float | timedelta = _KEPT_FOR,
    ) -> None:
        self._store: LedgerFile | None = None
        self.path: Path = checks.path("path", path)
        checks.number("replay_within", replay_within, 0, endless=True)
        seconds = keep_for.total_seconds() if isinstance(keep_for, timedelta) else keep_for
        checks.number("keep_for", seconds, 0, endless=True)
        self.replay_within = replay_within
        self.keep_for = seconds
        self._worker = Worker("thanx-ledger")
        self._maintenance: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._home = Home("the ledger", "async with SQLiteLedger(...) as ledger")

    def __repr__(self) -> str:
        return f"<SQLiteLedger {printable(str(self.path))}{'' if self._store else ' (not open)'}>"

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
        from thanx_async.ledger._sqlite_batches import LedgerFile  # imports sqlite3

        self._worker = Worker("thanx-ledger")

        def open_file() -> tuple[LedgerFile, bool]:
            store = LedgerFile(self.path, keep_for=self.keep_for)
            return store, store.start_forgetting()

        store, more = await self._worker.do(open_file)
        self._store = store
        self._maintenance = asyncio.create_task(self._maintain(store, more=more))

    async def _maintain(self, store: LedgerFile, *, more: bool) -> None:
        """Renew the leases of claimed runs, and delete old runs and batches, at intervals.

        Args:
            more: whether old runs and batches may be left to delete at once.
        """
        loop = asyncio.get_running_loop()
        forgot_at = loop.time()
        while True:
            while more:
                more = await to_its_end(self._worker.do(store.forget_more))
            await asyncio.sleep(_RENEWS_EVERY)
            try:
                await to_its_end(self._worker.do(store.runs.renew_all))
            except Exception as error:  # noqa: BLE001 - the next renewal may succeed
                _log.warning("leases of runs were not renewed: %s", error)
            if loop.time() - forgot_at >= _FORGETS_EVERY:
                forgot_at = loop.time()
                more = await to_its_end(self._worker.do(store.start_forgetting))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._home.is_open and self._home.leave():
            await self.aclose()

    async def aclose(self) -> None:
        """Close the ledger as the end of the outermost ``async with`` does, and release its runs.

        The call works on any event loop, and the ledger can be opened again.
        """
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
            await self._end_maintenance()
        finally:
            try:
                await self._worker.do(store.close)
            finally:
                self._worker.stop()

    async def _end_maintenance(self) -> None:
        if self._maintenance is None:
            return
        loop = self._maintenance.get_loop()
        if loop is asyncio.get_running_loop():
            self._maintenance.cancel()
            await asyncio.wait([self._maintenance])
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._maintenance.cancel)

    async def claim(self, run: RunRecord) -> RunRecord:
        """Claim a run exclusively; see `Ledger.claim`."""
        claimed: list[RunRecord] = []
        try:
            await self._do(lambda store: claimed.append(store.runs.claim(run)))
        except BaseException:
            if claimed:
                await self.release(run.run_id)
            raise
        return claimed[0]

    async def release(self, run_id: str) -> None:
        """Let other processes claim the run."""
        await self._do(lambda store: store.release(run_id))

    async def run(self, run_id: str) -> RunRecord | None:
        """The run with this id, or None."""
        return await self._do(lambda store: store.runs.find(run_id))

    async def runs(self) -> list[RunRecord]:
        """All runs, oldest first."""
        return await self._do(lambda store: store.runs.all())

    async def progress(self) -> list[RunProgress]:
        """The progress of all runs, oldest first."""
        return await self._do(lambda store: store.history.progress())

    async def batch_of(self, job_id: str) -> BatchRecord | None:
        """The batch that Thanx accepted as this job, or None."""
        return await self._do(lambda store: store.batch_of(job_id))

    async def save_run(self, run: RunRecord) -> None:
        """Record ``total``, ``batches`` and ``revoked_at`` of a run."""
        await self._do(lambda store: store.runs.save(run))

    async def batches(self, run_id: str) -> list[BatchRecord]:
        """The batches of a run, ordered by number."""
        return await self._do(lambda store: store.batches(run_id))

    async def in_doubt(self) -> list[BatchRecord]:
        """All batches in doubt, of all runs, oldest first."""
        return await self._do(lambda store: store.in_doubt())

    async def told_batches(self, run_id: str) -> list[BatchRecord]:
        """The batches of a run whose outcome a webhook told, and no poll has confirmed."""
        return await self._do(lambda store: store.batches(run_id, _TOLD))

    async def body(self, run_id: str, number: int) -> bytes:
        """The request body of a batch in doubt."""
        return await self._do(lambda store: store.body(run_id, number))

    async def record(self, batch: BatchRecord, body: bytes) -> BatchRecord:
        """Record a batch before it is sent; see `Ledger.record`."""
        return (await self.record_all([(batch, body)]))[0]

    async def record_all(self, batches: Sequence[tuple[BatchRecord, bytes]]) -> list[BatchRecord]:
        """Record several batches in one transaction; see `Ledger.record_all`."""
        return await self._do(lambda store: store.record_all(batches))

    async def accept(self, run_id: str, number: int, job_id: str) -> None:
        """Record that Thanx accepted a batch in doubt as a job."""
        await self._do(lambda store: store.accept(run_id, number, job_id))

    async def finish(self, run_id: str, outcomes: Mapping[int, BatchOutcome]) -> None:
        """Record the outcomes of batches, by number."""
        await self._do(lambda store: store.finish(run_id, outcomes))

    async def withdraw(self, run_id: str, number: int) -> None:
        """Delete a batch in doubt that was certainly not issued."""
        await self._do(lambda store: store.withdraw(run_id, number))

    async def exchange_trust(self, base_url: str, client_id: str, news: Trust) -> Trust:
        """Add what was learned about webhook events; see `TrustLedger.exchange_trust`."""
        return await self._do(lambda store: store.trust.exchange(base_url, client_id, news))

    async def relay(self, job: EndedJob) -> None:
        """Take in what an event told of a job; see `RelayLedger.relay`."""
        await self._do(lambda store: store.events.relay(job))

    async def relayed(self, run_id: str) -> list[EndedJob]:
        """What events told of the jobs of a run; see `RelayLedger.relayed`."""
        return await self._do(lambda store: store.events.relayed(run_id))

    async def _do(self, work: Callable[[LedgerFile], T]) -> T:
        self._home.check()
        store = self._store
        if store is None:
            raise ConfigurationError("the ledger is being opened or closed")
        try:
            return await to_its_end(self._worker.do(lambda: work(store)))
        except UnicodeEncodeError:
            raise ConfigurationError("an id has a character that is not valid text") from None
