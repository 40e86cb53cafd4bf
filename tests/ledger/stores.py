"""The places that ledgers are stored in, one for each backend, and a look behind the ledger's back."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Protocol

from tests.servers import PostgresServer
from thanx_async import SQLiteLedger
from thanx_async.postgres import PostgresLedger

AnyLedger = SQLiteLedger | PostgresLedger


class Place(Protocol):
    """A place for one ledger, which any number of objects may open."""

    def ledger(self, **settings: float) -> AnyLedger:
        """Another ledger here, as if of another process, not opened yet."""

    async def sql(self, statement: str) -> str:
        """The result of a statement, as one line of text. The tables have the same names everywhere."""


class SQLitePlace:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.sqlite"

    def ledger(self, **settings: float) -> AnyLedger:
        return SQLiteLedger(self.path, **settings)

    async def sql(self, statement: str) -> str:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            rows = db.execute(statement.replace("thanx.", "")).fetchall()
        return "|".join(str(value) for row in rows for value in row)


class PostgresPlace:
    def __init__(self, server: PostgresServer, database: str) -> None:
        self._server = server
        self._database = database

    def ledger(self, **settings: float) -> AnyLedger:
        return PostgresLedger(self._server.dsn(self._database), **settings)

    async def sql(self, statement: str) -> str:
        return await asyncio.to_thread(self._server.sql, self._database, statement)
