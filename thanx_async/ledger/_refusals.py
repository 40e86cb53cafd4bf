"""The errors of ledgers that refuse a run, a lane or a batch, the same in all backends."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from thanx_async._core.errors import LeaseError, LedgerError
from thanx_async._core.messages import Message, Name
from thanx_async.ledger._owner import Owner
from thanx_async.ledger._records import BatchRecord


def other_settings(run_id: str, differences: Iterable[str]) -> LedgerError:
    """The run has batches, and its settings differ."""
    return LedgerError(
        Message(
            f"run {run_id!r} was started with other settings: ",
            Message("; ").join(differences),
            ". Nothing was sent; use the same settings, or another ",
            Name("run_id"),
            " for another run",
        )
    )


def forgotten(run_id: str, ended_at: float) -> LedgerError:
    """The run ended at this time, in seconds since 1970, and was deleted."""
    ended = datetime.fromtimestamp(ended_at).astimezone()
    return LedgerError(
        Message(
            f"run {run_id!r} was complete on {ended:%Y-%m-%d}, and the ledger has forgotten its"
            " batches since. Nothing was sent; give another ",
            Name("run_id"),
            " to issue its guests again",
        )
    )


def in_use(run_id: str, owner: Owner, seconds: float) -> LeaseError:
    """Somebody else holds the run's lease for so many seconds, maybe in this process itself."""
    if owner.is_this_process:
        advice = (
            "Another batcher, drain or ledger of this process has it: wait for that one, or close it. If it"
        )
    else:
        advice = "If that process"
    return LeaseError(
        f"run {run_id!r} is being worked on by {owner}. {advice} is gone, try again in {seconds:.0f} s"
    )


def taken_over(run_id: str) -> LeaseError:
    """Another process has taken over the run."""
    return LeaseError(f"run {run_id!r} was taken over by another process; this process sends nothing more")


def revoked(run_id: str) -> LedgerError:
    """The lane was revoked."""
    return LedgerError(f"the lane {run_id!r} was revoked: nothing more of it is issued")


def not_in_doubt(run_id: str, number: int) -> LedgerError:
    """A lane's batch can't be split, since it is not in doubt any more."""
    return LedgerError(f"batch {number} of lane {run_id!r} is not in doubt any more")


def not_held(run_id: str, number: int) -> LedgerError:
    """A lane's batch can't be settled, since the process that drains the lane may be working on it."""
    return LedgerError(
        f"batch {number} of lane {run_id!r} is not held: the process that drains the lane may be working on"
        " it. Stop that process first, or wait until the batch is held"
    )


def other_job(run_id: str, number: int, job_id: str, known: BatchRecord | None) -> LedgerError:
    """A batch can't be accepted as this job."""
    if known is None:
        return LedgerError(
            f"batch {number} of run {run_id!r}, accepted as job {job_id}, is not recorded any more"
        )
    return LedgerError(
        f"batch {number} of run {run_id!r} is job {known.job_id}, and was now accepted as job {job_id} too:"
        " its guests may have two rewards; look at both jobs, and revoke one"
    )
