"""Job handles, which callers await, and the shared schedule that polls all jobs of a client."""

from thanx_async.jobs._claims import Claim, Guests, difference
from thanx_async.jobs._handle import (
    JobHandle,
    JobTimeoutError,
    revoke_in_bulk,
    time_left,
    usual_time,
    when_finished,
)
from thanx_async.jobs._poller import JobService
from thanx_async.jobs._registry import JobRegistry
from thanx_async.jobs._trust import EventTrust

__all__ = [
    "Claim",
    "EventTrust",
    "Guests",
    "JobHandle",
    "JobRegistry",
    "JobService",
    "JobTimeoutError",
    "difference",
    "revoke_in_bulk",
    "time_left",
    "usual_time",
    "when_finished",
]
