"""The schema of the ledger's file, and the error messages for problems with the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from thanx_async._core import sqlite
from thanx_async._core.errors import LedgerError, LedgerUnavailableError
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
    "CREATE TABLE forgotten (run_id TEXT PRIMARY KEY, ended_at REAL NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE lanes (
        lane INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL UNIQUE REFERENCES runs,
        next_number INTEGER NOT NULL DEFAULT 0,
        note TEXT,
        noted_until REAL NOT NULL DEFAULT 0
    );
    CREATE TABLE guests (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        lane INTEGER NOT NULL,
        id BLOB NOT NULL UNIQUE,
        digest INTEGER NOT NULL,
        put_at REAL NOT NULL
    );
    CREATE TABLE waiting (
        lane INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (lane, seq)
    ) WITHOUT ROWID;
    CREATE TABLE ended (seq INTEGER PRIMARY KEY, state TEXT NOT NULL, reason TEXT);
    CREATE TABLE heard (job_id TEXT PRIMARY KEY) WITHOUT ROWID;
    ALTER TABLE batches ADD COLUMN seqs BLOB;
    CREATE INDEX lane_batches ON batches (run_id, first) WHERE seqs IS NOT NULL;
    CREATE INDEX open_batches ON batches (run_id, state) WHERE state != 'finished';
    CREATE INDEX jobs ON batches (job_id) WHERE job_id IS NOT NULL;
    CREATE VIEW thanx_put AS SELECT lane, id, digest, '' AS value FROM guests;
    CREATE TRIGGER thanx_put_guest INSTEAD OF INSERT ON thanx_put BEGIN
        SELECT RAISE(ABORT, 'thanx_async: this id was put before, with another guest')
        WHERE EXISTS (SELECT 1 FROM guests WHERE id = NEW.id AND digest != NEW.digest);
        SELECT RAISE(ABORT, 'thanx_async: the outbox was revoked, nothing more of it is issued')
        WHERE EXISTS (SELECT 1 FROM lanes JOIN runs USING (run_id)
            WHERE lane = NEW.lane AND revoked_at IS NOT NULL);
        INSERT INTO guests (lane, id, digest, put_at)
        SELECT NEW.lane, NEW.id, NEW.digest, (julianday('now') - 2440587.5) * 86400.0
        WHERE NOT EXISTS (SELECT 1 FROM guests WHERE id = NEW.id);
        INSERT INTO waiting (lane, seq, value)
        SELECT lane, seq, NEW.value FROM guests WHERE id = NEW.id AND changes() > 0;
    END;
    """,
    """
    ALTER TABLE runs ADD COLUMN keep_ids REAL;
    ALTER TABLE runs ADD COLUMN replay_within REAL;
    ALTER TABLE batches ADD COLUMN held TEXT;
    ALTER TABLE lanes ADD COLUMN issued INTEGER NOT NULL DEFAULT 0;
    UPDATE lanes SET issued = (
        SELECT coalesce(sum(json_extract(CAST(outcome AS TEXT), '$.issued')), 0) FROM batches AS b
        WHERE b.run_id = lanes.run_id AND state = 'finished'
    ) WHERE NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'moved');
    """,
    """
    CREATE TABLE trust (
        base_url TEXT NOT NULL,
        client_id TEXT NOT NULL,
        confirmed INTEGER NOT NULL,
        with_failures INTEGER NOT NULL,
        broken INTEGER NOT NULL,
        PRIMARY KEY (base_url, client_id)
    ) WITHOUT ROWID;
    CREATE TABLE events (job_id TEXT PRIMARY KEY, heard_at REAL NOT NULL, told BLOB NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE choices (
        guest BLOB NOT NULL,
        run_id TEXT NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (guest, run_id)
    ) WITHOUT ROWID;
    CREATE INDEX choices_positions ON choices (run_id, position);
    CREATE TRIGGER choices_of_empty_runs AFTER DELETE ON runs
    WHEN NOT EXISTS (SELECT 1 FROM forgotten WHERE run_id = OLD.run_id) BEGIN
        DELETE FROM choices WHERE run_id = OLD.run_id;
    END;
    """,
]

_PASSING = {Problem.LOCKED, Problem.FULL}
_REASONS = {
    Problem.LOCKED: "another process has locked it; try again when that process is done",
    Problem.FULL: "the disk is full; free some space, and start the same run again",
    Problem.READ_ONLY: "it is read-only; make the file and its folder writable",
    Problem.DAMAGED: "it is damaged; restore it from a copy",
    Problem.NOT_A_DATABASE: "it is not a ledger but some other file; give another path",
    Problem.CANNOT_OPEN: "it cannot be opened; is it a folder, or does its folder not exist?",
    Problem.INPUT_OUTPUT: "the disk did not read or write it",
}


def connect(path: Path) -> sqlite3.Connection:
    """Open or create the file, for use by one thread at a time. Only its owner can read it."""
    form = sqlite.Format(APPLICATION_ID, MIGRATIONS, durable=True, log_required=True)
    return sqlite.connect(path, form, lambda trouble: _error(path, trouble))


def explained(path: Path, *, key: str | None = None) -> AbstractContextManager[None]:
    """Turn errors of SQLite and the disk into a `LedgerError` that says what to do.

    Args:
        path: the ledger's file.
        key: the idempotency key of the batch that is being recorded, for an error in doubt.
    """
    return sqlite.explained(lambda trouble: _error(path, trouble, key))


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turn the errors of an invalid row into a `LedgerError` that names the row."""
    try:
        yield
    except (TypeError, ValueError, LookupError, OverflowError, AttributeError) as error:
        raise LedgerError(
            f"the ledger {path} cannot be used: {what} is damaged; restore the ledger from a copy"
        ) from error


def _error(path: Path, trouble: Trouble, key: str | None = None) -> LedgerError:
    kind = LedgerUnavailableError if trouble.problem in _PASSING else LedgerError
    error = kind(_text(path, trouble))
    if trouble.unsure and key is not None:
        error.in_doubt, error.idempotency_key = True, key
        error.add_note(
            f"In doubt: the batch may have been recorded anyway, and may be sent with idempotency key {key}."
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
