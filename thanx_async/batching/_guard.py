"""The guard of a run: stops it at too many rewards, after a bad canary batch, or at too many failures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import attrs

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, GuardError
from thanx_async._core.messages import Message, Name
from thanx_async.batching._batch import Batch
from thanx_async.batching._tally import Tally
from thanx_async.identifiers import MAX_BATCH
from thanx_async.jobs import JobHandle, JobTimeoutError


@attrs.frozen
class Guard:
    """Limits the damage that a run can do.

    Args:
        max_rewards: the run stops before the batch that could exceed this many rewards. Guests who certainly
            got no reward do not count; guests in doubt do. With a ledger, rewards that earlier processes
            issued under the same ``run_id`` count too.
        canary: the first batch holds this many guests (1 to 10,000), and nothing else is sent before its
            job has finished. Needs ``max_failure_rate``.
        max_failure_rate: from 0 to 1. The run stops once more than this share of the guests in finished jobs
            have failed, beginning with the canary. Jobs are polled during the run, the newest first, as often
            as issuing leaves room in the rate limits. Rejected items and duplicates do not count: they were
            never sent.
    """

    max_rewards: int | None = attrs.field(default=None)
    canary: int | None = attrs.field(default=None)
    max_failure_rate: float | None = attrs.field(default=None)

    @max_rewards.validator
    def _check_rewards(self, _: object, value: object) -> None:
        if value is not None:
            checks.number("Guard.max_rewards", value, 0, whole=True)

    @canary.validator
    def _check_canary(self, _: object, value: object) -> None:
        if value is not None:
            checks.number("Guard.canary", value, 1, MAX_BATCH, whole=True)

    @max_failure_rate.validator
    def _check_rate(self, _: object, value: object) -> None:
        if value is not None:
            checks.number("Guard.max_failure_rate", value, 0, 1)
        elif self.canary is not None:
            raise ConfigurationError(
                Message(Name("Guard.canary"), " needs ", Name("max_failure_rate"), ", such as 0.1"),
                argument="Guard.canary",
            )


OnProgress = Callable[[Exception | None], None]

_MAX_WATCHED = 4
_FIRST_TIMEOUT = 15.0


def could_exceed(guard: Guard, tally: Tally, batch: Batch) -> bool:
    """Whether sending this batch too could exceed ``max_rewards``."""
    limit = guard.max_rewards
    return limit is not None and _possible_rewards(tally, batch) + len(batch.positions) > limit


def check_rewards(guard: Guard, tally: Tally, batch: Batch) -> None:
    """Check ``max_rewards`` before a batch is sent.

    Raises:
        GuardError: with this batch the run could exceed it.
    """
    if could_exceed(guard, tally, batch):
        raise GuardError(
            Message(
                Name("max_rewards"),
                f" is {guard.max_rewards:,}: {_possible_rewards(tally, batch):,} guests may have a reward"
                f" already, and the next batch has {len(batch.positions):,}",
            )
        )


def _possible_rewards(tally: Tally, batch: Batch) -> int:
    return tally.sum.possible - batch.possible_rewards


def check_failures(guard: Guard, *, failed: int, ended: int) -> None:
    """Check ``max_failure_rate`` after a job has ended.

    Args:
        failed: guests in ended jobs who certainly have no reward.
        ended: guests in ended jobs.

    Raises:
        GuardError: too many of them have failed.
    """
    limit = guard.max_failure_rate
    if limit is not None and failed > limit * ended:
        raise GuardError(
            Message(
                Name("max_failure_rate"),
                f" is {limit:.1%}: {failed:,} of {ended:,} guests in finished jobs have failed"
                f" ({failed / ended:.1%})",
            )
        )


class FailureWatch:
    """Polls the newest jobs during a run. Polls are scarce, and old jobs tell nothing new.

    Waits for a few jobs at a time, each with a timeout, because a job may hang. The timeout is a few times
    the longest job so far, and grows as long as no job ends. A job is polled once more before the watch moves
    on to another one.

    Args:
        tally: the run's sums, in which jobs count that other callers polled.
        on_progress: called after each job, or with the error that stops the run.
    """

    def __init__(self, guard: Guard, tally: Tally, on_progress: OnProgress) -> None:
        self._guard = guard
        self._tally = tally
        self._on_progress = on_progress
        self._waiting: list[Batch] = []
        self._given_up: list[Batch] = []
        self._watched = 0
        self._timeout = _FIRST_TIMEOUT
        self._ended = 0

    def take(self, batch: Batch) -> None:
        """Take in a batch whose delivery is over, or whose fate was recorded."""
        if batch.handle is not None and not batch.settled:
            self._waiting.append(batch)

    async def run(self, wait_for_change: Callable[[], Awaitable[None]]) -> None:
        """Watch until too many guests have failed.

        Args:
            wait_for_change: returns when there may be new jobs to watch.
        """
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._check()
                    while self._watched < _MAX_WATCHED and (newest := self._newest()):
                        self._watched += 1
                        group.create_task(self._watch_job(*newest))
                    await wait_for_change()
        except* Exception as errors:  # noqa: BLE001 - from a poll, or a GuardError
            self._on_progress(errors.exceptions[0])

    def _check(self) -> None:
        total = self._tally.current()
        check_failures(self._guard, failed=total.ended_failed, ended=total.ended)

    def _newest(self) -> tuple[Batch, JobHandle] | None:
        """The newest job to watch. Once every other job was given up, the given-up ones get another turn."""
        while self._waiting or self._given_up:
            if not self._waiting:
                self._given_up.sort(key=lambda batch: batch.number)
                self._waiting, self._given_up = self._given_up, []
            batch = self._waiting.pop()
            if batch.handle and not (batch.settled or batch.is_unclear):
                return batch, batch.handle
        return None

    async def _watch_job(self, batch: Batch, handle: JobHandle) -> None:
        timeout, ended, started_at = self._timeout, self._ended, asyncio.get_running_loop().time()
        try:
            job = await handle.wait(timeout=timeout)
            self._timeout = max(self._timeout, 4 * (asyncio.get_running_loop().time() - started_at))
        except JobTimeoutError:
            job = await handle.refresh()  # the schedule may not have polled it because of one that hangs
        if job.is_finished:
            self._ended += 1
            batch.settle_from_job()
        else:
            self._given_up.append(batch)
            if self._ended == ended:
                self._timeout = max(self._timeout, 2 * timeout)
        self._watched -= 1
        self._on_progress(None)


async def try_canary(guard: Guard, batch: Batch) -> None:
    """Wait for the job of the first batch.

    Raises:
        GuardError: too many guests have failed, or their outcome cannot be told.
    """
    if batch.handle and not batch.settled:
        await batch.handle.wait()
        batch.settle_from_job()
    if not batch.settled:
        raise GuardError("the outcome of the canary's guests cannot be told, so nothing more is sent")
    check_failures(guard, failed=len(batch.rows), ended=len(batch.positions))
