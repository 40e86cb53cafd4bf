"""The command that shows what is used of the rate limits, and when it comes back."""

from __future__ import annotations

from typing import Annotated

import attrs
import orjson
from cyclopts import Parameter

from thanx_async.cli._client import limiter_of
from thanx_async.cli._options import Flag, LedgerName
from thanx_async.cli._output import write
from thanx_async.cli._status import ISSUED
from thanx_async.cli._store import credential
from thanx_async.limiter import LimiterStatus, WindowStatus, wall_time

_Store = Annotated[LedgerName | None, Parameter(env_var="THANX_STORE")]


async def limits(*, store: _Store = None, json: Flag = False) -> int:
    """
    Parameters
    ----------
    store:
        postgresql://... of the database whose users share the limits; by default THANX_STORE. Without a
        database, the limits that this user's runs share.
    json:
        Print JSON.
    """
    async with limiter_of(*credential(), store) as limiter:
        status = limiter.status()
    if json:
        write(orjson.dumps(attrs.asdict(status)).decode())
    else:
        _show(status)
    return ISSUED


def _show(status: LimiterStatus) -> None:
    for window in status.windows:
        write(_line(window))
    if status.held_for:
        write(f"Requests wait until {_clock(status.held_for)} for {status.reason}")
    if status.bulk_held_for > status.held_for:
        write(f"Bulk requests wait until {_clock(status.bulk_held_for)} for {status.bulk_reason}")
    if status.refused:
        write(f"{status.refused:,} refused")


def _line(window: WindowStatus) -> str:
    text = f"{window.limit}: {window.used:,} used, {window.free:,} free"
    if window.reserved:
        text += f", {window.reserved:,} reserved"
    if window.returns:
        (first, _), (last, _) = window.returns[0], window.returns[-1]
        text += f"; the next is back at {_clock(first)}, all at {_clock(last)}"
    return text


def _clock(seconds: float) -> str:
    """The local time in so many seconds."""
    return f"{wall_time(seconds).astimezone():%H:%M:%S}"
