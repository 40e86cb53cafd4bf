"""Records of what the library does, for one hook. They hold counts, times, keys and job ids, but no guest and
no secret.

The hook is called on the event loop, so it must be quick and must not block. An exception that it raises is
logged and otherwise ignored.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Protocol

import attrs

_log = logging.getLogger("thanx_async")


@attrs.frozen
class WaitRecord:
    """A request waited ``seconds`` for the rate limits. ``lane`` is ``issue`` or ``poll``."""

    lane: str
    seconds: float


@attrs.frozen
class RequestRecord:
    """One attempt of a request has ended.

    ``endpoint`` is the path without ids. ``attempt`` counts from 1; a 429 does not count. ``seconds`` is the
    time from sending to the complete answer. ``status`` is None if no answer came. ``error`` is the name of
    the error's class, None for a success.
    """

    method: str
    endpoint: str
    attempt: int
    seconds: float
    status: int | None
    error: str | None
    idempotency_key: str | None


@attrs.frozen
class RetryRecord:
    """A request will be sent again in ``delay`` seconds, after ``attempt`` ended in ``error``."""

    method: str
    endpoint: str
    attempt: int
    delay: float
    error: str
    idempotency_key: str | None


class BatchFate(StrEnum):
    """What has happened to a batch. All members but SENDING are final for one attempt to send it."""

    SENDING = "sending"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    IN_DOUBT = "in_doubt"
    UNSENT = "unsent"


@attrs.frozen
class BatchEvent:
    """A batch of ``count`` guests is about to be sent, or its fate is known.

    ``seconds`` is the time since its oldest guest came in when it is about to be sent, and the time since
    then when its fate is known.
    """

    run_id: str
    number: int
    idempotency_key: str
    count: int
    fate: BatchFate
    seconds: float
    job_id: str | None = None
    error: str | None = None


@attrs.frozen
class JobRecord:
    """A job that a caller waits for is finished.

    ``issued`` and ``failed`` are Thanx's counts. ``seconds`` is the time since this client first saw the job,
    and ``polls`` the number of requests spent on waiting for it.
    """

    job_id: str
    state: str
    total: int
    issued: int
    failed: int
    seconds: float
    polls: int


BatchRecord = BatchEvent
"""The former name of `BatchEvent`."""

Record = WaitRecord | RequestRecord | RetryRecord | BatchEvent | JobRecord


class Hook(Protocol):
    """A callable that gets each record."""

    def __call__(self, record: Record, /) -> None: ...


def log_record(record: Record) -> None:
    """The default hook: logs each record to ``thanx_async``, at levels from DEBUG to WARNING for trouble."""
    match record:
        case WaitRecord(lane, seconds):
            _log.debug("waited %.3f s for the rate limits (%s)", seconds, lane)
        case RequestRecord():
            _log.debug(
                "%s %s, attempt %d: %s after %.3f s",
                record.method,
                record.endpoint,
                record.attempt,
                record.error or record.status,
                record.seconds,
            )
        case RetryRecord(method, endpoint, attempt, delay, error):
            _log.warning(
                "%s %s: attempt %d ended in %s; the next in %.1f s", method, endpoint, attempt, error, delay
            )
        case BatchEvent():
            _log_batch(record)
        case JobRecord():
            level = logging.WARNING if record.state == "failed" else logging.INFO
            _log.log(
                level,
                "job %s is %s after %.1f s and %d polls: %d issued, %d failed",
                record.job_id,
                record.state,
                record.seconds,
                record.polls,
                record.issued,
                record.failed,
            )


def _log_batch(record: BatchEvent) -> None:
    level = {BatchFate.SENDING: logging.DEBUG, BatchFate.ACCEPTED: logging.INFO}
    _log.log(
        level.get(record.fate, logging.WARNING),
        "run %s, batch %d of %d guests, key %s: %s%s",
        record.run_id,
        record.number,
        record.count,
        record.idempotency_key,
        record.fate,
        f" as job {record.job_id}" if record.job_id else f" ({record.error})" if record.error else "",
    )


def emit(hook: Hook, record: Record) -> None:
    """Call the hook. An exception that it raises is logged, and does not affect the request."""
    try:
        hook(record)
    except Exception:  # noqa: BLE001 - the hook is the caller's code
        _log.exception("the hook failed on a %s", type(record).__name__)
