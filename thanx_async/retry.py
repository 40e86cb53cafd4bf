"""What each answer means for a request: the error, whether it is in doubt, and whether it is sent again.

An Issue Rewards request that was sent is in doubt until an answer proves that nothing was issued, and what
is in doubt is sent again with the same idempotency key and the same bytes. Doubt of an earlier attempt
outlasts every answer but a success.

    ==============================  =========================  =========  ===========
    answer                          error                      in doubt?  sent again?
    ==============================  =========================  =========  ===========
    none: it could not be sent      `ConfigurationError`       no         no
    none: no connection was made    `ConnectionFailedError`    no         yes
    none: broken off                `ConnectionFailedError`    yes        yes
    none within the timeout         `RequestTimeoutError`      yes        yes
    2xx, not as documented          `InvalidResponseError`     yes        yes
    3xx                             `InvalidResponseError`     yes        no
    400                             `BadRequestError`          no         no
    401                             `AuthenticationError`      no         no
    403                             `PermissionDeniedError`    no         no
    404                             `NotFoundError`            no         no
    408, 409, 421, 425, 499         `APIError`                 yes        yes
    413, 415                        `APIError`                 no         no
    422                             `UnprocessableError`       no         no
    429                             `RateLimitedError`         no         yes
    any other 4xx                   `APIError`                 yes        no
    5xx                             `ServerError`              yes        yes
    ==============================  =========================  =========  ===========

A 422 that says that the idempotency key was used for other guests (`IdempotencyConflictError`) leaves the
request in doubt: its guests may have had a reward under that key.

Requests that only look (GET) are never in doubt. Those that change something and have no idempotency key are
sent again only if they are not in doubt.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf

import attrs

from thanx_async._core import checks
from thanx_async._core.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    ThanxError,
    TransportError,
    UnprocessableError,
)

KEYS_LAST = 24 * 3600.0
"""Seconds for which a request may be repeated with its idempotency key. Thanx does not say how long it keeps
keys, and repeating a request with a forgotten key would issue a second reward."""


@attrs.frozen
class Meaning:
    """What an HTTP status of 400 or more means."""

    error: type[APIError]
    in_doubt: bool
    sent_again: bool


_UNKNOWN = Meaning(APIError, in_doubt=True, sent_again=False)
_PASSING = Meaning(APIError, in_doubt=True, sent_again=True)
_BROKEN = Meaning(ServerError, in_doubt=True, sent_again=True)
_MEANINGS = {
    400: Meaning(BadRequestError, in_doubt=False, sent_again=False),
    401: Meaning(AuthenticationError, in_doubt=False, sent_again=False),
    403: Meaning(PermissionDeniedError, in_doubt=False, sent_again=False),
    404: Meaning(NotFoundError, in_doubt=False, sent_again=False),
    408: _PASSING,
    409: _PASSING,
    413: Meaning(APIError, in_doubt=False, sent_again=False),
    415: Meaning(APIError, in_doubt=False, sent_again=False),
    421: _PASSING,
    422: Meaning(UnprocessableError, in_doubt=False, sent_again=False),
    425: _PASSING,
    429: Meaning(RateLimitedError, in_doubt=False, sent_again=True),
    499: _PASSING,
}


def meaning_of(status: int) -> Meaning:
    """What an answer with an HTTP status of 400 or more means."""
    return _MEANINGS.get(status, _BROKEN if status >= 500 else _UNKNOWN)


@attrs.frozen
class RetryPolicy:
    """Exponential backoff with jitter, for as long as patience lasts.

    The wait before attempt ``n + 1`` is drawn from the upper ``jitter`` share of
    ``min(max_delay, base_delay * 2**(n - 1))`` seconds; 1.0 is full jitter, 0.0 is none. A longer
    ``Retry-After`` of the answer is honored. After a 429 the request waits in the rate limiter instead, which
    does not count as an attempt.

    The policy does not bound the pauses of the rate limiter, where each attempt waits for its turn. In an
    outage the limiter pauses all requests, for up to 30 s at a time, or for the ``Retry-After`` of a 5xx, up
    to 5 minutes. After a 429 it pauses them for up to a minute, or for the ``Retry-After``, up to an hour.

    Args:
        max_attempts: how often a request is sent at most; None for as often as patience allows.
        base_delay, max_delay: seconds, of the first and of the longest wait.
        jitter: from 0 to 1.
        patience: seconds from the end of the first attempt that failed. An attempt that fails after that is
            the last one; it may begin later, by a pause of the rate limiter. Infinite for as long as it
            takes.
    """

    max_attempts: int | None = None
    base_delay: float = 0.5
    max_delay: float = 30.0
    jitter: float = 1.0
    patience: float = 300.0

    def __attrs_post_init__(self) -> None:
        if self.max_attempts is not None:
            checks.number("RetryPolicy.max_attempts", self.max_attempts, 1, whole=True)
        checks.number("RetryPolicy.max_delay", self.max_delay, 0, endless=True)
        checks.number("RetryPolicy.base_delay", self.base_delay, 0, self.max_delay)
        checks.number("RetryPolicy.jitter", self.jitter, 0, 1)
        checks.number("RetryPolicy.patience", self.patience, 0, endless=True)

    def delay(
        self,
        attempt: int,
        error: ThanxError,
        *,
        since: float = 0.0,
        draw: Callable[[], float] = random.random,
    ) -> float | None:
        """Seconds to wait after an attempt ended in an error, or None to give up.

        Args:
            attempt: its number, from 1.
            since: seconds since the first attempt failed.
            draw: from 0 to 1.
        """
        if attempt >= (self.max_attempts or inf) or since >= self.patience or not _is_sent_again(error):
            return None
        longest = min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 60))
        asked = error.retry_after or 0.0 if isinstance(error, APIError) else 0.0
        return min(max(longest * (1 - self.jitter * draw()), asked), self.patience - since)


def _is_sent_again(error: ThanxError) -> bool:
    if isinstance(error, InvalidResponseError):
        return not 300 <= error.status < 400
    if isinstance(error, APIError):
        return meaning_of(error.status).sent_again
    return isinstance(error, TransportError)
