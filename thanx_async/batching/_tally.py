"""Running sums over the batches of a run, so that neither the guard nor a repr walks them."""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Countable(Protocol):
    """A batch."""

    def count(self) -> None:
        """Bring the share up to date."""


class Share(NamedTuple):
    """One batch's part of the sums, in guests.

    Attributes:
        issued, failed, unsent, in_doubt, unfinished: the fates; all guests of the batch are in them.
        possible: guests who may have a reward; all of them while the batch is being sent.
        ended: guests whose outcome counts for the failure rate.
        ended_failed: how many of those certainly have no reward.
    """

    issued: int = 0
    failed: int = 0
    unsent: int = 0
    in_doubt: int = 0
    unfinished: int = 0
    possible: int = 0
    ended: int = 0
    ended_failed: int = 0


class Tally:
    """The sum of the shares of a run's batches, which the batches themselves keep up to date.

    Attributes:
        sum: the sum. Some shares may be out of date: see `current`.
        sending: the batches that are being sent, whose requests change without telling them.
        ended: the batches whose jobs have just ended.
    """

    def __init__(self) -> None:
        self.sum: Share = Share()
        self.sending: set[Countable] = set()
        self.ended: set[Countable] = set()

    def replace(self, batch: Countable, old: Share, new: Share) -> None:
        """Take in that a batch's share has changed."""
        self.ended.discard(batch)
        if old != new:
            changed = zip(self.sum, old, new, strict=True)
            self.sum = Share(*[total - before + now for total, before, now in changed])

    def current(self) -> Share:
        """The sum as of now."""
        for batch in (*self.sending, *self.ended):
            batch.count()
        return self.sum
