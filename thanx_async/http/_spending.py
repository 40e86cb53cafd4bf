"""Tells the hook when most of a rate limit is spent."""

from __future__ import annotations

from thanx_async.instrumentation import Hook, LimitRecord, emit
from thanx_async.limiter import RateLimit, RateLimiter

_LEVELS = (0.8, 0.95)
_AGAIN_BELOW = 0.05


class SpendingWatch:
    """Emits a `LimitRecord` each time that the use of a long limit reaches a level."""

    def __init__(self, limiter: RateLimiter, hook: Hook) -> None:
        self._limiter = limiter
        self._hook = hook
        self._told: dict[RateLimit, float] = {}

    def look(self) -> None:
        """Look at the limiter, after it has given a slot."""
        if len(self._limiter.limits) < 2:
            return
        for window in self._limiter.status().windows[1:]:
            share = window.used / window.limit.requests
            reached = max((level for level in _LEVELS if share >= level), default=0.0)
            told = self._told.get(window.limit, 0.0)
            if reached > told:
                limit = window.limit
                emit(self._hook, LimitRecord(limit.requests, limit.seconds, window.used, reached))
            if reached > told or share < told - _AGAIN_BELOW:
                self._told[window.limit] = reached
