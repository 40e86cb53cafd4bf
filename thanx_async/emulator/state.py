"""The state of the emulator: jobs, answers by idempotency key, and each guest's rewards."""

from __future__ import annotations

from collections import Counter as Tally

import attrs

from thanx_async.emulator.answers import Refused
from thanx_async.emulator.catalogue import MERCHANT, Catalogue
from thanx_async.emulator.clock import Clock
from thanx_async.emulator.faults import Dice
from thanx_async.emulator.guests import FailureRule, Guests, rewarded
from thanx_async.emulator.jobs import Job, JobSpeed


@attrs.frozen
class Remembered:
    """The first answer to an idempotency key, and the digest of its request."""

    digest: str
    answer: bytes
    at: float


class State:
    """Everything that the emulator keeps between requests."""

    def __init__(
        self, clock: Clock, dice: Dice, speed: JobSpeed, fails: FailureRule, *, track_guests: bool
    ) -> None:
        self.clock = clock
        self.dice = dice
        self.speed = speed
        self.fails = fails
        self.catalogue: Catalogue = Catalogue()
        self.jobs: dict[str, Job] = {}
        self.rewards: Tally[str] = Tally()
        self._track = track_guests
        self._answers: dict[str, Remembered] = {}

    def answered(self, key: str | None, digest: str) -> bytes | None:
        """The stored answer to a key, None if the key is unknown or forgotten."""
        known = self._answers.get(key) if key else None
        if known is None:
            return None
        kept = self.dice.faults.forget_keys_after
        if kept is not None and self.clock.now() - known.at >= kept:
            return None
        if known.digest != digest:
            raise Refused(422, "this idempotency key was used with another body")
        return known.answer

    def remember(self, key: str | None, digest: str, answer: bytes) -> None:
        if key:
            self._answers[key] = Remembered(digest, answer, self.clock.now())

    def issue(self, campaign_id: str, variant_id: str, guests: Guests) -> Job:
        """Start a job. Its rewards count at once, however long it takes."""
        fate = self.dice.job(len(guests.values))
        failures = guests.failures(self.fails)
        job = Job(
            id=f"job{len(self.jobs) + 1:06d}",
            merchant_id=MERCHANT,
            campaign_id=campaign_id,
            variant_id=variant_id,
            total=len(guests.values),
            fate=fate,
            failures=failures,
            rewarded=rewarded(guests.values[: fate.processed], failures) if self._track else (),
            created=self.clock.now(),
            speed=self.speed,
        )
        self.rewards.update(job.rewarded)
        self.jobs[job.id] = job
        return job

    def job(self, job_id: str, merchant_id: object) -> Job:
        self.catalogue.check_merchant(merchant_id)
        if job_id not in self.jobs:
            raise Refused(404, "there is no such issuance job")
        return self.jobs[job_id]

    def revoke(self, job: Job) -> None:
        """Take back the rewards of a job."""
        state = job.state(self.clock.now())
        if state not in {"completed", "failed"}:
            raise Refused(422, f"a job that is {state} cannot be revoked")
        job.revoking = self.clock.now()
        self.rewards.subtract(job.rewarded)
