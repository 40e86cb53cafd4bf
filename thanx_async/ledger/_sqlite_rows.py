"""Rows of the table of batches in a ledger file."""

from __future__ import annotations

from pathlib import Path

from thanx_async.ledger._records import BatchRecord
from thanx_async.ledger._rows import Row, batch_in
from thanx_async.ledger._sqlite_schema import readable


def batch_of(row: Row, path: Path) -> BatchRecord:
    """The batch in a row of the table."""
    with readable(path, f"batch {row[1]!r} of run {row[0]!r}"):
        return batch_in(row)
