"""Connections of asyncpg: statements within a transaction, whose errors show no row."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from thanx_async._core.errors import without_frames
from thanx_async._core.postgres_errors import ERRORS, asyncpg

T = TypeVar("T")
Row = Mapping[str, Any]


class Connection:
    """A connection within a transaction. Its errors are those that the database's ``make_error`` makes."""

    __slots__ = ("_explain", "_raw")

    def __init__(self, raw: Any, explain: Callable[[Exception], Exception]) -> None:
        self._raw = raw
        self._explain = explain

    # Plain functions, since the frame of a coroutine would show the arguments in the tracebacks of errors.

    def execute(self, sql: str, *arguments: object) -> Awaitable[str]:
        """Run a statement, or several without arguments. Returns the status, such as ``UPDATE 1``."""
        return self._run(self._raw.execute(sql, *arguments))

    def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> Awaitable[None]:
        """Run a statement for each row of arguments."""
        return self._run(self._raw.executemany(sql, rows))

    def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Awaitable[object]:
        """Append rows to a table of the schema ``thanx``, with COPY."""
        return self._run(
            self._raw.copy_records_to_table(table, schema_name="thanx", columns=columns, records=rows)
        )

    def fetch(self, sql: str, *arguments: object) -> Awaitable[Sequence[Row]]:
        """All rows of a query."""
        return self._run(self._raw.fetch(sql, *arguments))

    def fetchrow(self, sql: str, *arguments: object) -> Awaitable[Row | None]:
        """The first row of a query; None without rows."""
        return self._run(self._raw.fetchrow(sql, *arguments))

    def fetchval(self, sql: str, *arguments: object) -> Awaitable[Any]:
        """The first column of the first row of a query; None without rows."""
        return self._run(self._raw.fetchval(sql, *arguments))

    async def _run(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except ERRORS as error:
            if not isinstance(error, asyncpg.PostgresError):  # a timeout, for example: the server may be busy
                terminate(self._raw)
            raise self._explain(without_row(error)) from error
        except asyncio.CancelledError as error:
            without_frames(error)
            raise


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    def get_reset_query(self) -> str:
        """Nothing: transactions leave nothing behind, and this saves a round trip."""
        return ""


def without_row(error: Exception) -> Exception:
    """The error without frames, and without the row that the server may show with it."""
    if isinstance(error, asyncpg.PostgresError):
        error.detail = None
    return without_frames(error)


async def roll_back(raw: Any) -> None:
    try:
        if in_transaction(raw):
            await raw.execute("ROLLBACK")
    except BaseException as error:
        terminate(raw)
        if not isinstance(error, ERRORS):
            raise


def terminate(raw: Any) -> None:
    with suppress(asyncpg.InterfaceError):  # it is closed already
        raw.terminate()


def in_transaction(raw: Any) -> bool:
    try:
        return bool(raw.is_in_transaction())
    except asyncpg.InterfaceError:  # the connection is closed
        return False
