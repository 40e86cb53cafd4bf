"""`AsyncBatcher.outcome`: remembers which job each recent guest went into, and tells one guest's outcome."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs

from thanx_async._batches import outcome_of
from thanx_async._core.errors import ConfigurationError
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
    """

    issued: bool
    reason: str | None
    in_doubt: bool
    job_id: str
    position: int


_MAX_BATCHES = 10_000


class _AcceptedBatch:
    """One accepted batch. The index of its guests is built on the first question."""

    __slots__ = ("_failures", "_indices", "_job", "handle", "values")

    def __init__(self, handle: JobHandle, values: Sequence[str]) -> None:
        self.handle = handle
        self.values = values
        self._indices: dict[str, int] | None = None
        self._job: IssuanceJob | None = None
        self._failures: dict[int, str] | None = None

    def index_of(self, value: str) -> int | None:
        if self._indices is None:
            self._indices = {value: index for index, value in enumerate(self.values)}
        return self._indices.get(value)

    def outcome(self, index: int, job: IssuanceJob) -> Outcome:
        if self._job is not job:
            failures = outcome_of(job, len(self.values))
            self._job, self._failures = job, None if failures is None else dict(failures)
        reason = "Thanx's counts leave it open" if self._failures is None else self._failures.get(index)
        return Outcome(
            issued=reason is None,
            reason=reason,
            in_doubt=self._failures is None,
            job_id=self.handle.id,
            position=self.handle.start + index,
        )


class RememberedGuests:
    """Remembers the batches of the last ``max_guests`` accepted guests.

    A small batch costs about as much memory as a large one, so the number of batches is bounded as well.
    """

    def __init__(self, max_guests: int) -> None:
        self._max_guests = max_guests
        self._count = 0
        self._batches: deque[_AcceptedBatch] = deque()

    def remember(self, handle: JobHandle, values: Sequence[str]) -> None:
        """Remember an accepted batch, and forget the oldest ones beyond the bounds."""
        self._batches.append(_AcceptedBatch(handle, values))
        self._count += len(values)
        while len(self._batches) > 1 and (
            self._count > self._max_guests or len(self._batches) > _MAX_BATCHES
        ):
            self._count -= len(self._batches.popleft().values)

    async def outcome_for(self, value: str, *, timeout: float | None) -> Outcome:
        """Wait for the latest job of a guest, and tell its outcome for the guest.

        Raises:
            ConfigurationError: the guest is not remembered.
            JobTimeoutError: the job did not finish within ``timeout`` seconds.
        """
        for batch in reversed(self._batches):
            if (index := batch.index_of(value)) is not None:
                return batch.outcome(index, await batch.handle.wait(timeout=timeout))
        raise ConfigurationError(
            "nothing is known of this guest: outcome() is for guests whose add() has returned, and remembers"
            f" the last {self._max_guests:,}",
            argument="identifier",
        )
