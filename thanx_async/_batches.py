"""Facts of a batch that several packages share: idempotency key, digest, positions, outcome."""

from __future__ import annotations

import hashlib
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

import attrs
import orjson

from thanx_async._core.columns import Numbered
from thanx_async.models import NO_FAILURES, IssuanceJob, counted

SERVICE_RUNS = "service-"
"""The prefix of the ids of runs without an input (`AsyncBatcher.add`). 32 hexadecimal digits follow."""

_CONFIRMED = 3


def batch_key(run_id: str, number: int) -> str:
    """The idempotency key of a run's batch. It depends only on the run and the number, not on the content."""
    return str(uuid5(NAMESPACE_URL, f"thanx-async:{run_id}:{number}"))


def digest_of(body: bytes) -> bytes:
    """The SHA-256 of a request's body, which identifies the body after it is deleted."""
    return hashlib.sha256(body).digest()


def values_of(body: bytes) -> list[str]:
    """The identifiers in a request body."""
    return [row["value"] for row in orjson.loads(memoryview(body))["identifiers"]]


@attrs.frozen
class Positions:
    """The positions of a batch's identifiers in the input, in order.

    For each skipped position, the object stores the number of identifiers before it. So a batch without gaps
    takes no memory, whatever its size.
    """

    first: int
    count: int
    _gaps: array[int] = attrs.field(factory=lambda: array("L"), repr=counted)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.first + index + bisect_right(self._gaps, index)

    def __iter__(self) -> Iterator[int]:
        return (self[index] for index in range(self.count))

    @property
    def last(self) -> int:
        """The position of the last identifier."""
        return self[self.count - 1]

    def index(self, position: int) -> int:
        """The index of the identifier at one of these positions; the inverse of ``positions[index]``."""
        offset = position - self.first
        skips = range(len(self._gaps))
        return offset - bisect_left(skips, offset, key=lambda number: self._gaps[number] + number)

    def packed(self) -> bytes:
        """The gaps as bytes, two for each skipped position, in the same byte order on all machines."""
        return _little_endian(array("H", self._gaps)).tobytes()

    @classmethod
    def unpacked(cls, first: int, count: int, data: bytes) -> Positions:
        """The positions from the bytes of `packed`."""
        gaps = array("H")
        gaps.frombytes(data)
        return cls(first, count, array("L", _little_endian(gaps)))


def _little_endian(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _as_failures(pairs: Iterable[tuple[int, str]]) -> Numbered[str]:
    return pairs if isinstance(pairs, Numbered) else Numbered.of(pairs)


@attrs.frozen
class BatchOutcome:
    """The final outcome of a batch.

    Attributes:
        state: the final state of the job, ``refused``, or ``split``: refused because of one guest, so that
            the halves are later batches of the same run, at the same positions.
        issued: the number of rewards.
        failures: the guests without a reward, as pairs of the index in the batch, from 0, and the reason.
        by_event: a webhook told it, and no poll has confirmed it.
    """

    state: str
    issued: int
    failures: Numbered[str] = attrs.field(default=(), converter=_as_failures, repr=counted)
    by_event: bool = False

    def packed(self) -> bytes:
        """The outcome as JSON, with each reason only once."""
        reasons: dict[str, list[int]] = {}
        for index, reason in self.failures:
            reasons.setdefault(reason, []).append(index)
        fields = {"state": self.state, "issued": self.issued, "failures": reasons}
        return orjson.dumps(fields | {"by_event": True} if self.by_event else fields)

    @classmethod
    def unpacked(cls, data: bytes) -> BatchOutcome:
        """The outcome from the bytes of `packed`."""
        fields = orjson.loads(data)
        pairs = ((index, reason) for reason, indices in fields["failures"].items() for index in indices)
        return cls(fields["state"], fields["issued"], sorted(pairs), fields.get("by_event") is True)


@attrs.frozen
class Trust:
    """How far the events of a credential can be trusted.

    Attributes:
        confirmed: the number of events that a poll has confirmed.
        with_failures: how many of these told of failures.
        broken: an event has disagreed with a poll or with another event. That is never forgotten.
    """

    confirmed: int = 0
    with_failures: int = 0
    broken: bool = False

    @property
    def is_earned(self) -> bool:
        """Whether events that agree with what was sent are believed."""
        return not self.broken and self.confirmed >= _CONFIRMED and self.with_failures > 0

    def __add__(self, other: Trust) -> Trust:
        return Trust(
            self.confirmed + other.confirmed,
            self.with_failures + other.with_failures,
            self.broken or other.broken,
        )


@attrs.frozen
class EndedJob:
    """What a webhook told of a job's end, without anything about its guests."""

    job_id: str
    state: str
    merchant_id: str | None
    total: int
    issued: int
    failed: int
    timestamp: datetime | None

    def packed(self) -> bytes:
        """The fields as JSON."""
        return orjson.dumps(attrs.asdict(self))

    @classmethod
    def unpacked(cls, data: bytes) -> EndedJob:
        """What was packed."""
        fields = orjson.loads(data)
        moment = fields.pop("timestamp")
        return cls(**fields, timestamp=None if moment is None else datetime.fromisoformat(moment))


def outcome_of(job: IssuanceJob, count: int) -> Numbered[str] | None:
    """The failures of a finished job, by index; None if its counts do not show which guests got a reward.

    Args:
        job: the finished job.
        count: the number of identifiers in the batch.
    """
    errors = (job.summary.failures if job.summary else NO_FAILURES).errors
    if job.state == "revoked":
        return _failed_all(errors, count, "reward revoked")
    successes = job.summary.success_count if job.summary else job.success_count
    indices = errors.numbers
    within = not indices or (indices[0] >= 0 and indices[-1] < count)
    if within and successes + len(indices) == count:
        return errors
    if job.state == "failed" and successes == job.success_count == 0 and job.is_counted:
        return _failed_all(errors, count, "the job failed")
    return None


def _failed_all(errors: Numbered[str], count: int, otherwise: str) -> Numbered[str]:
    """An error for each index, where the job tells none the one given."""
    reasons = dict(errors)
    return Numbered.of((index, reasons.get(index, otherwise)) for index in range(count))
