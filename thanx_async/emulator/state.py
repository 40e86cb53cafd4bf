"""What the emulated Thanx knows: campaigns, jobs and who was rewarded how often."""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import attrs

MERCHANT = "k2lye10h32l5wzo"
FailureRule = Callable[[str, str], str | None]
"""Takes an identifier's type and value; gives the reason why it fails, or None."""

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PHONE = re.compile(r"\+[1-9]\d{6,14}")


def unknown_guests(kind: str, value: str) -> str | None:
    """The default rule: ``unknown...@...`` and ``+1999...`` are nobody's."""
    unknown = value.startswith("+1999") if kind == "phone" else value.startswith("unknown")
    return "User not found" if unknown else None


class Refused(Exception):  # noqa: N818 - an answer, not a failure of the emulator
    """An answer with the error envelope."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@attrs.frozen
class JobSpeed:
    """How fast jobs run: identifiers a second after a delay in seconds, and seconds for a revocation."""

    identifiers_per_second: float = 5000.0
    start_delay: float = 0.2
    revoke_seconds: float = 0.5

    def __attrs_post_init__(self) -> None:
        if self.identifiers_per_second <= 0 or min(self.start_delay, self.revoke_seconds) < 0:
            raise ValueError("JobSpeed needs a positive speed and delays of 0 s or more")


@attrs.define
class Job:
    """A job; its course follows from the time that has passed."""

    id: str
    merchant_id: str
    campaign_id: str
    variant_id: str
    total: int
    failures: list[dict[str, object]]
    rewarded: list[str]
    created: float
    speed: JobSpeed
    revoking: float | None = None

    def state(self, now: float) -> str:
        if self.revoking is not None:
            return "revoked" if now >= self.revoking + self.speed.revoke_seconds else "revoking"
        if now < self.created + self.speed.start_delay:
            return "pending"
        return "completed" if self.processed(now) == self.total else "processing"

    def processed(self, now: float) -> int:
        running = now - self.created - self.speed.start_delay
        return max(0, min(self.total, int(running * self.speed.identifiers_per_second)))

    def as_json(self, now: float, epoch: datetime) -> dict[str, object]:
        """The job of the envelope; ``epoch`` is the wall time at 0 of the clock."""
        processed, state = self.processed(now), self.state(now)
        failed = sum(1 for row in self.failures if int(str(row["identifier_index"])) < processed)
        started = self.created + self.speed.start_delay
        ended = started + self.total / self.speed.identifiers_per_second
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
            "created_at": _iso(epoch, self.created),
            "started_at": _iso(epoch, started) if now >= started else None,
            "completed_at": _iso(epoch, ended) if processed == self.total else None,
        }
        if processed == self.total:
            job["summary"] = {
                "success_count": processed - failed,
                "failure_count": failed,
                "failures": self.failures,
            }
        return job


def _iso(epoch: datetime, at: float) -> str:
    return (epoch + timedelta(seconds=at)).astimezone(UTC).isoformat().replace("+00:00", "Z")


class State:
    """Everything that outlives a request."""

    def __init__(self, speed: JobSpeed, fails: FailureRule, *, track_guests: bool) -> None:
        self._speed = speed
        self._fails = fails
        self._track = track_guests
        self.jobs: dict[str, Job] = {}
        self.rewards: Tally[str] = Tally()
        self.merchants = [{"id": MERCHANT, "name": "Seed Bakery", "handle": "seed-bakery"}]
        self.templates = [_template(number) for number in range(1, 4)]
        self.campaigns = {campaign["id"]: campaign for campaign in _campaigns()}

    def check_merchant(self, merchant_id: object) -> None:
        if merchant_id != MERCHANT:
            raise Refused(404, "RESOURCE_NOT_FOUND", "merchant_id names no merchant of this credential")

    def issue(self, body: dict[str, object], now: float) -> Job:
        """Check a decoded body of Issue Rewards and start its job."""
        self.check_merchant(body["merchant_id"])
        campaign = self.campaigns.get(str(body["campaign_id"]))
        if campaign is None:
            raise Refused(404, "RESOURCE_NOT_FOUND", "campaign_id names no campaign")
        variants = campaign["variants"]
        if not isinstance(variants, list) or body["variant_id"] not in [row["id"] for row in variants]:
            raise Refused(422, "UNPROCESSABLE_ENTITY", "variant_id does not belong to the campaign")
        guests = _guests(body["identifiers"])
        failures: list[dict[str, object]] = []
        rewarded: list[str] = []
        for index, (kind, value) in enumerate(guests):
            if reason := self._fails(kind, value):
                failures.append({"identifier_index": index, "identifier_type": kind, "error": reason})
            elif self._track:
                rewarded.append(value)
        self.rewards.update(rewarded)
        job = Job(
            id=f"job{len(self.jobs) + 1:06d}",
            merchant_id=MERCHANT,
            campaign_id=str(body["campaign_id"]),
            variant_id=str(body["variant_id"]),
            total=len(guests),
            failures=failures,
            rewarded=rewarded,
            created=now,
            speed=self._speed,
        )
        self.jobs[job.id] = job
        return job

    def job(self, job_id: str, merchant_id: object) -> Job:
        self.check_merchant(merchant_id)
        if job_id not in self.jobs:
            raise Refused(404, "RESOURCE_NOT_FOUND", "there is no such issuance job")
        return self.jobs[job_id]

    def revoke(self, job: Job, now: float) -> None:
        if job.state(now) not in {"completed", "failed"}:
            raise Refused(422, "UNPROCESSABLE_ENTITY", f"a job that is {job.state(now)} cannot be revoked")
        job.revoking = now
        self.rewards.subtract(job.rewarded)


def _guests(rows: object) -> list[tuple[str, str]]:
    if not isinstance(rows, list) or not 1 <= len(rows) <= 10_000:
        raise Refused(400, "BAD_REQUEST", "identifiers must be an array of 1 to 10,000")
    return [_guest(index, row) for index, row in enumerate(rows)]


def _guest(index: int, row: object) -> tuple[str, str]:
    match row:
        case {"type": "email", "value": str(value)}:
            if _EMAIL.fullmatch(value):
                return "email", value
            raise Refused(400, "USER_EMAIL_INVALID", f"identifiers[{index}] is not an e-mail address")
        case {"type": "phone", "value": str(value)}:
            if _PHONE.fullmatch(value):
                return "phone", value
            raise Refused(400, "USER_PHONE_INVALID", f"identifiers[{index}] is not an E.164 phone number")
    raise Refused(400, "BAD_REQUEST", f"identifiers[{index}] needs a type (email, phone) and a value")


def new_campaign(fields: dict[str, object], number: int) -> dict[str, object]:
    """The stored form of a campaign that is created."""
    for name in ("name", "start_at", "end_at", "redeemable_from", "redeemable_to"):
        if not isinstance(fields.get(name), str):
            raise Refused(400, "BAD_REQUEST", f"campaign.{name} is missing or not a string")
    variants = fields.get("variants")
    if not isinstance(variants, list) or not 1 <= len(variants) <= 4:
        raise Refused(400, "BAD_REQUEST", "campaign.variants must be an array of 1 to 4")
    rows = [_variant(number, index, row) for index, row in enumerate(variants)]
    known = ("name", "objective", "fine_print", "start_at", "end_at", "redeemable_from", "redeemable_to")
    stored = {name: fields.get(name) for name in known}
    return {"id": f"camp{number:04d}", **stored, "time_zone": "UTC", "variants": rows}


def _variant(number: int, index: int, row: object) -> dict[str, object]:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        raise Refused(400, "BAD_REQUEST", f"campaign.variants[{index}].name is missing")
    return {
        "id": f"var{number:04d}{index}",
        "name": row["name"],
        "reward_template_id": row.get("reward_template_id"),
    }


def _campaigns() -> Iterable[dict[str, object]]:
    dates = dict.fromkeys(("start_at", "redeemable_from"), "2025-01-01T00:00:00Z")
    dates |= dict.fromkeys(("end_at", "redeemable_to"), "2035-01-01T00:00:00Z")
    treat = {"id": "var_treat1", "name": "Treat", "reward_template_id": "tmpl001"}
    control = {"id": "var_control1", "name": "Control", "reward_template_id": None}
    rows = {
        "camp_abc123": [treat, control],
        "camp_def456": [{**treat, "id": "var_treat2"}],
        "camp_ghi789": [control],
    }
    for campaign_id, variants in rows.items():
        yield {
            "id": campaign_id,
            "name": f"Campaign {campaign_id[-3:]}",
            "objective": None,
            "fine_print": None,
            "time_zone": "UTC",
            "variants": variants,
            **dates,
        }


def _template(number: int) -> dict[str, object]:
    row = {"id": f"tmpl{number:03d}", "name": f"Treat {number}", "type": "discount", "subtype": "amount"}
    return {
        **row,
        "description": "",
        "fine_print": "",
        "discount": {},
        "redemption_venue": "all",
        "images": {},
    }
