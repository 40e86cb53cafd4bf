"""Records of what the library does, for one hook. They hold counts, times, keys and job ids, but no guest and
no secret.

The hook is called on the event loop, so it must be quick and must not block. An exception that it raises is
logged and otherwise ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from inspect import isawaitable, iscoroutine
from typing import Protocol, runtime_checkable

import attrs

_log = logging.getLogger("thanx_async")

_WARNED_FROM = 0.9


@attrs.frozen
class WaitRecord:
    """A request waited ``seconds`` for the rate limits.

    ``lane`` is ``interactive``, ``issue`` (for runs) or ``poll``.
    """

    lane: str
    seconds: float


@attrs.frozen
class RequestRecord:
    """One attempt of a request has ended.

    ``endpoint`` is the path without ids. ``attempt`` counts from 1; a 429 does not count. ``seconds`` is the
    time from sending to the complete answer. ``status`` is None if no answer came. ``error`` is the name of
    the class of whatever ended the attempt, None for a success.

    ``url`` is the complete URL, with the ids of campaigns, jobs and the merchant. ``resend_count`` is how
    often the request had been sent before, including attempts that ended in a 429. ``request_id`` is the
    answer's ``X-Request-Id``, and ``retry_after`` the wait that it asks for, in seconds; each is None if the
    answer has none.
    """

    method: str
    endpoint: str
    attempt: int
    seconds: float
    status: int | None
    error: str | None
    idempotency_key: str | None
    url: str = ""
    resend_count: int = 0
    request_id: str | None = None
    retry_after: float | None = None


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
    """What has happened to a batch. All members but SENDING are final for one attempt to send it.

    SPLIT: Thanx refused the batch because of one guest's value, so its halves are sent as new batches.
    """

    SENDING = "sending"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    SPLIT = "split"
    IN_DOUBT = "in_doubt"
    UNSENT = "unsent"


@attrs.frozen
class BatchEvent:
    """A batch of ``count`` guests is about to be sent, or its fate is known.

    ``seconds`` is the time since its oldest guest came in when it is about to be sent, and the time since
    then when its fate is known. ``was_in_doubt`` is True if the batch was in doubt before it was sent this
    time. ``callers`` is what a `CallerHook` has noted of the callers of `AsyncBatcher.add`.
    """

    run_id: str
    number: int
    idempotency_key: str
    count: int
    fate: BatchFate
    seconds: float
    job_id: str | None = None
    error: str | None = None
    was_in_doubt: bool = False
    callers: tuple[object, ...] = ()


@attrs.frozen
class JobRecord:
    """A job that is waited for is finished: by a caller, or by ``AsyncBatcher(..., follow_outcomes=True)``.

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


@attrs.frozen
class LimitRecord:
    """Most of a rate limit is spent: ``used`` of ``requests`` in ``seconds`` seconds.

    It comes when ``level``, a share of 0.8 or 0.95, is reached, of all limits but the one with the shortest
    window. It comes again only after the use has fallen below the level.
    """

    requests: int
    seconds: float
    used: int
    level: float


BatchRecord = BatchEvent
"""The former name of `BatchEvent`."""

Record = WaitRecord | RequestRecord | RetryRecord | BatchEvent | JobRecord | LimitRecord


class Hook(Protocol):
    """A callable that gets each record. An async one is refused, since nobody would await it."""

    def __call__(self, record: Record, /) -> None: ...


@runtime_checkable
class CallerHook(Hook, Protocol):
    """A hook that also notes who calls `AsyncBatcher.add`, such as the caller's span.

    ``caller`` is called in the context of each caller. What it returns, unless it is None, is in
    ``BatchEvent.callers`` of the batch that the guest is sent in.
    """

    def caller(self) -> object | None: ...


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
        case LimitRecord(requests, seconds, used, level):
            most = logging.WARNING if level > _WARNED_FROM else logging.INFO
            _log.log(most, "%d of %d requests in %g s are used", used, requests, seconds)
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
    level = {
        BatchFate.SENDING: logging.DEBUG,
        BatchFate.ACCEPTED: logging.INFO,
        BatchFate.SPLIT: logging.INFO,
    }
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
        refuse_awaitable("hook", hook(record))  # type: ignore[func-returns-value]  # of a lambda's type
    except Exception:  # noqa: BLE001 - the hook is the caller's code
        _log.exception("the hook failed on a %s", type(record).__name__)


def refuse_awaitable(name: str, result: object) -> None:
    """Log that a callback has returned an awaitable, which nobody awaits.

    Args:
        name: the argument that the callback was given for.
        result: what the callback has returned.
    """
    if isawaitable(result):
        _log.error("%s must be a plain function: it returned an awaitable, which is not awaited", name)
    if iscoroutine(result):
        result.close()  # otherwise Python warns of it as well


def noting_callers(hook: Hook) -> Callable[[], object | None] | None:
    """What notes the caller of `AsyncBatcher.add`; None for a hook that does not ask for it."""
    if not isinstance(hook, CallerHook):
        return None

    def caller() -> object | None:
        try:
            return hook.caller()
        except Exception:  # noqa: BLE001 - the hook is the caller's code
            _log.exception("the hook failed to note a caller")
            return None

    return caller
