"""Handles on jobs: awaitable, and polled by one schedule for all jobs of a client."""

from thanx_async.jobs._handle import (
    JobHandle,
    JobTimeoutError,
)
from thanx_async.jobs._registry import (
    JobWatches,
)

__all__ = [
    "JobHandle",
    "JobTimeoutError",
    "JobWatches",
]
