"""Seven ways in which servers count requests, as judges on virtual time beside the real servers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from thanx_async.emulator.counters import Counter, Referee, referee

__all__ = ["EMULATED", "REFEREES", "REQUESTS", "SECONDS", "HAProxy", "Nginx", "Referee"]

REQUESTS, SECONDS = 5, 1.0
EMULATED = {
    "fixed": Counter.FIXED,
    "slog": Counter.SLIDING_LOG,
    "slogcr": Counter.SLIDING_LOG_COUNTING_REFUSED,
    "swc": Counter.SLIDING_COUNTER,
}
"""As the emulator counts: in windows aligned to the clock, in an exact sliding log, in one that counts
refused requests as well, and in a sliding counter."""


class Nginx:
    """nginx 1.22, ``limit_req ... nodelay``: a leaky bucket in milliseconds, which refused requests spare."""

    def __init__(self, requests: int, seconds: float, *, burst: int) -> None:
        self._rate = 1000 * requests / seconds
        self._burst = 1000 * burst
        self._excess: float | None = None
        self._last = 0

    def admits(self, now: float) -> bool:
        at = int(now * 1000)
        if self._excess is None:
            self._excess, self._last = 0.0, at
            return True
        excess = max(0.0, self._excess - self._rate * (at - self._last) / 1000 + 1000)
        if excess > self._burst:
            return False
        self._excess, self._last = excess, at
        return True


class HAProxy:
    """HAProxy 2.6, ``http_req_rate`` of a stick table: this period's count and the part of the last one that
    a sliding period still covers, refused requests included; the first request starts the first period."""

    def __init__(self, requests: int, seconds: float) -> None:
        self._requests = requests
        self._period = int(seconds * 1000)
        self._start: int | None = None
        self._count = self._before = 0

    def admits(self, now: float) -> bool:
        at = int(now * 1000)
        if self._start is None:
            self._start = at
        if at - self._start >= self._period:
            self._start += self._period
            self._before = self._count
            if at - self._start >= self._period:
                self._before, self._start = 0, at
            self._count = 0
        self._count += 1
        left = self._period - (at - self._start)
        return (self._count * self._period + self._before * left) // self._period <= self._requests


REFEREES: dict[str, Callable[[], Referee]] = {
    **{name: partial(referee, counter, REQUESTS, SECONDS) for name, counter in EMULATED.items()},
    "nginx b4": lambda: Nginx(REQUESTS, SECONDS, burst=4),
    "nginx b0": lambda: Nginx(REQUESTS, SECONDS, burst=0),
    "HAProxy": lambda: HAProxy(REQUESTS, SECONDS),
}
"""5 requests a second, counted as the emulator does, as nginx does with burst=4 and with none, and as HAProxy
does."""
