"""Drive one run from the command line: send, wait, report. Signals stop it cleanly."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

from thanx_async._core.errors import ThanxError
from thanx_async.batcher import AsyncBatcher, IssuanceReport, IssuanceRun, IssuanceStream
from thanx_async.batching import BatchError
from thanx_async.cli._answer import Answer, report_fields
from thanx_async.cli._display import Display
from thanx_async.cli._failures import FailureFile
from thanx_async.cli._hours import sleep_until
from thanx_async.cli._options import as_typed
from thanx_async.cli._output import show_report
from thanx_async.cli._reading import GuestFile
from thanx_async.cli._recorded import before_sending
from thanx_async.cli._status import ISSUED, SOME_FAILED, STOPPED, warn

_GRACE = 60.0


async def drive(
    batcher: AsyncBatcher,
    display: Display,
    guests: Iterable[object] | AsyncIterable[object],
    *,
    run_id: str | None = None,
    limit: int | None = None,
    before: str = "",
    failures: FailureFile | None = None,
    until: datetime | None = None,
    answer: Answer | None = None,
) -> int:
    """Issue to all guests and report.

    Args:
        limit: read only this many of them.
        before: what to say about the run's earlier progress.
        until: begin no request after this time.
        answer: takes the report; the caller ends it.

    Returns:
        The exit status.

    Raises:
        ConfigurationError: the run can't start; nothing was sent.
    """
    stream = batcher.stream(guests, run_id=run_id, limit=limit)
    stopper = _Stopper(stream, display)
    display.follow(stream.run)
    async with display:
        with on_signals(stopper):
            beside = [asyncio.create_task(guests.count_ahead())] if isinstance(guests, GuestFile) else []
            if until is not None:
                beside.append(asyncio.create_task(stopper.stop_at(until)))
            try:
                problem = await _run(stream, stopper, before)
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
    unread = guests.unread(stream.run.total) if isinstance(guests, GuestFile) else ""
    return conclude(
        stream.run,
        stream.run.report(),
        problem,
        failures,
        stopped=stopper.asked,
        unread=unread,
        answer=answer,
    )


async def _run(stream: IssuanceStream, stopper: _Stopper, before: str) -> ThanxError | None:
    """Send and wait; returns the error that stopped the run, None if a signal or nothing did."""
    try:
        async with stream as handles:
            if before:
                stopper.display.say(before)
            async for _ in handles:
                pass
        if not stopper.asked:
            await stopper.wait_for_jobs()
    except ThanxError as error:
        if isinstance(error, BatchError) or stream.run.handles:
            return error
        with before_sending():
            raise
    except asyncio.CancelledError:
        if not stopper.asked:
            raise
    return None


class _Stopper:
    """Handles signals: the first one ends the current phase, the second one cancels everything."""

    def __init__(self, stream: IssuanceStream, display: Display) -> None:
        self.asked = False
        self.display = display
        self._stream = stream
        self._task = asyncio.current_task()
        self._waiting: asyncio.Timeout | None = None

    def __call__(self) -> None:
        if self.asked and self._task is not None:
            self._task.cancel()
        elif self._waiting is not None:
            self._waiting.reschedule(0)
        else:
            self.display.say(
                "Stopping: requests in progress finish first. Ctrl-C again ends now, and leaves them in doubt"
            )
            self._stream.stop()
        self.display.stopping()
        self.asked = True

    async def stop_at(self, moment: datetime) -> None:
        """Stop sending at a time, and a minute later leave in doubt what has no answer."""
        await sleep_until(moment)
        if not self.asked and self._waiting is None:
            self.display.say(f"It is {moment:%H:%M}: nothing more is sent")
            self()
            await asyncio.sleep(_GRACE)
            self()

    async def wait_for_jobs(self) -> None:
        try:
            async with asyncio.timeout(None) as self._waiting:
                await self._stream.run.wait()
        except TimeoutError:
            if not self._waiting or not self._waiting.expired():
                raise


def conclude(
    run: IssuanceRun,
    report: IssuanceReport,
    problem: ThanxError | None,
    failures: FailureFile | None = None,
    *,
    stopped: bool = False,
    unread: str = "",
    of: str = "read from the input",
    answer: Answer | None = None,
) -> int:
    """Show the report, what was not read, and the error that stopped the run; returns the exit status."""
    answer = answer or Answer()
    listed, unlisted = "", None
    try:  # first, because standard output may be closed
        listed = failures.write(report, run.unsent_guests) if failures else ""
    except OSError as error:
        unlisted = error
    answer.show(lambda: report_fields(report), lambda: show_report(report, of=of))
    for note in filter(None, (listed, unread)):
        answer.line(note)
    if unlisted:
        warn(f"{unlisted}; the report is still accurate")
    if problem:
        cause = (problem.__cause__ if isinstance(problem, BatchError) else None) or problem
        warn(f"stopped: {as_typed(cause)}")
        answer.show(lambda: {"error": as_typed(cause)})
    if stopped:
        warn("stopped as asked; the input was not read to its end, or jobs still run")
    if problem or stopped or report.unsent or report.in_doubt or report.unfinished:
        return STOPPED
    return SOME_FAILED if report.failed or report.rejected or unlisted else ISSUED


@contextmanager
def on_signals(call: Callable[[], object]) -> Iterator[None]:
    """Call on SIGINT, SIGTERM and SIGHUP, on platforms where the event loop can handle signals.

    A SIGHUP that the parent process has set to be ignored, as `nohup` does, stays ignored.
    """
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    installed = []
    for number in numbers:
        try:
            loop.add_signal_handler(number, call)
        except (NotImplementedError, RuntimeError):
            continue
        installed.append(number)
    try:
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)
