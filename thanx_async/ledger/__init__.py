"""Ledgers: record each batch before it is sent, so that no guest is rewarded twice or forgotten."""

from typing import TYPE_CHECKING

from thanx_async._batches import BatchOutcome, digest_of
from thanx_async._core.lazy import lazily
from thanx_async.ledger._lanes import (
    LANES,
    Cut,
    Encode,
    Fate,
    GuestState,
    LaneLedger,
    LaneReport,
    LaneView,
    NewGuest,
    Put,
)
from thanx_async.ledger._protocol import Ledger
from thanx_async.ledger._records import BatchRecord, BatchState, RunProgress, RunRecord

if TYPE_CHECKING:
    from thanx_async.ledger._sqlite import SQLiteLedger
    from thanx_async.ledger._sqlite_lane_ledger import SQLiteLanes
else:  # imports sqlite3 on first use only
    __getattr__ = lazily(__name__, {"SQLiteLanes": "_sqlite_lane_ledger", "SQLiteLedger": "_sqlite"})

__all__ = [
    "LANES",
    "BatchOutcome",
    "BatchRecord",
    "BatchState",
    "Cut",
    "Encode",
    "Fate",
    "GuestState",
    "LaneLedger",
    "LaneReport",
    "LaneView",
    "Ledger",
    "NewGuest",
    "Put",
    "RunProgress",
    "RunRecord",
    "SQLiteLanes",
    "SQLiteLedger",
    "digest_of",
]
