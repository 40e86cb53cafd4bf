"""The guard rails of a run: how many rewards at most, and how many failures are too many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Sequence

import attrs

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, GuardError
from thanx_async._core.messages import Message, Name
from thanx_async.batching._batch import Batch
from thanx_async.identifiers import MAX_BATCH
from thanx_async.jobs import JobHandle, JobTimeoutError


@attrs.frozen
class Guard:
    """The blast radius of a run.

    Args:
        max_rewards: the run stops before the batch that could exceed this many rewards. Guests who are
            known to have got none do not count; whoever is in doubt does, and so does what earlier
            processes sent under the same ``run_id``, with a ledger.
        canary: the first batch holds this many guests (1 to 10,000), and nothing else is sent before its
            job is finished. Needs ``max_failure_rate``.
        max_failure_rate: from 0 to 1. The run stops once more than this part of the guests in finished jobs
            have failed, the canary's first. Jobs are looked at while the run goes on, the newest first and
            as often as issuing leaves room in the rate limits. Rejected items and duplicates do not count:
            they were never sent.
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


Seen = Callable[[Exception | None], None]

_AT_ONCE = 4
_PATIENCE = 15.0


def is_too_much(guard: Guard, batches: Sequence[Batch], sending: Container[Batch], batch: Batch) -> bool:
    """Whether there could be more rewards than allowed if the batch was sent as well."""
    most = guard.max_rewards
    return most is not None and _possible(batches, sending, batch) + len(batch.positions) > most


def check_rewards(guard: Guard, batches: Sequence[Batch], batch: Batch) -> None:
    """Before a batch is sent.

    Raises:
        GuardError: with it there could be more rewards than allowed.
    """
    if is_too_much(guard, batches, (), batch):
        possible = _possible(batches, (), batch)
        raise GuardError(
            Message(
                Name("max_rewards"),
                f" is {guard.max_rewards:,}: {possible:,} guests may have a reward already, and the next"
                f" batch has {len(batch.positions):,}",
            )
        )


def _possible(batches: Sequence[Batch], sending: Container[Batch], batch: Batch) -> int:
    others = (other for other in batches if other is not batch)
    return sum(len(other.positions) if other in sending else other.possible_rewards for other in others)


def check_failures(guard: Guard, batches: Sequence[Batch]) -> None:
    """When a job has ended.

    Raises:
        GuardError: too many of the guests in ended jobs have failed.
    """
    failed = ended = 0
    for batch in batches:
        batch.look()
        if (least := batch.least_failed) is not None:
            failed += least
            ended += len(batch.positions)
    most = guard.max_failure_rate
    if most is not None and failed > most * ended:
        raise GuardError(
            Message(
                Name("max_failure_rate"),
                f" is {most:.1%}: {failed:,} of {ended:,} guests in finished jobs have failed"
                f" ({failed / ended:.1%})",
            )
        )


class FailureWatch:
    """Looks at the newest jobs while a run goes on; when polls are scarce, old ones tell nothing new.

    A few are waited for at once, each for some time only, since some may hang: a few times as long as any
    job has taken, and longer again as long as none ends. Each is looked at before it is given up.

    Args:
        batches: the batches of the run, as it goes on.
        started: how many of them are under way or accepted.
        seen: told of each job that has ended, or of the error that stops the run.
    """

    def __init__(
        self, guard: Guard, batches: Sequence[Batch], started: Callable[[], int], seen: Seen
    ) -> None:
        self._guard = guard
        self._batches = batches
        self._started = started
        self._seen = seen
        self._open: list[Batch] = []
        self._known = 0
        self._looking: set[Batch] = set()
        self._given_up: set[Batch] = set()
        self._patience = _PATIENCE
        self._ended = 0

    async def run(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Until too many have failed; ``changed`` returns when there may be other jobs."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    if self._some_ended():
                        check_failures(self._guard, self._batches[: self._started()])
                    while len(self._looking) < _AT_ONCE and (newest := self._newest()):
                        self._looking.add(newest[0])
                        group.create_task(self._look(*newest))
                    await changed()
        except* Exception as errors:  # noqa: BLE001 - of a poll, or the guard's
            self._seen(errors.exceptions[0])

    def _some_ended(self) -> bool:
        """Whether jobs have ended since the last time, whoever has looked at them."""
        started = self._started()
        self._open += self._batches[self._known : started]
        self._known = started
        before = len(self._open)
        self._open = [batch for batch in self._open if not (batch.settled or batch.is_unclear)]
        return len(self._open) < before

    def _newest(self) -> tuple[Batch, JobHandle] | None:
        for left in (self._given_up, set[Batch]()):
            for batch in reversed(self._open):
                if batch.handle and batch not in left and batch not in self._looking:
                    self._given_up &= left
                    return batch, batch.handle
        return None

    async def _look(self, batch: Batch, handle: JobHandle) -> None:
        patience, ended, began = self._patience, self._ended, asyncio.get_running_loop().time()
        try:
            job = await handle.wait(timeout=patience)
            self._patience = max(self._patience, 4 * (asyncio.get_running_loop().time() - began))
        except JobTimeoutError:
            job = await handle.refresh()  # it may not have been due, next to one that hangs
        if job.is_finished:
            self._ended += 1
        else:
            self._given_up.add(batch)
            if self._ended == ended:
                self._patience = max(self._patience, 2 * patience)
        self._looking.discard(batch)
        self._seen(None)


async def try_canary(guard: Guard, batch: Batch) -> None:
    """Wait for the first batch's job.

    Raises:
        GuardError: too many have failed, or what became of them cannot be told.
    """
    if batch.handle and not batch.settled:
        await batch.handle.wait()
        batch.look()
    if not batch.settled:
        raise GuardError("what became of the canary's guests cannot be told, so that nothing more is sent")
    check_failures(guard, [batch])
