"""Ledgers: record each batch before it is sent, so that no guest is rewarded twice or forgotten."""

from typing import TYPE_CHECKING

from thanx_async._batches import BatchOutcome, EndedJob, Trust, digest_of
from thanx_async._core.lazy import lazily
from thanx_async.ledger._choices import Choices, Choose, Ranges
from thanx_async.ledger._lanes import (
    LANES,
    MOVED,
    Cut,
    Encode,
    Fate,
    GuestState,
    LaneLedger,
    LaneReport,
    LaneView,
    NewGuest,
    Put,
    Settlement,
)
from thanx_async.ledger._protocol import Ledger, RelayLedger, TrustLedger
from thanx_async.ledger._records import TOO_OLD, BatchRecord, BatchState, RunProgress, RunRecord

if TYPE_CHECKING:
    from thanx_async.ledger._postgres import PostgresLedger as PostgresLedger
    from thanx_async.ledger._postgres_copy import Copied as Copied
    from thanx_async.ledger._postgres_copy import copy_file as copy_file
    from thanx_async.ledger._postgres_lanes import PostgresLanes as PostgresLanes
    from thanx_async.ledger._postgres_schema import LEDGER_TABLES as LEDGER_TABLES
    from thanx_async.ledger._sqlite import SQLiteLedger
    from thanx_async.ledger._sqlite_lane_ledger import SQLiteLanes
else:
    _LAZY = {  # on first use only: sqlite3 and asyncpg
        "Copied": "_postgres_copy",
        "LEDGER_TABLES": "_postgres_schema",
        "PostgresLanes": "_postgres_lanes",
        "PostgresLedger": "_postgres",
        "SQLiteLanes": "_sqlite_lane_ledger",
        "SQLiteLedger": "_sqlite",
        "copy_file": "_postgres_copy",
    }
    __getattr__ = lazily(__name__, _LAZY)

__all__ = [
    "LANES",
    "MOVED",
    "TOO_OLD",
    "BatchOutcome",
    "BatchRecord",
    "BatchState",
    "Choices",
    "Choose",
    "Cut",
    "Encode",
    "EndedJob",
    "Fate",
    "GuestState",
    "LaneLedger",
    "LaneReport",
    "LaneView",
    "Ledger",
    "NewGuest",
    "Put",
    "Ranges",
    "RelayLedger",
    "RunProgress",
    "RunRecord",
    "SQLiteLanes",
    "SQLiteLedger",
    "Settlement",
    "Trust",
    "TrustLedger",
    "digest_of",
]
