"""Issuance jobs. Their state follows from the time that has passed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import attrs

from thanx_async.emulator import checks
from thanx_async.emulator.clock import Clock
from thanx_async.emulator.guests import Failure

UNKNOWN_STATE = "under_review"
"""A state that is not documented."""


@attrs.frozen
class JobSpeed:
    """How fast jobs run.

    Args:
        identifiers_per_second: how many identifiers a job processes per second.
        start_delay: seconds before a job starts.
        revoke_seconds: how long a revocation takes, in seconds.
    """

    identifiers_per_second: float = 5000.0
    start_delay: float = 0.2
    revoke_seconds: float = 0.5

    def __attrs_post_init__(self) -> None:
        checks.positive("JobSpeed.identifiers_per_second", self.identifiers_per_second)
        checks.seconds("JobSpeed.start_delay", self.start_delay)
        checks.seconds("JobSpeed.revoke_seconds", self.revoke_seconds)


@attrs.frozen
class Fate:
    """How a job ends: its last state, and the number of identifiers processed."""

    state: str
    processed: int

    @property
    def ends(self) -> bool:
        """Whether processing ends; a hanging job only stops."""
        return self.state in {"completed", "failed"}


@attrs.define
class Job:
    """A job. Times are seconds on the clock; ``rewarded`` is empty if guests are not tracked."""

    id: str
    merchant_id: str
    campaign_id: str
    variant_id: str
    total: int
    fate: Fate
    failures: Sequence[Failure]
    rewarded: Sequence[str]
    created: float
    speed: JobSpeed
    revoking: float | None = None

    @property
    def started(self) -> float:
        return self.created + self.speed.start_delay

    @property
    def ended(self) -> float:
        """When the last identifier is processed."""
        return self.reached(self.fate.processed)

    def reached(self, count: int) -> float:
        """When ``count`` identifiers are processed."""
        return self.started + count / self.speed.identifiers_per_second

    def state(self, now: float) -> str:
        if self.revoking is not None:
            is_over = now > self.revoking and now >= self.revoking + self.speed.revoke_seconds
            return "revoked" if is_over else "revoking"
        if now <= self.created or now < self.started:
            return "pending"
        return self.fate.state if now >= self.ended else "processing"

    def processed(self, now: float) -> int:
        if now >= self.ended > self.created:
            return self.fate.processed
        reached = (now - self.started) * self.speed.identifiers_per_second
        return int(max(0, min(self.fate.processed, reached)))

    def failed(self, processed: int) -> int:
        """How many of the first ``processed`` identifiers got no reward."""
        return bisect_left(self.failures, processed, key=lambda failure: failure.index)

    def as_json(self, clock: Clock, now: float) -> dict[str, object]:
        """The job as the API returns it."""
        processed, state = self.processed(now), self.state(now)
        pending = state == "pending"
        ended = self.fate.ends and now >= self.ended and not pending
        failed = self.failed(processed)
        job: dict[str, object] = {
            "id": self.id,
            "campaign_id": self.campaign_id,
            "variant_id": self.variant_id,
            "state": state,
            "total_count": self.total,
            "processed_count": processed,
            "success_count": processed - failed,
            "failure_count": failed,
            "progress_percent": processed * 100 // self.total,
            "created_at": clock.iso(self.created),
            "started_at": None if pending else clock.iso(self.started),
            "completed_at": clock.iso(self.ended) if ended else None,
        }
        if state == "completed":
            job["summary"] = self._summary(processed - failed)
        return job

    def _summary(self, successes: int) -> dict[str, object]:
        """The outcome of a completed job; ``failures`` is there only if there are any."""
        failures = [
            {"identifier_index": row.index, "identifier_type": row.kind, "error": row.reason}
            for row in self.failures
        ]
        summary: dict[str, object] = {"success_count": successes, "failure_count": len(failures)}
        return summary | {"failures": failures} if failures else summary
