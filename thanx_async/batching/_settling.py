"""The outcome of a batch, from what its job tells and what was known before. Pure."""

from __future__ import annotations

from thanx_async._batches import BatchOutcome, outcome_of
from thanx_async._core.columns import Numbered
from thanx_async.models import IssuanceJob


def outcome_after(known: BatchOutcome | None, job: IssuanceJob, count: int) -> BatchOutcome | None:
    """The outcome of a batch once its job has finished; None if nothing new is known.

    A known outcome changes only when the rewards are revoked, or when a poll follows an event.

    Args:
        known: the outcome known before.
        job: the finished job.
        count: the number of identifiers in the batch.
    """
    told = known is not None and known.by_event and not job.by_event
    if known is not None and not told and (job.state != "revoked" or known.state == "revoked"):
        return None
    failures = outcome_of(job, count)
    if failures is None:
        return None
    if known is not None and job.state == "revoked":  # who failed before keeps the original reason
        failures = Numbered.of([*failures, *known.failures]).by_number()
    return BatchOutcome(job.state, count - len(failures), failures, job.by_event)
