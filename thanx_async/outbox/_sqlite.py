"""`SQLiteOutbox`, an outbox in a file, for all processes of one machine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Self

from thanx_async._core import checks
from thanx_async._core.errors import LedgerError, LedgerUnavailableError
from thanx_async._core.sqlite import Problem, Trouble, explained
from thanx_async.ledger import MOVED, NewGuest, Put, SQLiteLanes
from thanx_async.models import Environment
from thanx_async.outbox._group_commit import GroupCommit
from thanx_async.outbox._outbox import StoredOutbox, wrong_kind
from thanx_async.outbox._settings import Unset

_PASSING = {Problem.LOCKED, Problem.FULL}
_PUT = "INSERT INTO {}thanx_put (lane, id, digest, value) VALUES (?, ?, ?, ?)"


class SQLiteOutbox(StoredOutbox[SQLiteLanes]):
    """An outbox in a file, for all processes of one machine::

        async with SQLiteOutbox("outbox.sqlite", campaign_id=..., ..., client_id=...) as outbox:
            await outbox.put(guest, id=order_id)

    The methods are those of `Outbox`. The file is a ledger as well: `SQLiteLedger` and the commands of
    ``thanx-async ledger`` open it. Guests wait in the file, which only its owner can read, until their batch
    is cut; deleted values are overwritten.

    ``using`` is a connection of ``sqlite3`` to the same file, which may hold tables of the application's own,
    or to which the file is attached. SQLite commits to several attached files at once only as long as the
    machine keeps its power.

    Args:
        path: the file, which is created if it does not exist.
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
        path: str | os.PathLike[str],
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
        super().__init__(
            SQLiteLanes(path),
            campaign_id=campaign_id,
            merchant_id=merchant_id,
            variant_id=variant_id,
            client_id=client_id,
            environment=environment,
            base_url=base_url,
            keep_ids=keep_ids,
            replay_within=replay_within,
        )
        self.path: Path = self._ledger.path
        self._group = GroupCommit(self._put_all)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._group = GroupCommit(self._put_all)
        return self

    async def _put(self, guest: NewGuest) -> Put:
        return await self._group.put(guest)

    async def _put_all(self, guests: list[NewGuest]) -> list[Put]:
        return await self._ledger.put(self.lane.run.run_id, guests)

    def statement(self, identifier: object, *, id: str) -> tuple[str, tuple[object, ...]]:
        """The SQL statement that puts a guest, and its parameters; see `Outbox.statement`."""
        try:
            guest = self.lane.guests.make(identifier, id)
        finally:
            del identifier  # see `put`
        return _PUT.format(""), self._parameters(guest)

    def _parameters(self, guest: NewGuest) -> tuple[object, ...]:
        return self.lane.number, guest.id, guest.digest, guest.value

    async def _put_using(self, using: object, guests: Sequence[NewGuest]) -> list[Put]:
        if not isinstance(using, sqlite3.Connection):
            raise wrong_kind(using, "a sqlite3.Connection")
        with explained(self._failure):
            schema = self._schema(using)
            return [self._put_one(using, schema, guest) for guest in guests]

    def _schema(self, using: sqlite3.Connection) -> str:
        """The name under which the outbox's file is open, quoted.

        Raises:
            ConfigurationError: it is not.
        """
        own, cursor = self.path.stat(), using.cursor()
        cursor.row_factory = None  # the caller's connection may make dictionaries
        for _, name, path in cursor.execute("PRAGMA database_list").fetchall():
            with suppress(OSError):
                if path and os.path.samestat(own, Path(os.fsdecode(path)).stat()):
                    return '"' + os.fsdecode(name).replace('"', '""') + '".'
        raise checks.wrong("using", f"must be a connection to {self.path}, or have that file attached")

    def _failure(self, trouble: Trouble) -> LedgerError:
        text = f"the guest cannot be put with the caller's connection to {self.path}: {trouble.detail}"
        return LedgerUnavailableError(text) if trouble.problem in _PASSING else LedgerError(text)

    def _put_one(self, using: sqlite3.Connection, schema: str, guest: NewGuest) -> Put:
        before = using.total_changes
        try:
            using.execute(_PUT.format(schema), self._parameters(guest))
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_TRIGGER:
                raise
            if MOVED in str(error):
                raise LedgerError(f"the outbox {self.path}: {error}") from error
            if "revoked" in str(error):
                raise LedgerError("the outbox was revoked: nothing more of it is issued") from None
            return Put.REUSED
        return Put.NEW if using.total_changes > before else Put.KNOWN
