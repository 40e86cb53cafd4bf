"""The rate limits of a credential, kept by everybody who sends with it.

Thanx allows 5 requests a second and 2,000 in 15 minutes, over all endpoints together, and does not say how
it counts. Source: docs.thanx.com, partner/overview.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from thanx_async import _checks
from thanx_async._limiter_queue import QueuedLimiter
from thanx_async._limiter_store import MemoryStore
from thanx_async._limiter_types import Lane, LimiterStatus, RateLimiter, Slot, WindowStatus
from thanx_async._pacing import Pacing
from thanx_async._rate_limit import THANX_RATE_LIMITS, RateLimit, least_duration

__all__ = [
    "THANX_RATE_LIMITS",
    "Lane",
    "LimiterStatus",
    "LocalRateLimiter",
    "RateLimit",
    "RateLimiter",
    "SQLiteRateLimiter",
    "Slot",
    "WindowStatus",
    "least_duration",
]


class LocalRateLimiter(QueuedLimiter):
    """Keeps the limits within this process.

    Args:
        limits: all that apply, in any order.
        strict: count a request as late as it can have arrived, which is right for any jitter of the
            network. Otherwise the limiter comes closer to the limits until it is refused.

    Raises:
        ConfigurationError: the limits are unusable; the message says which and why.
    """

    def __init__(self, limits: Sequence[RateLimit] = THANX_RATE_LIMITS, *, strict: bool = True) -> None:
        super().__init__(Pacing(limits, strict=strict), MemoryStore())


class SQLiteRateLimiter(QueuedLimiter):
    """Keeps the limits over all processes of one machine that give the same file, and across restarts.

    The processes take turns, and share everything: what was spent, pauses after a refusal, and what was
    learnt of the network. Requests of a process that was killed count as if their answers had come after
    60 s. Each process may give limits of its own, and keeps those, over what all have sent.

    The file is made by the first request, readable by its owner only, and opened and closed without further
    ado. `status` tells what this process saw last; `refresh` looks anew.

    Args:
        path: the file, on a local disk, in a directory that exists.
        limits, strict: as for `LocalRateLimiter`.

    Raises:
        ConfigurationError: the limits are unusable. A request, or `refresh`, raises it if the file is no
            limiter's, is damaged or cannot be written; such a file is left as it is.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        limits: Sequence[RateLimit] = THANX_RATE_LIMITS,
        *,
        strict: bool = True,
    ) -> None:
        from thanx_async._limiter_sqlite import SQLiteStore  # who has no file has no use for sqlite3

        self.path = _checks.path("path", path).absolute()
        super().__init__(Pacing(limits, strict=strict), SQLiteStore(self.path))

    def __repr__(self) -> str:
        return f"<SQLiteRateLimiter {self.path}: {self.status()}>"

    async def refresh(self) -> LimiterStatus:
        """Read the file, and tell what all processes have spent."""
        await self._store.transact(lambda _state, _now: None)
        return self.status()
