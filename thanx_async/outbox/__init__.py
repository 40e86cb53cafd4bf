"""Outboxes: a guest is put once, durably, under an id of the caller's, and gets exactly one reward."""

from typing import TYPE_CHECKING

from thanx_async._core.lazy import lazily
from thanx_async.ledger import GuestState
from thanx_async.outbox._outbox import StoredOutbox
from thanx_async.outbox._protocol import Outbox
from thanx_async.outbox._records import GuestOutcome, OutboxStatus

if TYPE_CHECKING:
    from thanx_async.outbox._postgres import PostgresOutbox as PostgresOutbox
    from thanx_async.outbox._sqlite import SQLiteOutbox
else:  # on first use only: sqlite3 and asyncpg
    __getattr__ = lazily(__name__, {"PostgresOutbox": "_postgres", "SQLiteOutbox": "_sqlite"})

__all__ = ["GuestOutcome", "GuestState", "Outbox", "OutboxStatus", "SQLiteOutbox", "StoredOutbox"]
