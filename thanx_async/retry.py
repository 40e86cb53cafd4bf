"""When to send a request again."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from thanx_async._core import checks
from thanx_async._core.errors import InvalidResponseError, ServerError, ThanxError, TransportError

KEYS_LAST = 24 * 3600.0
"""Seconds for which a request may be repeated with its idempotency key. Thanx does not say how long it keeps
keys, and repeating a request with a forgotten key would issue a second reward."""


@attrs.frozen
class RetryPolicy:
    """Exponential backoff with jitter, for transport errors, timeouts and 5xx.

    The wait before attempt ``n + 1`` is drawn from the upper ``jitter`` share of
    ``min(max_delay, base_delay * 2**(n - 1))`` seconds; 1.0 is full jitter, 0.0 is none. After a 429 the
    request waits in the rate limiter instead, which does not count as an attempt.
    """

    max_attempts: int = 5
    base_delay: float = 0.5
    max_delay: float = 30.0
    jitter: float = 1.0

    def __attrs_post_init__(self) -> None:
        checks.number("RetryPolicy.max_attempts", self.max_attempts, 1, whole=True)
        checks.number("RetryPolicy.max_delay", self.max_delay, 0, endless=True)
        checks.number("RetryPolicy.base_delay", self.base_delay, 0, self.max_delay)
        checks.number("RetryPolicy.jitter", self.jitter, 0, 1)

    def delay(
        self, attempt: int, error: ThanxError, *, draw: Callable[[], float] = random.random
    ) -> float | None:
        """Seconds to wait after ``attempt`` (counted from 1) ended in ``error``, or None to give up."""
        if attempt >= self.max_attempts or not _may_pass(error):
            return None
        longest = min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 60))
        return longest * (1 - self.jitter * draw())


def _may_pass(error: ThanxError) -> bool:
    if isinstance(error, InvalidResponseError):
        return not 300 <= error.status < 500
    return isinstance(error, TransportError | ServerError)
