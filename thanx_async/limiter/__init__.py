"""Rate limiters: keep a credential within Thanx's rate limits, in one process or across processes.

Thanx allows 5 requests a second and 2,000 in 15 minutes, over all endpoints together. It does not publish how
it counts them. Source: docs.thanx.com, partner/overview.
"""

from typing import TYPE_CHECKING

from thanx_async._core.lazy import lazily
from thanx_async.limiter._forecast import Forecast, forecast
from thanx_async.limiter._limits import (
    THANX_RATE_LIMITS,
    RateLimit,
    in_flight,
    least_duration,
    trickle_interval,
)
from thanx_async.limiter._memory import LocalRateLimiter
from thanx_async.limiter._overview import wall_time
from thanx_async.limiter._protocol import Lane, LimiterStatus, PacedLimiter, RateLimiter, Slot, WindowStatus
from thanx_async.limiter._store import StoreAwayError

if TYPE_CHECKING:
    from thanx_async.limiter._postgres import LIMITER_TABLES as LIMITER_TABLES
    from thanx_async.limiter._postgres import PostgresRateLimiter as PostgresRateLimiter
    from thanx_async.limiter._redis import RedisRateLimiter as RedisRateLimiter
    from thanx_async.limiter._sqlite import SQLiteRateLimiter
else:
    _LAZY = {  # on first use only: sqlite3, asyncpg and redis
        "LIMITER_TABLES": "_postgres",
        "PostgresRateLimiter": "_postgres",
        "RedisRateLimiter": "_redis",
        "SQLiteRateLimiter": "_sqlite",
    }
    __getattr__ = lazily(__name__, _LAZY)

__all__ = [
    "THANX_RATE_LIMITS",
    "Forecast",
    "Lane",
    "LimiterStatus",
    "LocalRateLimiter",
    "PacedLimiter",
    "RateLimit",
    "RateLimiter",
    "SQLiteRateLimiter",
    "Slot",
    "StoreAwayError",
    "WindowStatus",
    "forecast",
    "in_flight",
    "least_duration",
    "trickle_interval",
    "wall_time",
]
