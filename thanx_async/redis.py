"""Redis as a backend; needs the extra ``redis``: ``pip install 'thanx_async[redis]'``."""

from thanx_async.limiter import RedisRateLimiter

__all__ = ["RedisRateLimiter"]
