"""`Answer`, what a command tells on standard output: lines of text, or one JSON value (``--json``)."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import TypeAlias, cast

import attrs

from thanx_async._core.escaping import printable
from thanx_async.batcher import (
    BatchRange,
    GuestRow,
    IssuancePlan,
    IssuanceReport,
    NotVerified,
    RevocationReport,
    VerificationReport,
)
from thanx_async.cli._items import advised
from thanx_async.cli._output import write
from thanx_async.ledger import BatchRecord, RunProgress
from thanx_async.models import IssuanceJob

Fields: TypeAlias = Mapping[str, object]


class Answer:
    """The answer of one command. As JSON, it is printed at the end, so that nothing else is printed."""

    def __init__(self, *, json: bool = False) -> None:
        self.is_json = json
        self._fields: dict[str, object] = {}
        self._notes: list[str] = []

    def line(self, text: str) -> None:
        """Tell something in words: a line, or one of the ``notes``."""
        if self.is_json:
            self._notes.append(text)
        else:
            write(text)

    def aside(self, text: str) -> None:
        """Tell something that is no part of the answer."""
        if self.is_json:
            sys.stderr.write(printable(text) + "\n")
        else:
            write(text)

    def show(self, fields: Callable[[], Fields], show: Callable[[], object] | None = None) -> None:
        """Tell facts: as fields of the object, or by the function that prints them."""
        if self.is_json:
            self._fields.update(fields())
        elif show is not None:
            show()

    def end(self, status: int) -> int:
        """Print the object, with the exit status and the notes; returns the exit status."""
        if self.is_json:
            write_json({**self._fields, "notes": self._notes, "exit_status": status})
        return status


def write_json(value: object) -> None:
    """Print a value as one line of JSON, in ASCII. Times are in UTC, by ISO 8601."""
    write(json.dumps(value, default=_plain))


def _plain(value: object) -> object:
    match value:
        case datetime():
            return time_of(value.timestamp())
        case Enum():
            return value.value
        case _ if attrs.has(type(value)):
            return fields_of(cast("attrs.AttrsInstance", value))
    raise TypeError(type(value).__name__)


def fields_of(value: attrs.AttrsInstance) -> dict[str, object]:
    """The public attributes of an object, one level deep."""
    return {
        field.name: getattr(value, field.name)
        for field in attrs.fields(type(value))
        if not field.name.startswith("_")
    }


def time_of(seconds: float | None) -> str | None:
    """A time in seconds since 1970 in UTC, by ISO 8601."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def report_fields(report: IssuanceReport) -> Fields:
    """A report: counts, reasons with their counts, and the batches that are open."""
    return {
        "run_id": report.run_id,
        "total": report.total,
        **report.counts,
        "failed_because": _reasons(report.failed),
        "rejected_because": _reasons(report.rejected),
        "batches": {
            "in_doubt": _batches(report.in_doubt),
            "unfinished": _batches(report.unfinished),
            "unsent": _batches(report.unsent),
        },
    }


def plan_fields(plan: IssuancePlan) -> Fields:
    """What a run would do."""
    return {
        "total": plan.total,
        "guests": plan.identifiers,
        "requests": plan.requests,
        "rejected": len(plan.rejected),
        "duplicates": len(plan.duplicates),
        "rejected_because": _reasons(plan.rejected),
        "least_seconds": plan.least_duration,
        "last_accepted": plan.last_accepted if plan.requests else None,
        "all_known": plan.all_known if plan.requests else None,
    }


def revocation_fields(report: RevocationReport) -> Fields:
    """What was taken back, and what was not."""
    return {
        "run_id": report.run_id,
        "rewards": report.rewards,
        "jobs": len(report.revoked),
        "not_revoked": [{**fields_of(left.batch), "reason": left.reason} for left in report.not_revoked],
    }


def job_fields(job: IssuanceJob) -> Fields:
    """The state of a job. The failures are counted: their list has no guests' values, but may be long."""
    hidden = {"summary", "is_counted", "by_event"}
    return {name: value for name, value in fields_of(job).items() if name not in hidden}


def verification_fields(report: VerificationReport) -> Fields:
    """Which outcomes polls have confirmed, and which not."""
    return {
        "run_id": report.run_id,
        "confirmed": len(report.confirmed),
        "disagreeing": _unverified(report.disagreeing),
        "unchecked": _unverified(report.unchecked),
    }


def _unverified(rows: Iterable[NotVerified]) -> list[Fields]:
    return [{**fields_of(row.batch), "reason": row.reason} for row in rows]


def run_fields(row: RunProgress) -> Fields:
    """A recorded run, and how far it has got."""
    run = row.run
    return {
        "run_id": run.run_id,
        "campaign": run.campaign_id,
        "merchant": run.merchant_id,
        "variant": run.variant_id,
        "base_url": run.base_url,
        "begun_at": time_of(run.created_at),
        "changed_at": time_of(run.changed_at),
        "revoked_at": time_of(run.revoked_at),
        "is_complete": row.is_complete,
        "issued": row.issued,
        "batch_states": {"finished": row.finished, "accepted": row.accepted, "in_doubt": row.in_doubt},
        "jobs_to_take_back": row.to_take_back if run.revoked_at is not None else 0,
    }


def batch_fields(batch: BatchRecord, replay_within: float) -> Fields:
    """A recorded batch."""
    places, outcome = batch.positions, batch.outcome
    return {
        "number": batch.number,
        "first": places.first,
        "last": places.last,
        "count": len(places),
        "state": batch.state,
        "key": batch.key,
        "job_id": batch.job_id,
        "recorded_at": time_of(batch.recorded_at),
        "job_state": None if outcome is None else outcome.state,
        "issued": None if outcome is None else outcome.issued,
        "failed": None if outcome is None else len(outcome.failures),
        "held": batch.held_because(replay_within),
    }


def _reasons(rows: Sequence[GuestRow]) -> list[Fields]:
    counts = Counter(advised(row.reason) for row in rows)
    return [{"reason": reason, "count": count} for reason, count in counts.most_common()]


def _batches(batches: Iterable[BatchRange]) -> list[Fields]:
    return [fields_of(batch) for batch in batches]
