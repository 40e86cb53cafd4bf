"""Ways in which the event of a job's end can be odd: harmless, mistaken or forged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

Data = dict[str, object]


class Oddity(StrEnum):
    """What is odd about a ``reward_batch.completed``.

    SPELLING: the identifiers of failures are written in capitals, or with separators and blanks.
    CUT: the list of failures lacks its last one.
    SUM: there is one reward more than the counts allow.
    TOTAL: the job has one guest more than it had.
    MERCHANT: another merchant.
    STRANGER: a guest who is not in the job is named in place of one who failed.
    TWICE: every failure is the first one.
    SWAPPED: a guest with a reward is named in place of one who failed.
    HIDDEN: one failure is told as a reward.
    REASON: another reason.
    FAILED: the state is "failed".
    OLD: made an hour before its time.
    FORGED: signed with another secret.
    """

    SPELLING = "spelling"
    CUT = "cut"
    SUM = "sum"
    TOTAL = "total"
    MERCHANT = "merchant"
    STRANGER = "stranger"
    TWICE = "twice"
    SWAPPED = "swapped"
    HIDDEN = "hidden"
    REASON = "reason"
    FAILED = "failed"
    OLD = "old"
    FORGED = "forged"


def altered(event: Data, oddity: Oddity, guests: Sequence[str]) -> Data:
    """The event made odd. Without failures, some oddities change nothing.

    Args:
        event: an honest event.
        oddity: what to make of it.
        guests: the identifiers of the job.
    """
    data = event["data"]
    assert isinstance(data, dict)  # noqa: S101 - the emulator has made it
    if oddity is Oddity.OLD:
        return event | {"timestamp": _earlier(str(event["timestamp"]))}
    if oddity in _COUNTS:
        return event | {"data": data | _COUNTS[oddity](data)}
    if oddity in _FAILURES and data["failures"]:
        return event | {"data": data | _FAILURES[oddity](data, guests)}
    return event


def _earlier(timestamp: str) -> str:
    moment = datetime.fromisoformat(timestamp) - timedelta(hours=1)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _spelled(identifier: str) -> str:
    if "@" in identifier:
        return f" {identifier.upper()} "
    return f"{identifier[:3]} ({identifier[3:6]}) {identifier[6:]}"


def _named(data: Data, first: str) -> Data:
    """The same failures, the first of another guest."""
    rows = _rows(data)
    return {"failures": [rows[0] | {"user_identifier": first}, *rows[1:]]}


def _swapped(data: Data, guests: Sequence[str]) -> Data:
    failed = {row["user_identifier"] for row in _rows(data)}
    return _named(data, next((guest for guest in guests if guest not in failed), guests[0]))


def _hidden(data: Data, _: Sequence[str]) -> Data:
    failures = _rows(data)[:-1]
    return {"failures": failures, "issued_count": _count(data, "issued") + 1, "failed_count": len(failures)}


def _rows(data: Data) -> list[dict[str, str]]:
    rows = data["failures"]
    assert isinstance(rows, list)  # noqa: S101 - the emulator has made it
    return rows


def _count(data: Data, name: str) -> int:
    return int(str(data[f"{name}_count"]))


_COUNTS: dict[Oddity, Callable[[Data], Data]] = {
    Oddity.SUM: lambda data: {"issued_count": _count(data, "issued") + 1},
    Oddity.TOTAL: lambda data: {
        "total_count": _count(data, "total") + 1,
        "issued_count": _count(data, "issued") + 1,
    },
    Oddity.MERCHANT: lambda _: {"merchant_id": "someoneelse"},
    Oddity.FAILED: lambda _: {"state": "failed"},
}
_FAILURES: dict[Oddity, Callable[[Data, Sequence[str]], Data]] = {
    Oddity.SPELLING: lambda data, _: {
        "failures": [row | {"user_identifier": _spelled(row["user_identifier"])} for row in _rows(data)]
    },
    Oddity.CUT: lambda data, _: {"failures": _rows(data)[:-1]},
    Oddity.STRANGER: lambda data, _: _named(data, "stranger@example.net"),
    Oddity.TWICE: lambda data, _: {"failures": [_rows(data)[0]] * max(2, len(_rows(data)))},
    Oddity.SWAPPED: _swapped,
    Oddity.HIDDEN: _hidden,
    Oddity.REASON: lambda data, _: {"failures": [row | {"reason": "Other"} for row in _rows(data)]},
}
