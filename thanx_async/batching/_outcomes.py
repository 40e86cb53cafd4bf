"""What became of a single guest, for as long as it is remembered which job the guest went into."""

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
    """What became of one guest.

    ``reason`` says why there is no reward, None if ``issued``. ``in_doubt``: the job ended, and its numbers
    leave open whether this guest got one. ``position`` counts the guests of this batcher's opening from 0.
    """

    issued: bool
    reason: str | None
    in_doubt: bool
    job_id: str
    position: int


_MOST_BATCHES = 10_000


class _Accepted:
    """One accepted batch; who stands where in it is worked out when somebody asks."""

    __slots__ = ("_failures", "_job", "_places", "handle", "values")

    def __init__(self, handle: JobHandle, values: Sequence[str]) -> None:
        self.handle = handle
        self.values = values
        self._places: dict[str, int] | None = None
        self._job: IssuanceJob | None = None
        self._failures: dict[int, str] | None = None

    def place(self, value: str) -> int | None:
        if self._places is None:
            self._places = {value: index for index, value in enumerate(self.values)}
        return self._places.get(value)

    def outcome(self, index: int, job: IssuanceJob) -> Outcome:
        if self._job is not job:
            failures = outcome_of(job, len(self.values))
            self._job, self._failures = job, None if failures is None else dict(failures)
        reason = "Thanx's numbers leave it open" if self._failures is None else self._failures.get(index)
        return Outcome(
            issued=reason is None,
            reason=reason,
            in_doubt=self._failures is None,
            job_id=self.handle.id,
            position=self.handle.start + index,
        )


class RememberedGuests:
    """Remembers the batches of the last ``most`` accepted guests. Small batches cost about as much as large
    ones, so their number is bounded as well."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._batches: deque[_Accepted] = deque()

    def accepted(self, handle: JobHandle, values: Sequence[str]) -> None:
        self._batches.append(_Accepted(handle, values))
        self._count += len(values)
        while len(self._batches) > 1 and (self._count > self._most or len(self._batches) > _MOST_BATCHES):
            self._count -= len(self._batches.popleft().values)

    async def of(self, value: str, *, timeout: float | None) -> Outcome:
        for batch in reversed(self._batches):
            if (index := batch.place(value)) is not None:
                return batch.outcome(index, await batch.handle.wait(timeout=timeout))
        raise ConfigurationError(
            "nothing is known of this guest: outcome() is for guests whose add() has returned, and remembers"
            f" the last {self._most:,}",
            argument="identifier",
        )
