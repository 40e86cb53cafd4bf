"""Lanes: runs without an end, whose guests are put one by one. The protocol that each backend implements."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, StrEnum, auto
from itertools import accumulate, chain, pairwise
from time import time
from types import TracebackType
from typing import Protocol, Self

import attrs

from thanx_async._batches import BatchOutcome, Positions, batch_key, digest_of, values_of
from thanx_async.ledger._protocol import Ledger, RelayLedger, TrustLedger
from thanx_async.ledger._records import BatchRecord, BatchState, RunRecord

TARGET = ("base_url", "client_id", "campaign_id", "merchant_id", "variant_id")
"""The fields of a run that make its lane."""

LANES = "lane-"
"""The prefix of the ids of lanes. 32 hexadecimal digits follow."""

MOVED = "moved to PostgreSQL"
"""In the errors of all statements that would change a file whose outboxes were moved."""

REVOKED = "the outbox was revoked"
"""Why guests are cancelled who still waited when their lane was revoked."""

Encode = Callable[[list[str]], bytes]
Settlement = BatchOutcome | str | None
"""What became of a held batch: its outcome, or the id of its job; None if it was certainly not issued."""


class GuestState(StrEnum):
    """The state of a guest in an outbox.

    A guest is waiting, then in doubt while the batch is sent, accepted with the batch's job, and at last
    issued or failed. A waiting guest may be cancelled, or rejected as no identifier. A guest is held whose
    batch has to be settled by hand: it is in doubt and not sent again, or its job has ended without telling
    who has a reward.
    """

    WAITING = "waiting"
    IN_DOUBT = "in_doubt"
    HELD = "held"
    ACCEPTED = "accepted"
    ISSUED = "issued"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


@attrs.frozen
class NewGuest:
    """A guest to be put into a lane.

    Attributes:
        id: the first 16 bytes of a hash of the lane and the caller's id.
        digest: a hash of the id and the guest, to notice an id that is used for two guests.
        value: the normalized identifier.
    """

    id: bytes = attrs.field(repr=False)
    digest: int = attrs.field(repr=False)
    value: str = attrs.field(repr=False)


class Put(Enum):
    """What became of a guest who was put."""

    NEW = auto()
    KNOWN = auto()
    REUSED = auto()


@attrs.frozen
class Cut:
    """A batch that was just cut and recorded, and its request body."""

    batch: BatchRecord
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class Fate:
    """The fate of one guest.

    Attributes:
        state: the guest's state.
        reason: why the guest failed, was rejected, is held, or was cancelled by nobody's call.
        batch: the guest's batch, None before the guest is in one.
    """

    state: GuestState
    reason: str | None = None
    batch: BatchRecord | None = None


@attrs.frozen
class LaneView:
    """What waits in a lane.

    Attributes:
        waiting: the number of waiting guests, counted up to the number that was asked for.
        waited: for how many seconds the oldest of them has waited.
        heard: the ids of jobs that have ended, as webhooks reported at other processes.
    """

    waiting: int
    waited: float
    heard: tuple[str, ...] = ()


@attrs.frozen
class LaneReport:
    """The numbers of a lane, of its waiting guests and of its batches.

    Attributes:
        waiting, waited: the number of waiting guests, and for how long the oldest has waited.
        in_doubt, held, accepted: the numbers of batches. Held ones are not counted as anything else.
        owner: who drains the lane, None if nobody does.
        note: why nothing is sent at the moment, as the owner has written it down.
    """

    waiting: int
    waited: float
    in_doubt: int
    held: int
    accepted: int
    owner: str | None
    note: str | None


@attrs.frozen
class Seqs:
    """The numbers of a batch's guests in their lane, ascending, as ranges: starts and lengths."""

    _starts: array[int]
    _ends: array[int]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Seqs:
        """The ranges of ascending numbers."""
        breaks = [index for index in range(1, len(numbers)) if numbers[index] != numbers[index - 1] + 1]
        bounds = pairwise([0, *breaks, len(numbers)])
        return cls.of_ranges([(numbers[begin], numbers[end - 1] + 1) for begin, end in bounds])

    @classmethod
    def of_ranges(cls, ranges: Sequence[tuple[int, int]]) -> Seqs:
        """The numbers of ascending ranges, given as pairs of the first number and the one after the last."""
        lengths = accumulate(end - start for start, end in ranges)
        return cls(array("q", [start for start, _ in ranges]), array("q", lengths))

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def first(self) -> int:
        """The lowest number."""
        return self._starts[0]

    def index(self, number: int) -> int | None:
        """The place in the batch of the guest with this number, None if the guest is not in it."""
        part = bisect_right(self._starts, number) - 1
        if part < 0:
            return None
        before = self._ends[part - 1] if part else 0
        index = before + number - self._starts[part]
        return index if index < self._ends[part] else None

    def shifted(self, by: int) -> Seqs:
        """The same guests with other numbers, each larger by the same amount."""
        return Seqs(array("q", [start + by for start in self._starts]), self._ends)

    def split(self, first: int) -> tuple[Seqs, Seqs]:
        """The first so many numbers, and the others."""
        numbers = list(self)
        return Seqs.of(numbers[:first]), Seqs.of(numbers[first:])

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(range(start, start + length) for start, length in self.ranges())

    def ranges(self) -> list[tuple[int, int]]:
        """The ranges, as pairs of start and length."""
        lengths = [end - begin for begin, end in zip([0, *self._ends[:-1]], self._ends, strict=True)]
        return list(zip(self._starts, lengths, strict=True))

    def packed(self) -> bytes:
        """The ranges as bytes, in the same byte order on all machines."""
        return struct.pack(f"<{2 * len(self._starts)}q", *chain.from_iterable(self.ranges()))

    @classmethod
    def unpacked(cls, data: bytes) -> Seqs:
        """The numbers from the bytes of `packed`."""
        numbers = struct.unpack(f"<{len(data) // 8}q", data)
        return cls(array("q", numbers[::2]), array("q", accumulate(numbers[1::2])))


class LaneLedger(Ledger, TrustLedger, RelayLedger, Protocol):
    """A ledger with lanes. A lane is a run: it is claimed, and its batches are recorded, as for any run.

    `withdraw` lets the guests of a lane's batch wait again. Once a lane is revoked (`save_run`), all guests
    who wait are cancelled.
    """

    async def __aenter__(self) -> Self:
        """Open the ledger; blocks can be nested."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the ledger at the end of the outermost block."""

    async def aclose(self) -> None:
        """Close the ledger."""

    async def open_lane(self, lane: RunRecord) -> tuple[RunRecord, int]:
        """The lane with this target and its number. It is recorded if there is none.

        Args:
            lane: the target, and the settings as far as they are given; ``run_id`` is not looked at.

        Raises:
            ConfigurationError: the lane has another setting.
        """

    async def configure(self, run_id: str, *, keep_ids: float | None, replay_within: float | None) -> None:
        """Change settings of a lane, in seconds; None leaves one as it is."""

    async def put(self, run_id: str, guests: Sequence[NewGuest]) -> list[Put]:
        """Put guests into a lane, in one transaction. Returns for each guest what became of it.

        Nothing is put for a guest whose id is known. When this returns, the effect is durable.
        """

    async def view(self, run_id: str, most: int) -> LaneView:
        """What waits in the lane, counted up to ``most``. Each job that was heard of is told once."""

    async def cut(self, run_id: str, size: int, encode: Encode) -> Cut | None:
        """Cut and record a batch of the guests who have waited longest, in one transaction.

        No guest is in the batch twice: the second one waits for the next batch. A guest who is no valid
        identifier is rejected instead.

        Args:
            run_id: the lane, which must be claimed.
            size: the most guests in a batch.
            encode: makes the request body of a list of identifiers.

        Returns:
            The batch; None if nobody waits.

        Raises:
            LedgerError: another process has taken over the lane, or the lane was revoked.
        """

    async def split(self, run_id: str, number: int, encode: Encode) -> list[Cut]:
        """Replace a batch in doubt that was certainly not issued by its halves, in one transaction.

        Returns:
            Both halves, which are in doubt, with numbers and keys of their own.
        """

    async def open_batches(self, run_id: str) -> list[BatchRecord]:
        """The batches of a lane that are in doubt or accepted, ordered by number."""

    async def told_batches(self, run_id: str) -> list[BatchRecord]:
        """The batches of a lane whose outcome a webhook told, and no poll has confirmed."""

    async def batch_of(self, job_id: str) -> BatchRecord | None:
        """The batch that Thanx accepted as this job, or None."""

    async def hold(self, run_id: str, number: int, reason: str) -> None:
        """Give up a batch of a claimed lane. From then on it is only settled by hand.

        Raises:
            LedgerError: another process has taken over the lane, and may be sending the batch.
        """

    async def settle(self, run_id: str, number: int, settlement: Settlement) -> None:
        """Settle a held batch, also while another process drains the lane: it does nothing for the batch.

        A job is told to that process, as by `hear`. Guests of a batch that was not issued wait again.

        Raises:
            LedgerError: the batch is not held, or not any more, or it has a job already.
        """

    async def fate(self, run_id: str, guest: bytes) -> Fate | None:
        """The fate of the guest with this id, None if the id is unknown."""

    async def cancel(self, run_id: str, guest: bytes) -> bool:
        """Take a guest out who still waits. The id stays used. Returns whether the guest was taken out."""

    async def report(self, run_id: str) -> LaneReport:
        """The numbers of the lane."""

    async def rewards(self, run_id: str) -> int:
        """The number of guests who have or may have a reward, also in batches that were deleted since."""

    async def note(self, run_id: str, text: str | None, seconds: float) -> None:
        """Write down for `report` why nothing is sent for so many seconds."""

    async def hear(self, job_id: str) -> None:
        """Take in that a job has ended, for whoever drains its lane."""

    async def forget_guests(self, run_id: str, before: float) -> int:
        """Delete some of the ids that were put before a time, in seconds since 1970, and are finished.

        Returns:
            How many were deleted; 0 if none is left.
        """


def new_cut(run_id: str, number: int, seqs: Seqs, body: bytes) -> Cut:
    """A batch of a lane that is being recorded now, and its body."""
    positions = Positions(seqs.first, len(seqs))
    key, digest = batch_key(run_id, number), digest_of(body)
    return Cut(BatchRecord(run_id, number, key, positions, digest, recorded_at=time()), body)


def halves_of(seqs: Seqs, body: bytes) -> Iterator[tuple[Seqs, list[str]]]:
    """The guests of a batch in two halves, with their identifiers."""
    values = values_of(body)
    middle = len(values) // 2
    return zip(seqs.split(middle), (values[:middle], values[middle:]), strict=True)


def fate_in(batch: BatchRecord, index: int | None, replay_within: float) -> Fate:
    """The fate of the guest at this place of a batch."""
    if reason := batch.held_because(replay_within):
        return Fate(GuestState.HELD, reason, batch)
    if batch.state is BatchState.IN_DOUBT:
        return Fate(GuestState.IN_DOUBT, batch=batch)
    if batch.outcome is None:
        return Fate(GuestState.ACCEPTED, batch=batch)
    reasons = dict(batch.outcome.failures)
    if index in reasons:
        return Fate(GuestState.FAILED, reasons[index], batch)
    return Fate(GuestState.ISSUED, batch=batch)
