"""Webhooks: Thanx reports events, so that fewer polls are needed.

`verify` checks a signature and parses the event. `aiohttp_handler` and `asgi_app` are ready-made endpoints
that verify events and notify the client, which wakes the handles that wait for the job.
"""

from thanx_async.webhooks._endpoints import Notified, Relay, aiohttp_handler, asgi_app
from thanx_async.webhooks._events import (
    Event,
    EventFailure,
    EventIdentifier,
    RewardBatchCompleted,
    RewardIssued,
    UnknownEvent,
    verify,
)

__all__ = [
    "Event",
    "EventFailure",
    "EventIdentifier",
    "Notified",
    "Relay",
    "RewardBatchCompleted",
    "RewardIssued",
    "UnknownEvent",
    "aiohttp_handler",
    "asgi_app",
    "verify",
]
