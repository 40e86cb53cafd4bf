"""Rows of the tables of runs and batches, which all backends have."""

from __future__ import annotations

import attrs

from thanx_async._batches import BatchOutcome, Positions
from thanx_async.ledger._records import BatchRecord, BatchState, RunRecord

Row = tuple[str, int, str, int, int, bytes, bytes, str, float, str | None, str | None, bytes | None]
BATCH_FIELDS = (
    "run_id",
    "number",
    "key",
    "first",
    "count",
    "gaps",
    "digest",
    "state",
    "recorded_at",
    "job_id",
    "held",
    "outcome",
)
BATCH_COLUMNS = ", ".join(BATCH_FIELDS)
RUN_FIELDS = tuple(field.name for field in attrs.fields(RunRecord))
RUN_COLUMNS = ", ".join(RUN_FIELDS)


def batch_in(row: Row) -> BatchRecord:
    """The batch in a row of the table.

    Raises:
        ValueError, TypeError, LookupError: the row is no valid batch.
    """
    run_id, number, key, first, size, gaps, digest, state, recorded_at, job_id, held, outcome = row
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
        held,
    )
    _check(batch)
    return batch


EVENTS_LAST = 86_400.0
"""Seconds after which an event that nobody has asked for is deleted."""

_LATEST = 250_000_000_000
"""A time, in seconds since 1970, that a datetime can hold."""


def _check(batch: BatchRecord) -> None:
    outcome, count = batch.outcome, len(batch.positions)
    sound = _is_text(batch.run_id) and _is_text(batch.key) and count > 0
    sound = sound and batch.number >= 0 and batch.positions.first >= 0 and 0 <= batch.recorded_at < _LATEST
    if batch.state is BatchState.ACCEPTED:
        sound = sound and _is_text(batch.job_id)
    if outcome is not None:
        sound = sound and _is_text(outcome.state) and 0 <= outcome.issued <= count
        sound = sound and all(0 <= index < count and _is_text(reason) for index, reason in outcome.failures)
    sound = sound and (batch.held is None or _is_text(batch.held))
    if not sound or (outcome is not None) != (batch.state is BatchState.FINISHED):
        raise ValueError


def _is_text(value: object) -> bool:
    return isinstance(value, str)
