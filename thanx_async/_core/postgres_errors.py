"""The problems of PostgreSQL: what an error of the server or of asyncpg means, and what to do."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from enum import Enum, auto

import attrs

from thanx_async._core.addresses import ServerAddress
from thanx_async._core.extras import missing
from thanx_async._core.messages import Message, Name

try:
    import asyncpg as asyncpg  # for `postgres` as well
except ImportError as error:
    raise missing(error, "postgres") from error


class Problem(Enum):
    """Why the database cannot be used."""

    AWAY = auto()
    CONFLICT = auto()
    DENIED = auto()
    MISSING = auto()
    OLDER = auto()
    NEWER = auto()
    OTHER = auto()


@attrs.frozen
class Trouble:
    """A problem with the database.

    Attributes:
        problem: AWAY if the server may answer later, CONFLICT if the transaction can be repeated at once.
        detail: the problem in words, without a password.
        advice: how to fix the problem.
        code: the SQLSTATE; empty if there is none.
        unsure: the transaction may have been committed.
    """

    problem: Problem
    detail: str
    advice: str
    code: str = ""
    unsure: bool = False


ErrorFactory = Callable[[Trouble], Exception]
"""Makes the error that the user gets."""


_ADVICE = {
    Problem.AWAY: "check that the server is running and can be reached",
    Problem.CONFLICT: "try again",
    Problem.DENIED: "check the DSN, and the privileges of its user",
    Problem.MISSING: Message("run `", Name("await thanx_async.postgres.init(dsn)"), "` once"),
    Problem.OLDER: Message("run `", Name("await thanx_async.postgres.migrate(dsn)"), "`"),
    Problem.NEWER: "update thanx_async",
    Problem.OTHER: "see the server's log",
}
_PROBLEMS = {
    "08": Problem.AWAY,
    "25006": Problem.AWAY,  # read only: a standby, until it takes over
    "28": Problem.DENIED,
    "3D": Problem.DENIED,
    "3F": Problem.MISSING,
    "40001": Problem.CONFLICT,
    "40P01": Problem.CONFLICT,
    "42501": Problem.DENIED,
    "42883": Problem.MISSING,
    "42P01": Problem.MISSING,
    "53": Problem.AWAY,
    "57": Problem.AWAY,
}
"""The problem for the start of a SQLSTATE. Source: postgresql.org/docs/current/errcodes-appendix.html."""

ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that broke in the middle of an answer
    OSError,  # TimeoutError is one
    ValueError,
)
"""All errors of asyncpg."""


def trouble(problem: Problem, detail: str, code: str = "") -> Trouble:
    """A problem, with the advice for it."""
    return Trouble(problem, detail, _ADVICE[problem], code)


def problem_of(code: str) -> Problem:
    """What an SQLSTATE means."""
    return next((found for start, found in _PROBLEMS.items() if code.startswith(start)), Problem.OTHER)


def trouble_of(error: Exception, address: ServerAddress, timeout: float) -> Trouble:
    """What an error of asyncpg means; ``timeout`` is the one that may have passed, in seconds."""
    code = getattr(error, "sqlstate", None) or ""
    problem = problem_of(code) if code else _problem_without_code(error)
    return trouble(problem, address.masked(str(error) or f"no answer within {timeout:g} s"), code)


def _problem_without_code(error: Exception) -> Problem:
    match error:
        case ssl.SSLError() | asyncpg.ClientConfigurationError():
            return Problem.DENIED
        case OSError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return Problem.AWAY
    return Problem.OTHER
