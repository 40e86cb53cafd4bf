"""`PostgresLedger`, a ledger in PostgreSQL, for all processes of many machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import NoReturn, Self

from thanx_async._batches import BatchOutcome, EndedJob, Trust
from thanx_async._core import checks
from thanx_async._core.addresses import ServerAddress
from thanx_async._core.errors import LedgerError, LedgerUnavailableError
from thanx_async._core.escaping import get_logger
from thanx_async._core.messages import Message
from thanx_async._core.postgres import SCHEMES, Database
from thanx_async._core.postgres_connection import Connection
from thanx_async._core.postgres_errors import Problem, Trouble
from thanx_async._core.tasks import Home, to_its_end
from thanx_async.ledger import _postgres_batches as batches
from thanx_async.ledger import _postgres_events as events
from thanx_async.ledger._owner import Owner
from thanx_async.ledger._postgres_guests import cancel_if_revoked, wait_again
from thanx_async.ledger._postgres_history import forget
from thanx_async.ledger._postgres_runs import LEASE, Runs
from thanx_async.ledger._postgres_schema import LEDGER_TABLES
from thanx_async.ledger._postgres_trust import exchange_trust
from thanx_async.ledger._records import BatchRecord, RunProgress, RunRecord
from thanx_async.retry import KEYS_LAST

_log = get_logger("thanx_async.ledger")

_RENEWS_EVERY = LEASE / 3
_TOLD = "WHERE run_id = $1 AND position('\"by_event\":true'::bytea IN outcome) > 0 ORDER BY number"
_FORGETS_EVERY = 3600.0


class PostgresLedger:
    """A ledger in PostgreSQL (14 or newer), for all processes of many machines::

        async with PostgresLedger("postgresql://...") as ledger:
            batcher = AsyncBatcher(client, ..., ledger=ledger)

    Create the tables once with `thanx_async.postgres.init`. A run that a dead process was working on can be
    continued after 30 seconds, and at once on the machine where the process ran, as told by the host name:
    give each container a name of its own, or processes take one another for dead. The request bodies of
    batches in doubt, which name guests, stay in the database until the batch is accepted; dead rows, the log,
    replicas and backups keep copies for a time.

    A ledger belongs to the event loop that opened it. It can be opened again, and ``async with`` blocks can
    be nested. pgbouncer may stand in between, also in transaction mode.

    Args:
        dsn: the address, as ``postgresql://user:password@host:port/database``.
        replay_within, keep_for: as for `SQLiteLedger`.

    Raises:
        ConfigurationError: an argument is invalid.
        LedgerUnavailableError: the server does not answer. Opening and all methods raise it.
        LedgerError: the tables are missing or have another version, or the server refuses the user.
    """

    def __init__(
        self,
        dsn: str,
        *,
        replay_within: float = KEYS_LAST,
        keep_for: float | timedelta = timedelta(days=90),
    ) -> None:
        address = ServerAddress("dsn", dsn, SCHEMES)
        del dsn  # no traceback shows it
        self.label: str = address.label
        self._home = Home("the ledger", "async with PostgresLedger(...) as ledger")
        checks.number("replay_within", replay_within, 0, endless=True)
        seconds = keep_for.total_seconds() if isinstance(keep_for, timedelta) else keep_for
        checks.number("keep_for", seconds, 0, endless=True)
        self.replay_within = replay_within
        self.keep_for = seconds
        self._database = Database(address, LEDGER_TABLES, self._error, what="the ledger")
        self._runs = Runs()
        self._ready = asyncio.Event()
        self._maintenance: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label}{'' if self._home.is_open else ' (not open)'}>"

    def __reduce__(self) -> NoReturn:
        raise checks.unpicklable("a ledger", "give each process its DSN, to open it there")

    async def __aenter__(self) -> Self:
        self._leave_to_parent()
        if not self._home.enter():
            await self._ready.wait()
            return self
        self._ready = asyncio.Event()
        self._runs.give_up(*self._runs.owners)
        self._maintenance = None
        try:
            await self._warn_if_not_durable()
            self._maintenance = asyncio.create_task(self._maintain())
        except BaseException:
            await self.aclose()
            raise
        finally:
            self._ready.set()
        return self

    async def _warn_if_not_durable(self) -> None:
        async with self._database.transaction() as connection:
            settings = ("fsync", "synchronous_commit")
            off = [name for name in settings if await connection.fetchval(f"SHOW {name}") == "off"]
        if off:
            _log.warning(
                "%s is off at %s: what was put or recorded can be lost", " and ".join(off), self.label
            )

    async def _maintain(self) -> None:
        await asyncio.gather(self._renew(), self._forget())

    async def _renew(self) -> None:
        """Renew the leases of claimed runs at intervals."""
        while True:
            await asyncio.sleep(_RENEWS_EVERY)
            try:
                async with self._database.transaction() as connection:
                    await self._runs.renew_all(connection)
            except Exception as error:  # noqa: BLE001 - the next renewal may succeed
                _log.warning("leases of runs were not renewed: %s", error)

    async def _forget(self) -> None:
        """Delete old runs and batches at intervals."""
        while True:
            try:
                await forget(self._database, self.keep_for)
            except LedgerError as error:  # a ledger that keeps too much is better than none
                _log.warning("finished runs were not forgotten: %s", error)
            await asyncio.sleep(_FORGETS_EVERY)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._home.is_open and self._home.leave():
            await self.aclose()

    async def aclose(self) -> None:
        """Close the ledger as the end of the outermost ``async with`` does, and release its runs."""
        self._leave_to_parent()
        lost = self._home.is_lost
        self._home.end()
        if not lost:
            await to_its_end(self._close())

    def _leave_to_parent(self) -> None:
        """In a forked child, leave the runs to the parent, which goes on with them."""
        if self._home.is_forked:
            self._runs = Runs()

    async def _close(self) -> None:
        maintenance, self._maintenance = self._maintenance, None
        if maintenance is not None and maintenance.get_loop() is asyncio.get_running_loop():
            maintenance.cancel()
            await asyncio.wait([maintenance])
        self._runs.give_up(*self._runs.owners)
        try:
            await self._release_given_up()
        except LedgerError as error:
            _log.warning("runs could not be given back: %s", error)
        finally:
            await self._database.aclose()

    @asynccontextmanager
    async def _transaction(self, *, durable: bool = False) -> AsyncIterator[Connection]:
        self._home.check()
        async with self._database.transaction(synchronous_commit="on" if durable else None) as connection:
            yield connection

    async def claim(self, run: RunRecord) -> RunRecord:
        """Claim a run exclusively; see `Ledger.claim`."""
        owner = Owner.new().packed()
        try:
            claimed = await to_its_end(self._claim(run, owner))
        except asyncio.CancelledError:
            if self._runs.owners.get(run.run_id) == owner:
                await self.release(run.run_id)
            raise
        return claimed

    async def _claim(self, run: RunRecord, owner: str) -> RunRecord:
        try:
            async with self._transaction(durable=True) as connection:
                claimed = await self._runs.claim(connection, run, owner)
        except LedgerError as error:
            if error.in_doubt:
                self._runs.given_up[owner] = run.run_id
            raise
        self._runs.owners[run.run_id] = owner
        return claimed

    async def release(self, run_id: str) -> None:
        """Let other processes claim the run."""
        await to_its_end(self._release(run_id))

    async def _release(self, run_id: str) -> None:
        self._home.check()
        self._runs.give_up(run_id)
        await self._release_given_up()

    async def _release_given_up(self) -> None:
        if given_up := list(self._runs.given_up):
            async with self._database.transaction() as connection:
                await self._runs.release(connection, given_up)
            for owner in given_up:
                self._runs.given_up.pop(owner, None)

    async def run(self, run_id: str) -> RunRecord | None:
        """The run with this id, or None."""
        async with self._transaction() as connection:
            return await self._runs.find(connection, run_id)

    async def runs(self) -> list[RunRecord]:
        """All runs, oldest first."""
        async with self._transaction() as connection:
            return await self._runs.all(connection)

    async def progress(self) -> list[RunProgress]:
        """The progress of all runs, oldest first."""
        async with self._transaction() as connection:
            return await self._runs.progress(connection)

    async def batch_of(self, job_id: str) -> BatchRecord | None:
        """The batch that Thanx accepted as this job, or None."""
        async with self._transaction() as connection:
            found = await batches.select(connection, "WHERE job_id = $1", job_id)
        return found[0] if found else None

    async def save_run(self, run: RunRecord) -> None:
        """Record ``total``, ``batches`` and ``revoked_at`` of a run."""
        await to_its_end(self._save_run(run))

    async def _save_run(self, run: RunRecord) -> None:
        async with self._transaction(durable=True) as connection:
            await self._runs.save(connection, run)
            await cancel_if_revoked(connection, run.run_id)

    async def batches(self, run_id: str) -> list[BatchRecord]:
        """The batches of a run, ordered by number."""
        async with self._transaction() as connection:
            return await batches.select(connection, "WHERE run_id = $1 ORDER BY number", run_id)

    async def in_doubt(self) -> list[BatchRecord]:
        """All batches in doubt, of all runs, oldest first."""
        async with self._transaction() as connection:
            return await batches.select(connection, "WHERE state = 'in_doubt' ORDER BY recorded_at")

    async def told_batches(self, run_id: str) -> list[BatchRecord]:
        """The batches of a run whose outcome a webhook told, and no poll has confirmed."""
        async with self._transaction() as connection:
            return await batches.select(connection, _TOLD, run_id)

    async def body(self, run_id: str, number: int) -> bytes:
        """The request body of a batch in doubt."""
        async with self._transaction() as connection:
            return await batches.body(connection, run_id, number)

    async def record(self, batch: BatchRecord, body: bytes) -> BatchRecord:
        """Record a batch before it is sent; see `Ledger.record`."""
        return (await self.record_all([(batch, body)]))[0]

    async def record_all(self, batches: Sequence[tuple[BatchRecord, bytes]]) -> list[BatchRecord]:
        """Record several batches in one transaction; see `Ledger.record_all`."""
        try:
            return await to_its_end(self._record_all(batches))
        except LedgerError as error:
            if error.in_doubt:
                error.idempotency_key = batches[0][0].key
            raise

    async def _record_all(self, new: Sequence[tuple[BatchRecord, bytes]]) -> list[BatchRecord]:
        async with self._transaction(durable=True) as connection:
            for run_id in dict.fromkeys(batch.run_id for batch, _ in new):
                await self._runs.check_own(connection, run_id)
            return [await batches.record(connection, batch, body) for batch, body in new]

    async def accept(self, run_id: str, number: int, job_id: str) -> None:
        """Record that Thanx accepted a batch in doubt as a job."""
        await to_its_end(self._accept(run_id, number, job_id))

    async def _accept(self, run_id: str, number: int, job_id: str) -> None:
        async with self._transaction(durable=True) as connection:
            await batches.accept(connection, run_id, number, job_id)

    async def finish(self, run_id: str, outcomes: Mapping[int, BatchOutcome]) -> None:
        """Record the outcomes of batches, by number."""
        await to_its_end(self._finish(run_id, outcomes))

    async def _finish(self, run_id: str, outcomes: Mapping[int, BatchOutcome]) -> None:
        async with self._transaction() as connection:
            await batches.finish(connection, run_id, outcomes)

    async def withdraw(self, run_id: str, number: int) -> None:
        """Delete a batch in doubt that was certainly not issued; guests of a lane wait again."""
        await to_its_end(self._withdraw(run_id, number))

    async def _withdraw(self, run_id: str, number: int) -> None:
        async with self._transaction() as connection:
            await self._runs.check_own(connection, run_id)
            if taken := await batches.take_out(connection, run_id, number):
                await wait_again(connection, run_id, *taken)

    async def exchange_trust(self, base_url: str, client_id: str, news: Trust) -> Trust:
        """Add what was learned about webhook events; see `TrustLedger.exchange_trust`."""
        return await to_its_end(self._exchange_trust(base_url, client_id, news))

    async def _exchange_trust(self, base_url: str, client_id: str, news: Trust) -> Trust:
        async with self._transaction() as connection:
            return await exchange_trust(connection, base_url, client_id, news)

    async def relay(self, job: EndedJob) -> None:
        """Take in what an event told of a job; see `RelayLedger.relay`."""
        await to_its_end(self._relay(job))

    async def _relay(self, job: EndedJob) -> None:
        async with self._transaction() as connection:
            await events.relay(connection, job)

    async def relayed(self, run_id: str) -> list[EndedJob]:
        """What events told of the jobs of a run; see `RelayLedger.relayed`."""
        async with self._transaction() as connection:
            return await events.relayed(connection, run_id)

    def _error(self, trouble: Trouble) -> LedgerError:
        start = f"the ledger in PostgreSQL at {self.label} cannot be used: {trouble.detail}; "
        text = Message(start, trouble.advice)
        away = trouble.problem in {Problem.AWAY, Problem.CONFLICT}
        error = LedgerUnavailableError(text) if away else LedgerError(text)
        error.in_doubt = trouble.unsure
        return error
