"""`PostgresOutbox`, an outbox in PostgreSQL, for all processes of many machines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from thanx_async._core.errors import LedgerError
from thanx_async.ledger import NewGuest, PostgresLanes, Put
from thanx_async.models import Environment
from thanx_async.outbox._outbox import StoredOutbox
from thanx_async.outbox._settings import Unset
from thanx_async.outbox._using import fetch_value

# In another database the lane is NULL, which the function does not take.
_LANE = "(SELECT lane FROM thanx.lanes WHERE run_id = {})"
_PUT = f"SELECT thanx.put({_LANE.format('$1')}, CAST($2 AS uuid), CAST($3 AS bigint), $4)"
_STATEMENT = f"SELECT thanx.put({_LANE.format('%s')}, %s::uuid, %s::bigint, %s)"
_ID_REUSED, _REVOKED = "TX001", "TX002"  # the SQLSTATEs of the function thanx.put


class PostgresOutbox(StoredOutbox[PostgresLanes]):
    """An outbox in PostgreSQL (14 or newer), for all processes of many machines::

        async with PostgresOutbox("postgresql://...", campaign_id=..., ..., client_id=...) as outbox:
            await outbox.put(guest, id=order_id)

    The methods are those of `Outbox`. Create the tables once with `thanx_async.postgres.init`. Guests wait in
    the table ``thanx.waiting`` until their batch is cut; dead rows, the log, replicas and backups keep copies
    for a time.

    ``using`` is an open connection of asyncpg or psycopg 3 (asynchronous or not), or an ``AsyncConnection``
    or ``AsyncSession`` of SQLAlchemy 2, to the same database. A second put of the same id waits until the
    transaction of the first one ends. `statement` has the parameters of psycopg and Django (``%s``).

    A put is durable if the server's ``synchronous_commit`` is on, which is its default. After a failover to
    an asynchronous replica, what the replica had not received is lost.

    Args:
        dsn: the address, as ``postgresql://user:password@host:port/database``.
        campaign_id, merchant_id, variant_id: what to issue.
        client_id: the OAuth client id of the credential that drains the outbox.
        environment: the environment of the credential.
        base_url: overrides the environment.
        keep_ids: for how long ids are remembered after they were put, at least; None for ever. The same id
            after that is a new reward. The process that creates the outbox sets this for all others: 90 days
            by default. Where it is given later, it must be the same; see `Outbox.configure`.
        replay_within: seconds after which a batch in doubt is not sent again by itself; see `SQLiteLedger`.
            Set by the process that creates the outbox as well: 86,400 by default.
    """

    def __init__(
        self,
        dsn: str,
        *,
        campaign_id: str,
        merchant_id: str,
        variant_id: str,
        client_id: str,
        environment: Environment = Environment.SANDBOX,
        base_url: str | None = None,
        keep_ids: timedelta | Unset | None = Unset.UNSET,
        replay_within: float | None = None,
    ) -> None:
        ledger = PostgresLanes(dsn)
        del dsn  # no traceback shows it
        super().__init__(
            ledger,
            campaign_id=campaign_id,
            merchant_id=merchant_id,
            variant_id=variant_id,
            client_id=client_id,
            environment=environment,
            base_url=base_url,
            keep_ids=keep_ids,
            replay_within=replay_within,
        )

    def statement(self, identifier: object, *, id: str) -> tuple[str, tuple[object, ...]]:
        """The SQL statement that puts a guest, and its parameters; see `Outbox.statement`."""
        try:
            guest = self.lane.guests.make(identifier, id)
        finally:
            del identifier  # see `put`
        return _STATEMENT, (self.lane.run.run_id, str(UUID(bytes=guest.id)), guest.digest, guest.value)

    async def _put_using(self, using: object, guests: Sequence[NewGuest]) -> list[Put]:
        puts = [Put.KNOWN] * len(guests)
        # In the order of their ids, against deadlocks with other transactions.
        for index in sorted(range(len(guests)), key=lambda index: guests[index].id):
            puts[index] = await self._put_one(using, guests[index])
            if puts[index] is Put.REUSED:  # the caller's transaction has failed
                break
        return puts

    async def _put_one(self, using: object, guest: NewGuest) -> Put:
        try:
            is_new = await fetch_value(
                using, _PUT, (self.lane.run.run_id, UUID(bytes=guest.id), guest.digest, guest.value)
            )
        except LedgerError as error:
            if error.sqlstate == _ID_REUSED:
                return Put.REUSED
            if error.sqlstate == _REVOKED:
                raise LedgerError("the outbox was revoked: nothing more of it is issued") from None
            raise
        return Put.NEW if is_new else Put.KNOWN
