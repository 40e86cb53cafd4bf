"""What became of a single guest, for as long as it is remembered which job the guest went into."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs

from thanx_async._report import outcome_of
from thanx_async.errors import ConfigurationError
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


class _Accepted:
    """One accepted batch; who stands where in it is worked out when first asked."""

    __slots__ = ("_failures", "_job", "_places", "_values", "handle")

    def __init__(self, handle: JobHandle, values: Sequence[str]) -> None:
        self.handle = handle
        self._values = values
        self._places: dict[str, int] | None = None
        self._job: IssuanceJob | None = None
        self._failures: dict[int, str] | None = None

    @property
    def values(self) -> Sequence[str]:
        return self._values

    def outcome(self, value: str, job: IssuanceJob) -> Outcome:
        if self._places is None:
            self._places = {value: index for index, value in enumerate(self._values)}
        if self._job is not job:
            failures = outcome_of(job, len(self._values))
            self._job, self._failures = job, None if failures is None else dict(failures)
        index = self._places[value]
        reason = "Thanx's numbers leave it open" if self._failures is None else self._failures.get(index)
        return Outcome(
            issued=reason is None,
            reason=reason,
            in_doubt=self._failures is None,
            job_id=self.handle.id,
            position=self.handle.start + index,
        )


class Outcomes:
    """Remembers the batches of the last ``most`` accepted guests, and of each guest the latest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._batches: deque[_Accepted] = deque()
        self._latest: dict[str, _Accepted] = {}

    def accepted(self, handle: JobHandle, values: Sequence[str]) -> None:
        batch = _Accepted(handle, values)
        self._batches.append(batch)
        self._latest.update(dict.fromkeys(values, batch))
        self._count += len(values)
        while len(self._batches) > 1 and self._count > self._most:
            self._forget(self._batches.popleft())

    def _forget(self, batch: _Accepted) -> None:
        self._count -= len(batch.values)
        for value in batch.values:
            if self._latest.get(value) is batch:
                del self._latest[value]

    async def of(self, value: str, *, timeout: float | None) -> Outcome:
        batch = self._latest.get(value)
        if batch is None:
            raise ConfigurationError(
                "nothing is known of this guest: outcome() is for guests whose add() has returned, and"
                f" remembers the last {self._most:,}"
            )
        return batch.outcome(value, await batch.handle.wait(timeout=timeout))
