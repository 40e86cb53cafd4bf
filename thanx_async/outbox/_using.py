"""Statements on connections of the caller's, whatever driver they are of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio.to_thread

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, LedgerError, LedgerUnavailableError, without_frames
from thanx_async._core.postgres_errors import Problem, problem_of
from thanx_async._decoding import masked
from thanx_async.outbox._outbox import wrong_kind

_KINDS = "an open connection of asyncpg or psycopg 3, or an AsyncConnection or AsyncSession of SQLAlchemy"
_LOST = {"OperationalError", "InterfaceError", "InternalClientError", "OSError"}
"""The errors without an SQLSTATE of a connection that is closed or was lost."""

_NO_LANE = "23502"  # the lane was not found, and is NULL
_ABORTED = "25P02"
_LOCKED = "55P03"


async def fetch_value(using: object, sql: str, arguments: Sequence[object]) -> object:
    """Run a query, and return the first column of its first row.

    Args:
        using: the connection.
        sql: the query, with ``$1`` and so on for the arguments.
        arguments: values that each driver can send.

    Raises:
        ConfigurationError: it is not a connection of a known driver, or it leads to another database.
        LedgerError: the query failed. The driver's own error would show the arguments.
    """
    try:
        return await _query_of(using)(using, sql, arguments)
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - each driver has its own
        failure = _failure(error)
    except asyncio.CancelledError as error:
        raise without_frames(error) from None
    finally:
        del arguments
    raise failure


def _query_of(using: object) -> Callable[[Any, str, Sequence[object]], Awaitable[object]]:
    """What runs a query on a connection of this kind, or of a kind that is derived from it."""
    for kind in type(using).__mro__:
        match kind.__module__.partition(".")[0], kind.__name__:
            case "asyncpg", "Connection" | "PoolConnectionProxy":
                return _with_asyncpg
            case "psycopg", "AsyncConnection":
                return _with_psycopg
            case "psycopg", "Connection":
                return _with_blocking_psycopg
            case "sqlalchemy", "AsyncConnection":
                return _with_sqlalchemy
            case "sqlalchemy", "AsyncSession" | "async_scoped_session":
                return _with_session
    raise wrong_kind(using, _KINDS)


async def _with_asyncpg(using: Any, sql: str, arguments: Sequence[object]) -> object:
    value: object = await using.fetchval(sql, *arguments)
    return value


async def _with_psycopg(using: Any, sql: str, arguments: Sequence[object]) -> object:
    from psycopg import AsyncCursor
    from psycopg.rows import tuple_row

    # The cursors and rows that the caller's connection makes may be of other kinds. Nothing is prepared,
    # since pgbouncer may give the next transaction another connection.
    text = _with_percents(sql, len(arguments))
    async with AsyncCursor(using, row_factory=tuple_row) as cursor:
        row = await (await cursor.execute(text, arguments, prepare=False)).fetchone()
    return row[0] if row else None


async def _with_blocking_psycopg(using: Any, sql: str, arguments: Sequence[object]) -> object:
    from psycopg import Cursor
    from psycopg.rows import tuple_row

    def query() -> object:
        with Cursor(using, row_factory=tuple_row) as cursor:
            text = _with_percents(sql, len(arguments))
            row = cursor.execute(text, arguments, prepare=False).fetchone()
        return row[0] if row else None

    return await anyio.to_thread.run_sync(query)  # it waits for the server, and for other transactions


async def _with_session(using: Any, sql: str, arguments: Sequence[object]) -> object:
    return await _with_sqlalchemy(await using.connection(), sql, arguments)


async def _with_sqlalchemy(using: Any, sql: str, arguments: Sequence[object]) -> object:
    from sqlalchemy import text

    if using.dialect.name != "postgresql":
        raise checks.wrong("using", f"must be a connection to PostgreSQL, not to {using.dialect.name}")
    names = {f"a{number}": value for number, value in enumerate(arguments, 1)}
    for number in range(len(arguments), 0, -1):
        sql = sql.replace(f"${number}", f":a{number}")
    value: object = (await using.execute(text(sql), names)).scalar_one()
    return value


def _with_percents(sql: str, count: int) -> str:
    for number in range(count, 0, -1):
        sql = sql.replace(f"${number}", "%s")
    return sql


def _failure(error: Exception) -> LedgerError | ConfigurationError:
    """The error for a driver's, which is not its cause: its frames and its message may hold guests."""
    chain = _chain(error)
    code = next(filter(None, map(_sqlstate, chain)), None)
    problem = problem_of(code) if code else _problem_without_code(chain)
    if code == _NO_LANE or problem is Problem.MISSING:
        return checks.wrong("using", "must be a connection to the outbox's own database")
    passing = problem in {Problem.AWAY, Problem.CONFLICT} or code == _LOCKED
    detail = masked(str(chain[-1]).partition("\n")[0]) or type(chain[-1]).__name__
    advice = "it has failed before: roll it back" if code == _ABORTED else "roll it back"
    text = f"the guest cannot be put in the caller's transaction: {detail}; {advice}"
    failure = LedgerUnavailableError(text) if passing else LedgerError(text)
    failure.sqlstate = code
    failure.in_doubt = problem is Problem.AWAY
    return failure


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and the errors that it wraps."""
    chain = [error]
    while (inner := getattr(chain[-1], "orig", None) or chain[-1].__cause__) and inner not in chain:
        chain.append(inner)
    return chain


def _sqlstate(error: BaseException) -> str | None:
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code if isinstance(code, str) else None


def _problem_without_code(chain: Sequence[BaseException]) -> Problem:
    names = {kind.__name__ for error in chain for kind in type(error).__mro__}
    return Problem.AWAY if names & _LOST else Problem.OTHER
