"""Requests, polls and time until every outcome is known, beside the least that the rate limits allow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import attrs
import looptime

from benchmarks import harness
from tests.jobs.spending import Jobs, equal, lognormal, queued, spend, uniform

_GUESTS = 10_000
"""Guests that a request stands for; the emulator gets fewer, in jobs that take as long."""

_JOBS: dict[str, Jobs] = {
    "instant": equal(0.01),
    "10 s": equal(10.0),
    "100 s": equal(100.0),
    "1,000 s": equal(1000.0),
    "1 to 20 s": uniform(1.0, 20.0),
    "10 to 200 s": uniform(10.0, 200.0),
    "lognormal, 10 s": lognormal(10.0),
    "lognormal, 100 s": lognormal(100.0),
    "10 s, queued": queued(10.0),
}
_EQUAL = ("instant", "10 s", "100 s", "1,000 s")
_WEBHOOKS = {"none": None, "all": 0.0, "20 % lost": 0.2, "50 % lost": 0.5}
_CASES: tuple[tuple[int, tuple[str, ...]], ...] = (
    (1, _EQUAL),
    (10, _EQUAL),
    (100, tuple(_JOBS)),
    (1000, ("instant", "100 s")),
    (2000, ("instant",)),
)
_COLUMNS = (
    "guests, jobs, webhooks",
    "requests",
    "polls",
    "last accepted",
    "all known",
    "least",
    "over it",
    "429s",
)
_LEAST_MARGIN, _MOST_POLLS = 1.03, 1.2


def _run(requests: str, jobs: str, webhooks: str) -> harness.Sample:
    logging.getLogger("thanx_async").setLevel(logging.ERROR)
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        spent = runner.run(spend(int(requests), _JOBS[jobs], lost=_WEBHOOKS[webhooks]))
    return {name: float(value) for name, value in attrs.asdict(spent).items()}


PARTS: dict[str, harness.Part] = {"run": _run}


def main() -> None:
    """Measure and publish; virtual time is the same in every round, so there is one."""
    cases = [
        (requests, jobs, webhooks) for requests, rows in _CASES for jobs in rows for webhooks in _WEBHOOKS
    ]
    if harness.is_quick():
        cases = [case for case in cases if case[0] <= 100]
    contenders: dict[str, Callable[[], harness.Sample]] = {
        _name(*case): partial(harness.part, "benchmarks.budget", "run", *case) for case in cases
    }
    samples = harness.interleave(contenders, rounds=1)
    harness.publish(
        harness.Report(
            name="budget",
            question="Every outcome known after how many seconds, on virtual time under Thanx's limits",
            columns=_COLUMNS,
            rows=[_row(name, samples) for name in contenders],
            headlines=_headlines(samples),
            samples=samples,
        )
    )


def _name(requests: int, jobs: str, webhooks: str) -> str:
    return f"{requests * _GUESTS:,}; {jobs}; {webhooks}"


def _row(name: str, samples: harness.Samples) -> tuple[str, ...]:
    found = samples.runs[name][0]
    return (
        name,
        *(f"{found[value]:.0f}" for value in ("requests", "polls")),
        *(f"{found[value]:,.1f}" for value in ("accepted", "known", "least")),
        f"{found['known'] / found['least'] - 1:.1%}",
        f"{found['refused']:.0f}",
    )


def _headlines(samples: harness.Samples) -> list[harness.Headline]:
    alone = {name: runs[0] for name, runs in samples.runs.items() if name.endswith("; none")}
    instant = [found for name, found in alone.items() if "; instant;" in name and found["requests"] >= 100]
    many = [found for found in alone.values() if found["requests"] >= 100]
    return [
        harness.Headline.at_most(
            "All outcomes known, over the least possible, from 1 M guests",
            max(found["known"] / found["least"] for found in instant),
            _LEAST_MARGIN,
            "x",
            digits=3,
        ),
        harness.Headline.at_most(
            "Polls of a job without webhooks, whatever jobs take",
            max(found["polls"] / found["requests"] for found in many),
            _MOST_POLLS,
            "polls",
            digits=2,
        ),
    ]


if __name__ == "__main__":
    harness.start(PARTS, main)
