"""`EventTrust`: whether the events of a client's credential are believed, and which jobs that concerns."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import Protocol
from weakref import WeakSet

from thanx_async._batches import Trust
from thanx_async._core.escaping import get_logger, printable

_log = get_logger("thanx_async.webhooks")

_SAMPLE = 100
_NOTHING = Trust()


class Witnessed(Protocol):
    """A job of which an event has told the outcome."""

    def believe(self) -> None:
        """Take the outcome that the event told."""

    def retract(self) -> None:
        """Wait for a poll again: the event is not believed any more."""


class EventTrust:
    """The trust in the events of one client's credential.

    Args:
        is_active: whether events may be believed at all.
        key: makes the choice of the jobs that are polled all the same unpredictable; a random one by default.

    Attributes:
        known: the trust as of now.
    """

    def __init__(self, *, is_active: bool, key: bytes | None = None) -> None:
        self.is_active = is_active
        self.known: Trust = _NOTHING
        self._news = _NOTHING
        self._key = key or secrets.token_bytes(16)
        self._waiting: WeakSet[Witnessed] = WeakSet()
        self._believed: WeakSet[Witnessed] = WeakSet()

    @property
    def has_news(self) -> bool:
        """Whether `take_news` has anything for the ledger."""
        return self._news is not _NOTHING

    def take_news(self) -> Trust:
        """What was learned since the last call."""
        news, self._news = self._news, _NOTHING
        return news

    def keep(self, news: Trust) -> None:
        """Keep news that the ledger has certainly not recorded."""
        if news != _NOTHING:
            self._news += news

    def adopt(self, recorded: Trust) -> None:
        """Take in what all processes have recorded of this credential."""
        broken = recorded.broken and not self.known.broken
        self.known = Trust(
            max(self.known.confirmed, recorded.confirmed),
            max(self.known.with_failures, recorded.with_failures),
            self.known.broken or recorded.broken,
        )
        if broken:
            _log.warning("an earlier event told something wrong: outcomes are polled, not taken from events")
            self._retract()
        self._believe_if_earned()

    def claim(self, job: Witnessed) -> None:
        """An event that agrees with what was sent has told the job's outcome."""
        self._waiting.add(job)
        self._believe_if_earned()

    def settled(self, job: Witnessed) -> None:
        """The job's outcome was taken from the event."""
        self._believed.add(job)

    def is_sampled(self, job_id: str) -> bool:
        """Whether the job is one of the hundred that is polled all the same."""
        digest = hashlib.blake2b(job_id.encode(errors="replace"), key=self._key, digest_size=8).digest()
        return int.from_bytes(digest, "big") % _SAMPLE == 0

    def confirm(self, *, failures: bool) -> None:
        """A poll has confirmed an event."""
        self._learn(Trust(1, int(failures)))
        self._believe_if_earned()

    def disagree(self, job_id: str, what: str) -> None:
        """An event has told something wrong. From now on every job is polled, and all that were believed."""
        if not self.known.broken:
            _log.error(
                "the signed event of job %s disagrees: %s. Events of this credential are no longer believed,"
                " and the outcomes that they told are polled. Has the webhook secret leaked?",
                printable(job_id),
                what,
            )
        self._learn(Trust(broken=True))
        self._retract()

    def _learn(self, news: Trust) -> None:
        self.known += news
        self._news += news

    def _believe_if_earned(self) -> None:
        if self.known.is_earned:
            for job in _drained(self._waiting):
                job.believe()

    def _retract(self) -> None:
        for job in _drained(self._believed):
            job.retract()


def _drained(jobs: WeakSet[Witnessed]) -> Iterator[Witnessed]:
    found = list(jobs)
    jobs.clear()
    return iter(found)
