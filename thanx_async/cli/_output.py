"""What the command line shows: progress and reports."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from thanx_async._core.escaping import printable
from thanx_async.batcher import (
    BatchRange,
    GuestRow,
    IssuancePlan,
    IssuanceReport,
    IssuanceRun,
    RevocationReport,
    VerificationReport,
)
from thanx_async.cli._items import advised
from thanx_async.cli._status import discard_output
from thanx_async.client import ThanxClient
from thanx_async.limiter import LimiterStatus

_EVERY = 2.0
_SHOWN = 5
_REASONS = 20


class _Console(Console):
    """A console that goes quiet when its reader has gone; rich would end the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Display:
    """Shows progress: live on a terminal, otherwise as a plain line every two seconds."""

    def __init__(self) -> None:
        self._console = _Console(stderr=True)
        self._live: Progress | None = None
        self._client: ThanxClient | None = None
        self._last = _now()
        self._said: tuple[str, str | None] = "", None
        if self._console.is_terminal:
            spinner = SpinnerColumn("line" if self._console.options.ascii_only else "dots")
            columns = spinner, TextColumn("{task.description}", markup=False), TimeElapsedColumn()
            self._live = Progress(*columns, console=self._console, transient=True)
            self._task = self._live.add_task("reading")

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def watch(self, client: ThanxClient) -> None:
        """Also show the waits of this client."""
        self._client = client

    async def keep_showing(self, run: IssuanceRun) -> None:
        """Show the run every two seconds until cancelled: a waiting run makes no progress callbacks."""
        while True:
            await asyncio.sleep(_EVERY)
            self.progress(run)

    def say(self, text: str) -> None:
        self._console.print(Text(printable(text)), soft_wrap=True)

    def progress(self, run: IssuanceRun) -> None:
        """The progress callback of a batcher."""
        text, status = _progress(run), self._client.limiter.status() if self._client else None
        held, reason = _held(status) if status else (0.0, None)
        if not status or not (held > _SHOWN or _is_away(status)):
            reason = None
        if self._live:
            self._live.update(self._task, description=printable(text + _wait(status, reason)))
        elif _now() - self._last >= _EVERY and (text, reason) != self._said:
            self._last, self._said = _now(), (text, reason)
            self.say(text + _wait(status, reason))


def _held(status: LimiterStatus) -> tuple[float, str | None]:
    """For how long, in seconds, and why the requests of a run wait."""
    if status.bulk_held_for > status.held_for:
        return status.bulk_held_for, status.bulk_reason
    return status.held_for, status.reason


def _is_away(status: LimiterStatus) -> bool:
    return status.no_answer_for is not None and status.no_answer_for > _SHOWN


def _now() -> float:
    return asyncio.get_running_loop().time()


def _progress(run: IssuanceRun) -> str:
    handles = run.handles
    accepted = sum(handle.total for handle in handles)
    processed = sum(handle.job.processed_count for handle in handles if handle.job)
    return f"{run.total:,} read, {accepted:,} accepted in {len(handles):,} jobs, {processed:,} processed"


def _wait(status: LimiterStatus | None, reason: str | None) -> str:
    if status and status.no_answer_for is not None and _is_away(status):
        return f"; no answer from Thanx for {status.no_answer_for:.0f} s, still trying; Ctrl-C stops"
    if not status or not reason:
        return ""
    until = datetime.now().astimezone() + timedelta(seconds=_held(status)[0])
    return f"; waiting until {until:%H:%M:%S} for {reason}"


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
    what = f"{report.rewards:,} rewards of {len(report.revoked):,} jobs taken back"
    if report.revoked and not report.rewards:
        what = f"none of its {len(report.revoked):,} jobs has rewards left to take back"
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
    write(f"{plan.total:,} read, {plan.identifiers:,} guests to reward, in {plan.requests:,} requests")
    write(f"{len(plan.rejected):,} rejected, {len(plan.duplicates):,} duplicates")
    _show_reasons("rejected", plan.rejected)
    write(f"at least {plan.least_duration:,.0f} s under the rate limits, including one poll for each job")


def _show_reasons(fate: str, rows: Sequence[GuestRow]) -> None:
    groups: dict[str, list[GuestRow]] = {}
    for row in rows:
        groups.setdefault(advised(row.reason), []).append(row)
    by_size = sorted(groups.items(), key=lambda group: -len(group[1]))
    for reason, same in by_size[:_REASONS]:
        write(f"{len(same):,} {fate}: {reason} ({_places(same)})")
    if rest := by_size[_REASONS:]:
        write(f"{sum(len(same) for _, same in rest):,} {fate}: {len(rest):,} more reasons")


def _places(rows: list[GuestRow]) -> str:
    shown = ", ".join(str(row.position) for row in rows[:_SHOWN])
    return f"position{'s' if len(rows) > 1 else ''} {shown}{', ...' if len(rows) > _SHOWN else ''}"


def _show_batches(what: str, batches: list[BatchRange], *, all_of_them: bool = False) -> None:
    shown = batches if all_of_them else batches[:_SHOWN]
    for batch in shown:
        key = f", key {batch.key}" if batch.key else ""
        job = f", job {batch.job_id}" if batch.job_id else ""
        write(f"{what}: positions {batch.first} to {batch.last}, {batch.count:,} guests{key}{job}")
    if rest := batches[len(shown) :]:
        count = sum(batch.count for batch in rest)
        write(f"{what}: {len(rest):,} more batches, to position {rest[-1].last}, {count:,} guests")
