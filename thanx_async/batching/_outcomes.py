"""`AsyncBatcher.outcome`: remembers the replies to recent batches, and tells one guest's outcome."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from thanx_async._batches import outcome_of
from thanx_async._core.columns import Numbered
from thanx_async._core.errors import ConfigurationError, ThanxError
from thanx_async.batching._waiting_room import Guest, Pending, Reply, result_of
from thanx_async.jobs import JobHandle
from thanx_async.models import IssuanceJob


@attrs.frozen
class Outcome:
    """The outcome for one guest.

    Attributes:
        issued: the guest got a reward.
        reason: why the guest got no reward, None if ``issued``.
        in_doubt: the job has ended, but its counts leave open whether this guest got a reward.
        job_id: the guest's job.
        position: the guest's place, from 0, among those that the batcher took since it was opened.
        by_event: a webhook told it, and no poll has confirmed it (`Events.OUTCOME`).
    """

    issued: bool
    reason: str | None
    in_doubt: bool
    job_id: str
    position: int
    by_event: bool = False


_MAX_BATCHES = 10_000


class _RememberedBatch:
    """One batch with its reply. The index of its guests is built on the first question."""

    __slots__ = ("_failures", "_indices", "_job", "_reply", "values")

    def __init__(self, reply: Reply | Pending, values: Sequence[str]) -> None:
        self._reply = reply
        self.values = values
        self._indices: dict[str, int] | None = None
        self._job: IssuanceJob | None = None
        self._failures: Numbered[str] | None = None

    def index_of(self, value: str) -> int | None:
        if self._indices is None:
            self._indices = {value: index for index, value in enumerate(self.values)}
        return self._indices.get(value)

    async def outcome(self, index: int, time_left: Callable[[], float | None]) -> Outcome:
        if isinstance(self._reply, Pending):
            self._reply = self._reply.reply or await self._reply.wait(time_left())
        handle = result_of(self._reply)
        return self._outcome(index, handle, await handle.wait(timeout=time_left()))

    def _outcome(self, index: int, handle: JobHandle, job: IssuanceJob) -> Outcome:
        if self._job is not job:
            self._job, self._failures = job, outcome_of(job, len(self.values))
        reason = "Thanx's counts leave it open" if self._failures is None else self._failures.get(index)
        return Outcome(
            issued=reason is None,
            reason=reason,
            in_doubt=self._failures is None,
            job_id=handle.id,
            position=handle.start + index,
            by_event=job.by_event,
        )


class RememberedGuests:
    """Remembers the replies to the batches of the last ``max_guests`` guests.

    A small batch costs about as much memory as a large one, so the number of batches is bounded as well.
    """

    def __init__(self, max_guests: int) -> None:
        self._max_guests = max_guests
        self._count = 0
        self._batches: deque[_RememberedBatch] = deque()

    def remember(self, reply: Reply | Pending, values: Sequence[str]) -> None:
        """Remember what a batch ended in, and forget the oldest ones beyond the bounds.

        Args:
            reply: the reply, or for a batch in doubt what waits until it is settled.
            values: the guests of the batch.
        """
        self._batches.append(_RememberedBatch(reply, values))
        self._count += len(values)
        while len(self._batches) > 1 and (
            self._count > self._max_guests or len(self._batches) > _MAX_BATCHES
        ):
            self._count -= len(self._batches.popleft().values)

    def remember_error(self, error: ThanxError, guests: list[Guest]) -> None:
        """Remember what the batch of these guests ended in, for those whose outcome is asked for."""
        if asked_for := [guest.value for guest in guests if guest.asked_for]:
            self.remember(error, asked_for)

    async def outcome_for(self, value: str, guest: Guest | None, timeout: float | None) -> Outcome:
        """Wait for the latest job of a guest, and tell its outcome for the guest.

        Args:
            value: the guest's identifier.
            guest: the guest, if still waiting or on the way.
            timeout: in seconds; None for as long as it takes.

        Raises:
            ConfigurationError: the guest is not remembered.
            AddTimeoutError: the guest's batch was still on the way, or in doubt, after ``timeout`` seconds.
            JobTimeoutError: the job did not finish within ``timeout`` seconds.
            ThanxError: the error that ended the guest's batch.
        """
        time_left = _countdown(timeout)
        if guest is not None:
            del value  # see `AsyncBatcher.add`
            guest.asked_for = True
            reply = await guest.wait(time_left())
            if isinstance(reply, ThanxError) and not reply.in_doubt:
                result_of(reply)
            value = guest.value
        found = self._latest(value)
        del value
        if found is None:
            raise ConfigurationError(
                "nothing is known of this guest: outcome() is for guests whose add() has returned, and"
                f" remembers the last {self._max_guests:,}",
                argument="identifier",
            )
        batch, index = found
        return await batch.outcome(index, time_left)

    def _latest(self, value: str) -> tuple[_RememberedBatch, int] | None:
        for batch in reversed(self._batches):
            if (index := batch.index_of(value)) is not None:
                return batch, index
        return None


def _countdown(timeout: float | None) -> Callable[[], float | None]:
    """The seconds that are left of a timeout, whenever it is called."""
    if timeout is None:
        return lambda: None
    now = asyncio.get_running_loop().time
    deadline = now() + timeout
    return lambda: deadline - now()
