"""The types of options, and the library's messages with the names that users type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter, Token

from thanx_async._core.messages import Message

_TYPED = {
    "access_token": "THANX_ACCESS_TOKEN",
    "await thanx_async.postgres.init(dsn)": "thanx-async outbox init",
    "await thanx_async.postgres.migrate(dsn)": "thanx-async outbox migrate",
    "base_url": "THANX_BASE_URL",
    "batch_size": "--batch-size",
    "campaign_id": "--campaign",
    "client_id": "THANX_CLIENT_ID",
    "country": "--country",
    "Guard.canary": "--canary",
    "Guard.max_failure_rate": "--max-failure-rate",
    "Guard.max_rewards": "--max-rewards",
    "limit": "--limit",
    "linger": "--linger",
    "max_failure_rate": "--max-failure-rate",
    "max_rewards": "--max-rewards",
    "merchant_id": "--merchant",
    "run_id": "--run-id",
    "user_agent": "THANX_USER_AGENT",
    "variant_id": "--variant",
}

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def as_typed(error: BaseException) -> str:
    """The error's message, with options and environment variables in place of the library's arguments."""
    message = error.args[0] if error.args else None
    return message.renamed(_TYPED) if isinstance(message, Message) else str(error)


def _whole(_: object, tokens: Sequence[Token]) -> int:
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


@attrs.frozen
class Dsn:
    """The address of a PostgreSQL database, which may hold a password."""

    url: str = attrs.field(repr=False)

    def __str__(self) -> str:
        return "the database"


def place(text: str) -> Path | Dsn:
    """A file, or a database if the text begins like the address of one."""
    if not text:
        raise ValueError("the name is empty")
    if text.startswith(("postgresql://", "postgres://")):
        return Dsn(text)
    if address := _ADDRESS.match(text):  # the rest may hold a password
        raise ValueError(f"it begins with {address[0]}; give postgresql://..., or a file")
    return Path(text)


def _place(_: object, tokens: Sequence[Token]) -> Path | Dsn:
    return place(tokens[0].value)


def _file(_: object, tokens: Sequence[Token]) -> Path:
    if not tokens[0].value:
        raise ValueError("the name is empty")
    return Path(tokens[0].value)


Flag = Annotated[bool, Parameter(negative=())]
Whole = Annotated[int, Parameter(converter=_whole)]
LedgerName = Annotated[Path | Dsn, Parameter(converter=_place, accepts_keys=False)]
FileName = Annotated[Path, Parameter(converter=_file)]
