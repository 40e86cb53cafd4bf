"""Statements on connections of the caller's, whatever driver they are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio.to_thread

from thanx_async._core import checks

_KINDS = "an open connection of asyncpg or psycopg, or an AsyncConnection or AsyncSession of SQLAlchemy"


async def fetch_value(using: Any, sql: str, arguments: Sequence[object]) -> object:
    """Run a query, and return the first column of its first row.

    Args:
        using: the connection.
        sql: the query, with ``$1`` and so on for the arguments.
        arguments: values that each driver can send.

    Raises:
        ConfigurationError: it is a connection of a driver that is not known here.
    """
    match _package(using):
        case "asyncpg":
            return await using.fetchval(sql, *arguments)
        case "psycopg":
            return await _with_psycopg(using, _with_percents(sql, len(arguments)), arguments)
        case "sqlalchemy":
            return await _with_sqlalchemy(using, sql, arguments)
    raise checks.wrong("using", f"must be {_KINDS}, not a {type(using).__name__}")


async def _with_psycopg(using: Any, sql: str, arguments: Sequence[object]) -> object:
    from psycopg.rows import tuple_row

    cursor = using.cursor(row_factory=tuple_row)  # the caller's connection may make dictionaries
    if type(using).__name__.startswith("Async"):
        await cursor.execute(sql, arguments)
        row = await cursor.fetchone()
    else:  # it waits for the server, and for other transactions
        row = await anyio.to_thread.run_sync(lambda: cursor.execute(sql, arguments).fetchone())
    value: object = row[0]
    return value


async def _with_sqlalchemy(using: Any, sql: str, arguments: Sequence[object]) -> object:
    from sqlalchemy import text

    names = {f"a{number}": value for number, value in enumerate(arguments, 1)}
    for number in range(len(arguments), 0, -1):
        sql = sql.replace(f"${number}", f":a{number}")
    value: object = (await using.execute(text(sql), names)).scalar_one()
    return value


def _with_percents(sql: str, count: int) -> str:
    for number in range(count, 0, -1):
        sql = sql.replace(f"${number}", "%s")
    return sql


def _package(using: object) -> str:
    packages = [kind.__module__.partition(".")[0] for kind in type(using).__mro__]
    known = [package for package in packages if package in {"asyncpg", "psycopg", "sqlalchemy"}]
    return known[0] if known else ""


def sqlstate(error: BaseException | None) -> str | None:
    """The SQLSTATE of a driver's error, or of what caused it."""
    while error is not None:
        for source in (error, getattr(error, "orig", None)):
            code = getattr(source, "sqlstate", None) or getattr(source, "pgcode", None)
            if isinstance(code, str):
                return code
        error = error.__cause__
    return None
