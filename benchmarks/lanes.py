"""How long `add` takes beside a bulk run, and in many replicas, on virtual time under Thanx's limits."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import looptime

from benchmarks import harness
from tests.limiter.stores import virtual
from tests.limiter.traffic import Traffic, traffic
from thanx_async import SQLiteRateLimiter

_BATCHES = 2000
_ALONE = "a run of 2,000 batches alone"
_MOST_BESIDE, _MOST_LONGER, _MOST_IN_REPLICAS = 2.0, 1.1, 15.0


@attrs.frozen
class _Case:
    """What sends: services with a guest ``every`` so many seconds each, and a run or none."""

    services: int
    every: float
    seconds: float = 0.0
    batches: int = 0


_BESIDE = {
    f"services: {_services}, a guest each {_every:g} s, beside it": _Case(_services, _every, batches=_BATCHES)
    for _services, _every in ((1, 5.0), (1, 0.5), (4, 1.0))
}
_REPLICAS = {
    f"replicas: {_services}, {_rate} guests/s, an hour": _Case(_services, _services / _rate, seconds=3600.0)
    for _services, _rate in ((1, 8), (8, 8), (16, 8))
}
_CASES = {_ALONE: _Case(0, 1.0, batches=_BATCHES), **_BESIDE, **_REPLICAS}


async def _send(case: _Case, path: Path) -> Traffic:
    return await traffic(
        [SQLiteRateLimiter(path) for _ in range(case.services)],
        every=case.every,
        seconds=case.seconds,
        batches=case.batches,
        bulk=SQLiteRateLimiter(path) if case.batches else None,
    )


def _run(name: str) -> harness.Sample:
    logging.getLogger("thanx_async").setLevel(logging.ERROR)
    with (
        TemporaryDirectory() as folder,
        virtual(),
        asyncio.Runner(loop_factory=looptime.new_event_loop) as runner,
    ):
        found = runner.run(_send(_CASES[name], Path(folder) / "limits.sqlite3"))
    adds = {
        name: found.quantile(share) if found.adds else 0.0
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("worst", 1.0))
    }
    return adds | {"run": found.run, "requests": found.requests, "refused": found.refused}


PARTS: dict[str, harness.Part] = {"run": _run}


def main() -> None:
    """Measure and publish; virtual time is the same in every round, so there is one."""
    names = [_ALONE, *_BESIDE] if harness.is_quick() else list(_CASES)
    samples = harness.interleave(
        {name: partial(harness.part, "benchmarks.lanes", "run", name) for name in names}, rounds=1
    )
    harness.publish(
        harness.Report(
            name="lanes",
            question="Seconds of a call of `add`, over one SQLite file, on virtual time under Thanx's limits",
            columns=("what sends", "p50", "p90", "p99", "worst", "the run", "requests", "429s"),
            rows=[_row(name, samples) for name in names],
            headlines=_headlines(samples),
            samples=samples,
        )
    )


def _row(name: str, samples: harness.Samples) -> tuple[str, ...]:
    found = samples.runs[name][0]
    return (
        name,
        *(f"{found[value]:.1f}" for value in ("p50", "p90", "p99", "worst", "run")),
        *(f"{found[value]:.0f}" for value in ("requests", "refused")),
    )


def _headlines(samples: harness.Samples) -> list[harness.Headline]:
    found = {name: runs[0] for name, runs in samples.runs.items()}
    beside = found[next(iter(_BESIDE))]
    rows = [
        harness.Headline.at_most(
            "`add` beside a run of 2,000 batches, at worst", beside["worst"], _MOST_BESIDE, "s", digits=1
        ),
        harness.Headline.at_most(
            "That run, over without `add`", beside["run"] / found[_ALONE]["run"], _MOST_LONGER, "x", digits=2
        ),
    ]
    if replicas := found.get("replicas: 8, 8 guests/s, an hour"):
        rows.append(
            harness.Headline.at_most(
                "`add` in 8 replicas with 8 guests/s, p99", replicas["p99"], _MOST_IN_REPLICAS, "s", digits=1
            )
        )
    return rows


if __name__ == "__main__":
    harness.start(PARTS, main)
