"""Decisions of micro-batching that need no state: how fast, whose fault a refusal is, what to raise."""

from __future__ import annotations

from thanx_async._core.errors import BadRequestError, ThanxError
from thanx_async._entry import Entry
from thanx_async._waiting import Answer
from thanx_async.limiter import LimiterStatus

_LASTING = 2 / 3
_LONGEST_PACE = 2.0
_ONE_GUEST = frozenset({"USER_EMAIL_INVALID", "USER_PHONE_INVALID"})


def pace(status: LimiterStatus) -> float:
    """Seconds from one batch to the next while guests come steadily: the free part of the longer limits
    should last two thirds of their time, since a service that spends it at once then stands still."""
    shortest = min((window.limit.seconds for window in status.windows), default=0.0)
    paces = [
        window.limit.seconds * _LASTING / max(1, window.free)
        for window in status.windows
        if window.limit.seconds > shortest
    ]
    return min(_LONGEST_PACE, max(paces, default=0.0))


def blames_one_guest(answer: Answer) -> bool:
    return isinstance(answer, BadRequestError) and answer.code in _ONE_GUEST and not answer.in_doubt


def as_thanx(error: Exception, entry: Entry | None) -> ThanxError:
    if isinstance(error, ThanxError):
        wrapped = error
    else:
        wrapped = ThanxError(f"the batch could not be sent ({type(error).__name__})")
        wrapped.__cause__ = error
    if entry is not None and entry.delivery.in_doubt:
        wrapped.in_doubt, wrapped.idempotency_key = True, entry.key
    return wrapped
