"""When to send a request again."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

from thanx_async.errors import (
    ConfigurationError,
    InvalidResponseError,
    ServerError,
    ThanxError,
    TransportError,
)

KEYS_LAST = 24 * 3600.0
"""Seconds for which a request may be repeated with its idempotency key: Thanx does not say how long it keeps
them, and a forgotten one would give a second reward."""


@attrs.frozen
class RetryPolicy:
    """Exponential backoff with jitter, for transport errors, timeouts and 5xx.

    The wait before attempt ``n + 1`` is drawn from the upper ``jitter`` share of
    ``min(max_delay, base_delay * 2**(n - 1))`` seconds; 1.0 is full jitter, 0.0 none. A 429 waits in the
    rate limiter instead and is no attempt.
    """

    max_attempts: int = 5
    base_delay: float = 0.5
    max_delay: float = 30.0
    jitter: float = 1.0

    def __attrs_post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigurationError(f"max_attempts must be at least 1, not {self.max_attempts}")
        if not 0 <= self.base_delay <= self.max_delay:
            raise ConfigurationError(
                f"base_delay must be between 0 and max_delay ({self.max_delay} s), not {self.base_delay}"
            )
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"jitter must be between 0 and 1, not {self.jitter}")

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
