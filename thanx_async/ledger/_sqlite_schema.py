"""The ledger's tables, and what is said when its file cannot be used."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

from thanx_async._core import sqlite
from thanx_async._core.errors import LedgerError
from thanx_async._core.sqlite import Problem, Trouble

APPLICATION_ID = 0x74786C67  # "txlg"

MIGRATIONS: list[str] = [
    """
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        base_url TEXT NOT NULL,
        client_id TEXT NOT NULL,
        campaign_id TEXT NOT NULL,
        merchant_id TEXT NOT NULL,
        variant_id TEXT NOT NULL,
        batch_size INTEGER NOT NULL,
        deduplicate INTEGER NOT NULL,
        canary INTEGER,
        created_at REAL NOT NULL,
        changed_at REAL NOT NULL,
        total INTEGER,
        batches INTEGER,
        revoked_at REAL,
        owner TEXT,
        owned_until REAL NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE batches (
        run_id TEXT NOT NULL REFERENCES runs,
        number INTEGER NOT NULL,
        key TEXT NOT NULL,
        first INTEGER NOT NULL,
        count INTEGER NOT NULL,
        gaps BLOB NOT NULL,
        digest BLOB NOT NULL,
        state TEXT NOT NULL,
        recorded_at REAL NOT NULL,
        job_id TEXT,
        outcome BLOB,
        slot INTEGER NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (run_id, number)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX slots ON batches (slot) WHERE state = 'in_doubt';
    """,
]

_REASONS = {
    Problem.LOCKED: "another process has locked it; try again once that one is done",
    Problem.FULL: "the disk is full; free some space and start the same run again",
    Problem.READ_ONLY: "it is read-only; make the file and its folder writable",
    Problem.DAMAGED: "it is damaged; restore it from a copy",
    Problem.NO_DATABASE: "it is not a ledger but some other file; give another path",
    Problem.CANNOT_OPEN: "it cannot be opened; is it a folder, or does its folder not exist?",
    Problem.NOT_READ_OR_WRITTEN: "the disk did not read or write it",
}


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, or make it, for use by one thread at a time; only its owner can read it."""
    form = sqlite.Format(APPLICATION_ID, MIGRATIONS, durable=True, log_required=True)
    return sqlite.connect(path, form, lambda trouble: _error(path, trouble))


def explained(path: Path, *, key: str | None = None) -> AbstractContextManager[None]:
    """Turn errors of the database and the disk into a `LedgerError` that says what to do.

    Args:
        key: of the batch that is written down. It is in doubt where it may be found in the ledger later.
    """
    return sqlite.explained(lambda trouble: _error(path, trouble, key))


def _error(path: Path, trouble: Trouble, key: str | None = None) -> LedgerError:
    error = LedgerError(_text(path, trouble))
    if trouble.unsure and key is not None:
        error.in_doubt, error.idempotency_key = True, key
        error.add_note(
            f"In doubt: it may be written down all the same, and sent, with idempotency key {key}."
        )
    return error


def _text(path: Path, trouble: Trouble) -> str:
    match trouble.problem:
        case Problem.FOREIGN:
            text = f"{path} is not a ledger but some other database; give another path"
        case Problem.NEWER:
            text = (
                f"the ledger {path} was written by a newer thanx_async (its version is {trouble.detail}, this"
                f" one knows {len(MIGRATIONS)}); update thanx_async"
            )
        case Problem.NO_SHARED_MEMORY:
            text = f"the ledger {path} is on a file system without shared memory, which it needs"
        case _:
            reason = _REASONS.get(trouble.problem, trouble.detail)
            code = f" ({trouble.code})" if trouble.code else ""
            text = f"the ledger {path} cannot be used: {reason}{code}"
    return text
