"""Rows of the table of batches."""

from __future__ import annotations

from pathlib import Path

from thanx_async._batches import BatchOutcome, Positions
from thanx_async.ledger._records import BatchRecord, BatchState
from thanx_async.ledger._sqlite_schema import readable

Row = tuple[str, int, str, int, int, bytes, bytes, str, float, str | None, bytes | None]
BATCH_COLUMNS = "run_id, number, key, first, count, gaps, digest, state, recorded_at, job_id, outcome"


def batch_of(row: Row, path: Path) -> BatchRecord:
    """The batch in a row of the table."""
    run_id, number, key, first, size, gaps, digest, state, recorded_at, job_id, outcome = row
    with readable(path, f"batch {number!r} of run {run_id!r}"):
        batch = BatchRecord(
            run_id,
            number,
            key,
            Positions.unpacked(first, size, gaps),
            digest,
            BatchState(state),
            recorded_at,
            job_id,
            BatchOutcome.unpacked(outcome) if outcome is not None else None,
        )
        _check_row(batch)
    return batch


def _check_row(batch: BatchRecord) -> None:
    """Raise a `ValueError` or `TypeError` unless the row is a valid batch."""
    outcome, count = batch.outcome, len(batch.positions)
    sound = _is_text(batch.run_id) and _is_text(batch.key) and count > 0
    sound = sound and batch.number >= 0 and batch.positions.first >= 0 and batch.recorded_at >= 0
    if batch.state is BatchState.ACCEPTED:
        sound = sound and _is_text(batch.job_id)
    if outcome is not None:
        sound = sound and _is_text(outcome.state) and 0 <= outcome.issued <= count
        sound = sound and all(0 <= index < count and _is_text(reason) for index, reason in outcome.failures)
    if not sound or (outcome is not None) != (batch.state is BatchState.FINISHED):
        raise ValueError


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def conflict(run_id: str, number: int, job_id: str, known: BatchRecord | None) -> str:
    """Why a batch cannot be accepted as this job."""
    if known is None:
        return f"batch {number} of run {run_id!r}, accepted as job {job_id}, is not recorded any more"
    return (
        f"batch {number} of run {run_id!r} is job {known.job_id}, and was now accepted as job {job_id} too:"
        " its guests may have two rewards; look at both jobs, and revoke one"
    )
