"""Outboxes: a guest is put once, durably, under an id of the caller's, and gets exactly one reward."""

from thanx_async.ledger import GuestState
from thanx_async.outbox._outbox import StoredOutbox
from thanx_async.outbox._protocol import Outbox
from thanx_async.outbox._records import GuestOutcome, OutboxStatus
from thanx_async.outbox._sqlite import SQLiteOutbox

__all__ = ["GuestOutcome", "GuestState", "Outbox", "OutboxStatus", "SQLiteOutbox", "StoredOutbox"]
