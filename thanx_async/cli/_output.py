"""What the command line writes to standard output: lines, and reports."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from thanx_async._core.escaping import printable
from thanx_async.batcher import (
    BatchRange,
    GuestRow,
    IssuancePlan,
    IssuanceReport,
    RevocationReport,
    VerificationReport,
)
from thanx_async.cli._items import advised
from thanx_async.cli._status import discard_output
from thanx_async.cli._words import amount, clock

_SHOWN = 5
_REASONS = 20


def write(text: str) -> None:
    """Write a line to standard output, with control characters escaped.

    It is discarded once the reader has gone.

    Raises:
        OSError: the line can't be written; the message says why.
    """
    try:
        sys.stdout.write(printable(text) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        raise OSError(f"cannot write to standard output: {error.strerror}") from None


def show_report(report: IssuanceReport, *, of: str) -> None:
    """Show the counts, why guests failed, and the batches that are open."""
    write(f"Run {report.run_id}: {report.total:,} {of}")
    for fate, count in report.counts.items():
        write(f"  {fate.replace('_', ' '):<11}{count:>12,}")
    _show_reasons("failed", report.failed)
    _show_reasons("rejected", report.rejected)
    _show_batches("in doubt: may have been issued", report.in_doubt, all_of_them=True)
    _show_batches("unfinished: the job still runs at Thanx", report.unfinished)
    _show_batches("unsent: certainly not issued", report.unsent)


def show_revocation(report: RevocationReport) -> None:
    """Show what was taken back, and what was not."""
    what = f"{amount(report.rewards, 'reward')} of {amount(len(report.revoked), 'job')} taken back"
    if report.revoked and not report.rewards:
        what = f"none of its {len(report.revoked):,} jobs has rewards left to take back"
        if len(report.revoked) == 1:
            what = "its job has no rewards left to take back"
    write(f"Run {report.run_id}: {what}")
    for left in report.not_revoked:
        _show_batches(f"not taken back: {left.reason}", [left.batch])


def show_verification(report: VerificationReport) -> None:
    """Show which outcomes polls have confirmed, and which not."""
    checked = len(report.confirmed) + len(report.disagreeing)
    what = f"{len(report.confirmed):,} of {checked:,} jobs whose outcome an event told are confirmed"
    write(f"Run {report.run_id}: {what if checked else 'no event told an outcome that polls have not'}")
    for row in report.disagreeing:
        _show_batches(f"corrected: {row.reason}", [row.batch])
    for row in report.unchecked:
        _show_batches(f"not checked: {row.reason}", [row.batch])


def show_plan(plan: IssuancePlan) -> None:
    """Show what a run would do."""
    write(
        f"{plan.total:,} read, {amount(plan.identifiers, 'guest')} to reward,"
        f" in {amount(plan.requests, 'request')}"
    )
    write(f"{len(plan.rejected):,} rejected, {amount(len(plan.duplicates), 'duplicate')}")
    _show_reasons("rejected", plan.rejected)
    write(f"at least {plan.least_duration:,.0f} s under the rate limits, including one poll for each job")
    if plan.requests:
        accepted, known = clock(plan.last_accepted), clock(plan.all_known)
        write(f"could be accepted by {accepted} and known by {known}, if it began now")


def _show_reasons(fate: str, rows: Sequence[GuestRow]) -> None:
    groups: dict[str, list[GuestRow]] = {}
    for row in rows:
        groups.setdefault(advised(row.reason), []).append(row)
    by_size = sorted(groups.items(), key=lambda group: -len(group[1]))
    for reason, same in by_size[:_REASONS]:
        write(f"{len(same):,} {fate}: {reason} ({_places(same)})")
    if rest := by_size[_REASONS:]:
        write(f"{sum(len(same) for _, same in rest):,} {fate}: {amount(len(rest), 'more reason')}")


def _places(rows: list[GuestRow]) -> str:
    shown = ", ".join(str(row.position) for row in rows[:_SHOWN])
    return f"position{'s' if len(rows) > 1 else ''} {shown}{', ...' if len(rows) > _SHOWN else ''}"


def _show_batches(what: str, batches: list[BatchRange], *, all_of_them: bool = False) -> None:
    shown = batches if all_of_them else batches[:_SHOWN]
    for batch in shown:
        key = f", key {batch.key}" if batch.key else ""
        job = f", job {batch.job_id}" if batch.job_id else ""
        write(f"{what}: positions {batch.first} to {batch.last}, {amount(batch.count, 'guest')}{key}{job}")
    if rest := batches[len(shown) :]:
        count = sum(batch.count for batch in rest)
        write(
            f"{what}: {amount(len(rest), 'more batch')}, to position {rest[-1].last},"
            f" {amount(count, 'guest')}"
        )
