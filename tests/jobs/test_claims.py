"""Whether an event tells a job's outcome, decided from what was sent; and when events are believed."""

import logging
from datetime import UTC, datetime, timedelta
from typing import TypedDict, Unpack

import attrs
import pytest

from thanx_async._batches import Trust
from thanx_async.jobs import Claim, EventTrust, Guests, difference
from thanx_async.jobs._claims import Sent, weighed
from thanx_async.models import IssuanceFailure, IssuanceJob, JobSummary
from thanx_async.webhooks import EventFailure, RewardBatchCompleted

CREATED = datetime(2026, 11, 24, 6, tzinfo=UTC)
SENT = ["jane@example.com", "+14155551234", "joe@example.com", "twin@example.com", "twin@example.com"]
ACCEPTED = IssuanceJob("job1", "pending", "camp", "var", total_count=5, created_at=CREATED)
UNKNOWN = "User not found"


class Fields(TypedDict, total=False):
    issuance_job_id: str
    state: str
    merchant_id: str | None
    total_count: int
    issued_count: int
    failed_count: int
    failures: tuple[EventFailure, ...]
    timestamp: datetime | None


def event(*failed: str, **fields: Unpack[Fields]) -> RewardBatchCompleted:
    """An event of the job, in which these guests have failed."""
    told = Fields(
        issuance_job_id="job1",
        state="completed",
        merchant_id="m1",
        total_count=5,
        issued_count=5 - len(failed),
        failed_count=len(failed),
        failures=tuple(EventFailure(UNKNOWN, guest) for guest in failed),
        timestamp=CREATED + timedelta(seconds=1),
    )
    told.update(fields)
    return RewardBatchCompleted(**told)


def weigh(
    told: RewardBatchCompleted, *, job: IssuanceJob = ACCEPTED, known: bool = True
) -> IssuanceJob | str:
    return weighed(Claim.of(told), Sent(job, "m1", 5, Guests.of(SENT) if known else None))


@pytest.mark.parametrize(
    "spelled",
    [
        ["jane@example.com", "+14155551234"],
        ["+1 (415) 555-1234", " JANE@Example.com "],
        ["'+1.415.555.1234", "'jane@example.com"],
    ],
)
def test_an_event_that_agrees(spelled: list[str]) -> None:
    """However it spells and orders the guests, the job is the one that a poll tells."""
    job = weigh(event(*spelled))
    assert job == IssuanceJob(
        "job1",
        "completed",
        "camp",
        "var",
        total_count=5,
        processed_count=5,
        success_count=3,
        failure_count=2,
        progress_percent=100,
        created_at=CREATED,
        completed_at=CREATED + timedelta(seconds=1),
        summary=JobSummary(
            3, 2, (IssuanceFailure(0, "email", UNKNOWN), IssuanceFailure(1, "phone", UNKNOWN))
        ),
        by_event=True,
    )


@pytest.mark.parametrize(
    "told",
    [
        event("stranger@example.com"),
        event("user_8123"),
        event("twin@example.com"),
        event("jane@example.com", "JANE@example.com"),
        event("jane@example.com", failures=()),
        event("jane@example.com", failures=(EventFailure(UNKNOWN, "jane@example.com"),) * 2),
        event("jane@example.com", failures=(EventFailure(UNKNOWN),)),
        event(failures=(EventFailure(UNKNOWN, "jane@example.com"),)),
        event(issued_count=6),
        event(total_count=6, issued_count=6),
        event(failed_count=6, issued_count=-1),
        event(merchant_id="m2"),
        event(state="failed"),
        event(state="revoked"),
        event(timestamp=CREATED - timedelta(seconds=6)),
        event(timestamp=None),
    ],
)
def test_an_event_that_does_not_agree(told: RewardBatchCompleted) -> None:
    """Strangers, a guest twice, lists cut short, sums, merchants, states, replays: a poll must tell."""
    reason = weigh(told)
    assert isinstance(reason, str)
    assert "@" not in reason


def test_what_may_be_missing() -> None:
    """The merchant, and the guests if nobody has failed, but not the time of the job."""
    assert isinstance(weigh(event(merchant_id=None)), IssuanceJob)
    assert isinstance(weigh(event(timestamp=CREATED - timedelta(seconds=4))), IssuanceJob)
    assert isinstance(weigh(event(), known=False), IssuanceJob)
    assert isinstance(weigh(event("jane@example.com"), known=False), str)
    assert isinstance(weigh(event(), job=attrs.evolve(ACCEPTED, created_at=None)), str)


def test_differences() -> None:
    """A poll confirms an event to the letter or not; one that does not tell who failed says neither."""
    told = weigh(event("jane@example.com"))
    assert isinstance(told, IssuanceJob)
    polled = attrs.evolve(told, by_event=False, started_at=CREATED)
    assert difference(told, polled) == ""
    other = JobSummary(4, 1, (IssuanceFailure(2, "email", UNKNOWN),))
    reworded = JobSummary(4, 1, (IssuanceFailure(0, "email", "no such user"),))
    fewer = JobSummary(3, 2, (IssuanceFailure(0, "email", UNKNOWN), IssuanceFailure(2, "email", UNKNOWN)))
    for change in (other, reworded, fewer):
        assert difference(told, attrs.evolve(polled, summary=change))
    assert difference(told, attrs.evolve(polled, state="failed"))
    assert difference(told, attrs.evolve(polled, summary=JobSummary(4, 1))) is None


class Job:
    """A job of which an event has told."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def believe(self) -> None:
        self.log.append("believed")

    def retract(self) -> None:
        self.log.append("retracted")


def test_trust_is_earned() -> None:
    """Three confirmations, one of them with failures; what waited is believed at once."""
    trust, job = EventTrust(is_active=True), Job()
    trust.claim(job)
    for _ in range(5):
        trust.confirm(failures=False)
    assert job.log == []
    trust.confirm(failures=True)
    assert job.log == ["believed"]
    later = Job()
    trust.claim(later)
    assert later.log == ["believed"]
    assert trust.take_news() == Trust(6, 1)
    assert not trust.has_news


def test_one_disagreement_ends_it_for_good(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever was believed is polled, an error is logged once, and no confirmation helps."""
    trust, job = EventTrust(is_active=True), Job()
    trust.adopt(Trust(3, 1))
    trust.settled(job)
    with caplog.at_level(logging.ERROR):
        trust.disagree("job1", "other guests have failed")
        trust.disagree("job2", "other guests have failed")
    assert job.log == ["retracted"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "job1" in caplog.text
    for _ in range(5):
        trust.confirm(failures=True)
    trust.adopt(Trust(3, 1))
    later = Job()
    trust.claim(later)
    assert later.log == []
    assert trust.take_news().broken


def test_trust_is_shared() -> None:
    """What other processes have learned counts, good and bad."""
    trust, job = EventTrust(is_active=True), Job()
    trust.claim(job)
    trust.adopt(Trust(3, 1))
    assert job.log == ["believed"]
    trust.settled(job)
    trust.adopt(Trust(4, 1, broken=True))
    assert job.log == ["believed", "retracted"]
    assert not trust.known.is_earned


def test_one_in_a_hundred_is_sampled() -> None:
    """Nobody without the key can tell which, and the same job gets the same answer."""
    jobs = [f"job{number}" for number in range(20_000)]
    chosen = [
        {job for job in jobs if EventTrust(is_active=True, key=key).is_sampled(job)}
        for key in (b"a", b"b", b"b")
    ]
    assert 100 < len(chosen[0]) < 300
    assert chosen[0] != chosen[1] == chosen[2]
