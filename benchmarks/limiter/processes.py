"""Refusals and shares of three processes on one file of limits, beside pyrate-limiter's, in real time."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import aiohttp

from benchmarks import harness
from benchmarks.issuing import HEADERS
from benchmarks.limiter.cells import JITTERS, Tally, sending, visiting
from benchmarks.limiter.referees import REQUESTS, SECONDS
from benchmarks.limiter.report import Found, samples
from benchmarks.limiter.rivals import STRICT, Contest, shared_contest
from thanx_async.emulator import Emulator
from thanx_async.emulator.counters import Counter

PROCESSES = 3
CONTESTED = ((STRICT, "low"), (STRICT, "hi"), ("pyrate-limiter", "hi"))
DURATION = 12.0
_IN_FLIGHT = 4
_MOST = 1000
_STARTING = 5.0
_MOST_APART = 0.2


def processes(contender: str, jitter: str) -> dict[str, float]:
    """Let all of them send for a while.

    Returns:
        How many requests were refused, the sum of those admitted over what the limit allows in that time,
        and how far the least share is below the largest.
    """
    return asyncio.run(_processes(contender, jitter))


async def _processes(contender: str, jitter: str) -> dict[str, float]:
    limits = [(REQUESTS, SECONDS)]
    async with Emulator(limits=limits, counter=Counter.SLIDING_LOG) as emulator:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "limits.sqlite3"
            begin = time.time() + _STARTING
            one = partial(harness.part, "benchmarks.limiter", "sharer", contender, jitter)
            runs = [asyncio.to_thread(one, emulator.url, file, begin, seed) for seed in range(PROCESSES)]
            shares = [run["admitted"] for run in await asyncio.gather(*runs)]
        return {
            "refused": float(emulator.refused),
            "used": sum(shares) / (DURATION * REQUESTS / SECONDS),
            "apart": 1 - min(shares) / max(shares),
            **{f"share {number}": share for number, share in enumerate(shares)},
        }


def sharer(contender: str, jitter: str, url: str, file: str, begin: str, seed: str) -> dict[str, float]:
    """One of the processes: sends from ``begin`` on, the same moment for all of them."""
    tally = Tally()
    asyncio.run(_share(shared_contest(contender, Path(file)), jitter, url, float(begin), int(seed), tally))
    return {"admitted": float(tally.admitted)}


async def _share(contest: Contest, jitter: str, url: str, begin: float, seed: int, tally: Tally) -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        arrive = visiting(session, f"{url}/partner/scopes")
        send = sending(arrive, JITTERS[jitter], random.Random(seed), tally)
        await asyncio.sleep(begin - time.time())
        with suppress(TimeoutError):
            async with asyncio.timeout(DURATION):
                await contest(_MOST, _IN_FLIGHT, send)


def report(found: Found, noise: harness.Noise) -> harness.Report:
    runs = {key: found["processes", *key] for key in CONTESTED}
    return harness.Report(
        name="limiter-processes",
        question=f"{PROCESSES} processes on one SQLite file for {DURATION:g} s, at an exact sliding log",
        columns=("", "refused", "of the limit used", "share of each"),
        rows=[
            (
                f"{jitter}: {contender}",
                f"{run['refused']:.0f}",
                f"{run['used']:.0%}",
                "/".join(f"{run[f'share {number}']:.0f}" for number in range(PROCESSES)),
            )
            for (contender, jitter), run in runs.items()
        ],
        headlines=_headlines(runs),
        samples=samples(found, "processes", noise=noise),
    )


def _headlines(runs: Mapping[tuple[str, str], harness.Sample]) -> list[harness.Headline]:
    def most(value: str, *, ours: bool) -> float:
        return max(run[value] for (contender, _), run in runs.items() if (contender == STRICT) is ours)

    refused, apart = most("refused", ours=True), most("apart", ours=True)
    return [
        harness.Headline(
            "Refused, three processes on one SQLite file",
            f"{refused:.0f}",
            "none",
            f"pyrate-limiter {most('refused', ours=False):.0f}",
            met=refused == 0,
        ),
        harness.Headline(
            "... how far the least share is below the largest",
            f"{apart:.0%}",
            f"at most {_MOST_APART:.0%}",
            f"pyrate-limiter {most('apart', ours=False):.0%}",
            met=apart <= _MOST_APART,
        ),
    ]
