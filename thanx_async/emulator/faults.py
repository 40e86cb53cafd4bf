"""Faults on the network and inside Thanx: at random by seed and rate, or scripted."""

from __future__ import annotations

import random
from collections import Counter as Tally
from enum import StrEnum

import attrs

from thanx_async.emulator import checks
from thanx_async.emulator.checks import Setting, SettingError
from thanx_async.emulator.jobs import UNKNOWN_STATE, Fate


class Fault(StrEnum):
    """A fault that one request meets. "After" means after Thanx has acted on the request.

    A request that Thanx does not act on does not count against the rate limits either.
    """

    RESET_BEFORE = "reset_before"
    RESET_AFTER = "reset_after"
    ANSWER_LOST = "answer_lost"
    TRUNCATED = "truncated"
    HTML_502 = "html_502"
    HTML_504 = "html_504"
    ERROR_500 = "error_500"


BEFORE = frozenset({Fault.RESET_BEFORE, Fault.HTML_502, Fault.ERROR_500})
_JOB_STATES = {"job_hangs": "processing", "job_fails": "failed", "job_unknown": UNKNOWN_STATE}


@attrs.frozen
class Faults:
    """Random faults, at every endpoint.

    Rates are from 0 to 1. With the same seed, the same requests in the same order meet the same faults.

    Args:
        seed: The seed of the random numbers.
        reset_before: Rate of requests whose connection is reset before Thanx acts.
        reset_after: Rate of requests whose connection is reset after Thanx has acted.
        answer_lost: Rate of requests that Thanx acts on and never answers.
        truncated: Rate of answers that end in the middle.
        html_502: Rate of requests that a proxy refuses with an HTML page; Thanx does not act on them.
        html_504: Rate of requests that a proxy gives up on with an HTML page; Thanx acts on them.
        error_500: Rate of requests that Thanx answers with GENERIC_ERROR, without acting on them.
        delay: The delay of late answers, in seconds; Thanx acts at once.
        delay_rate: Rate of answers that are late.
        burst: Rate of requests that start a burst of 429 answers.
        burst_requests: The number of requests that a burst refuses.
        burst_seconds: How long a burst refuses all requests, in seconds, even more than burst_requests.
        retry_after: The Retry-After of the burst's answers, in seconds; by default they have none.
        forget_keys_after: Seconds after which an idempotency key is forgotten; by default never.
        lock_keys_for: Seconds for which a repetition of an idempotency key is answered with 409, as if its
            first request were still in progress.
        job_hangs: Rate of jobs that stop partway and stay "processing".
        job_fails: Rate of jobs that stop partway and end as "failed".
        job_unknown: Rate of jobs that stop partway, in an undocumented state.
    """

    seed: int = 0
    reset_before: float = 0
    reset_after: float = 0
    answer_lost: float = 0
    truncated: float = 0
    html_502: float = 0
    html_504: float = 0
    error_500: float = 0
    delay: float = 0
    delay_rate: float = 1
    burst: float = 0
    burst_requests: int = 3
    burst_seconds: float = 0
    retry_after: float | None = None
    forget_keys_after: float | None = None
    lock_keys_for: float = 0
    job_hangs: float = 0
    job_fails: float = 0
    job_unknown: float = 0

    def __attrs_post_init__(self) -> None:
        for name in (*Fault, *_JOB_STATES, "delay_rate", "burst"):
            checks.rate(f"Faults.{name}", getattr(self, name))
        for rates in (Fault, _JOB_STATES):
            self._check_sum([name for name in rates if getattr(self, name)])
        for name in ("delay", "burst_seconds", "lock_keys_for"):
            checks.seconds(f"Faults.{name}", getattr(self, name))
        for name in ("retry_after", "forget_keys_after"):
            if (value := getattr(self, name)) is not None:
                checks.seconds(f"Faults.{name}", value)
        checks.whole("Faults.seed", self.seed, None)
        checks.whole("Faults.burst_requests", self.burst_requests)
        if self.burst and not (self.burst_requests or self.burst_seconds):
            raise SettingError(
                Setting("Faults.burst"),
                " needs ",
                Setting("Faults.burst_requests"),
                " or ",
                Setting("Faults.burst_seconds"),
            )

    def _check_sum(self, names: list[str]) -> None:
        total = sum(getattr(self, name) for name in names)
        if total > 1 + 1e-9:
            given = [part for name in names for part in (" + ", Setting(f"Faults.{name}"))]
            raise SettingError(*given[1:], f" must be at most 1 in all, not {total:g}")


@attrs.frozen
class ScriptedAnswer:
    """The answer to one of the next requests.

    Args:
        status: the status of an answer that Thanx gives without acting on the request; with None Thanx acts
            and answers as usual.
        body: the body of that answer; by default the error envelope of the status.
        content_type: the content type of that answer.
        headers: further headers of that answer.
        fault: a `Fault` that the request also meets.
        delay: the delay of the answer, in seconds.
    """

    status: int | None = None
    body: bytes | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = attrs.field(factory=dict)
    fault: Fault | None = attrs.field(default=None, converter=attrs.converters.optional(Fault))
    delay: float = 0

    def __attrs_post_init__(self) -> None:
        if self.status is not None:
            checks.whole("ScriptedAnswer.status", self.status, 100, 999)
        checks.seconds("ScriptedAnswer.delay", self.delay)


@attrs.frozen
class Trouble:
    """What one request meets: a fault, a refusal, a delay."""

    fault: Fault | None = None
    refused: bool = False
    delay: float = 0


class Dice:
    """Draws the faults. Requests and jobs have separate random numbers, so that neither affects the other."""

    def __init__(self, faults: Faults) -> None:
        self.drawn: Tally[str] = Tally()
        self.faults = faults

    @property
    def faults(self) -> Faults:
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults
        self._requests = random.Random(faults.seed)  # noqa: S311 - repeatable on purpose
        self._jobs = random.Random(~faults.seed)  # noqa: S311 - repeatable on purpose
        self._left, self._until = 0, 0.0

    def request(self, now: float) -> Trouble:
        """Draw the faults of the next request."""
        burst, late, fault = (self._requests.random() for _ in range(3))
        if self._in_burst(burst, now):
            self.drawn["burst"] += 1
            return Trouble(refused=True)
        trouble = Trouble(
            fault=self._fault(fault),
            delay=self.faults.delay if late < self.faults.delay_rate else 0,
        )
        if trouble.fault:
            self.drawn[trouble.fault] += 1
        return trouble

    def _in_burst(self, chance: float, now: float) -> bool:
        if self._left == 0 and now >= self._until:
            if chance >= self.faults.burst:
                return False
            self._left, self._until = self.faults.burst_requests, now + self.faults.burst_seconds
        self._left = max(0, self._left - 1)
        return True

    def _fault(self, chance: float) -> Fault | None:
        for fault in Fault:
            chance -= getattr(self.faults, fault)
            if chance < 0:
                return fault
        return None

    def job(self, total: int) -> Fate:
        """Draw how the next job ends."""
        chance, part = self._jobs.random(), self._jobs.random()
        for name, state in _JOB_STATES.items():
            chance -= getattr(self.faults, name)
            if chance < 0:
                self.drawn[name] += 1
                return Fate(state, int(part * total))
        return Fate("completed", total)
