"""Ledgers: record each batch before it is sent, so that no guest is rewarded twice or forgotten."""

from typing import TYPE_CHECKING

from thanx_async._batches import BatchOutcome, digest_of
from thanx_async._core.lazy import lazily
from thanx_async.ledger._protocol import Ledger
from thanx_async.ledger._records import BatchRecord, BatchState, RunProgress, RunRecord

if TYPE_CHECKING:
    from thanx_async.ledger._sqlite import SQLiteLedger
else:
    __getattr__ = lazily(__name__, {"SQLiteLedger": "_sqlite"})  # imports sqlite3 on first use only

__all__ = [
    "BatchOutcome",
    "BatchRecord",
    "BatchState",
    "Ledger",
    "RunProgress",
    "RunRecord",
    "SQLiteLedger",
    "digest_of",
]
