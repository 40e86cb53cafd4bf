"""Three processes on one file of limits, in real time, before an emulator that keeps an exact log."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from benchmarks import harness
from benchmarks.limiter_cells import JITTERS
from benchmarks.limiter_report import Found, samples
from benchmarks.limiter_rivals import STRICT, shared_contest
from benchmarks.referees import REQUESTS, SECONDS
from thanx_async.emulator import Emulator
from thanx_async.emulator.counters import Counter

PROCESSES = 3
CONTESTED = ((STRICT, "low"), (STRICT, "hi"), ("pyrate-limiter", "hi"))
DURATION = 12.0
_IN_FLIGHT = 4
_MOST = 1000
_STARTING = 5.0
_MOST_APART = 0.2
_HEADERS = {"Authorization": "Bearer token", "X-ClientId": "client", "Accept-Version": "v4.0"}
_HEADERS |= {"Content-Type": "application/json", "Accept": "application/json"}


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
            arguments = [contender, jitter, emulator.url, str(file), str(begin)]
            runs = [_process(*arguments, str(seed)) for seed in range(PROCESSES)]
            shares = [run["admitted"] for run in await asyncio.gather(*runs)]
        return {
            "refused": float(emulator.refused),
            "used": sum(shares) / (DURATION * REQUESTS / SECONDS),
            "apart": 1 - min(shares) / max(shares),
            **{f"share {number}": share for number, share in enumerate(shares)},
        }


async def _process(*arguments: str) -> dict[str, float]:
    command = sys.executable, "-m", "benchmarks.limiter", "sharer", *arguments
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"a process of {arguments[0]} ended with {process.returncode}")
    found: dict[str, float] = json.loads(output)
    return found


def sharer(contender: str, jitter: str, url: str, file: str, begin: str, seed: str) -> dict[str, float]:
    """One of the processes: sends from ``begin`` on, the same moment for all of them."""
    return {
        "admitted": float(asyncio.run(_share(contender, jitter, url, Path(file), float(begin), int(seed))))
    }


async def _share(contender: str, jitter: str, url: str, file: Path, begin: float, seed: int) -> int:
    dice, delay, admitted = random.Random(seed), JITTERS[jitter], 0
    contest = shared_contest(contender, file)
    async with aiohttp.ClientSession(headers=_HEADERS) as session:

        async def send() -> int:
            nonlocal admitted
            await asyncio.sleep(delay.draw(dice))
            async with session.get(f"{url}/partner/scopes") as response:
                status = response.status
            await asyncio.sleep(delay.draw(dice))
            admitted += status == 200
            return status

        await asyncio.sleep(begin - time.time())
        try:
            async with asyncio.timeout(DURATION):
                await contest(_MOST, _IN_FLIGHT, send)
        except TimeoutError:
            return admitted
    return admitted


def report(found: Found, noise: harness.Noise) -> harness.Report:
    runs = {key: found["processes", *key] for key in CONTESTED}
    ours = [run for (contender, _), run in runs.items() if contender == STRICT]
    rivals = [run for (contender, _), run in runs.items() if contender != STRICT]
    refused = max(run["refused"] for run in ours)
    apart = max(run["apart"] for run in ours)
    shares = range(PROCESSES)
    return harness.Report(
        name="limiter-processes",
        question=f"{PROCESSES} processes on one SQLite file for {DURATION:g} s, at an exact sliding log",
        columns=("", "refused", "of the limit used", "share of each"),
        rows=[
            (
                f"{jitter}: {contender}",
                f"{run['refused']:.0f}",
                f"{run['used']:.0%}",
                "/".join(f"{run[f'share {number}']:.0f}" for number in shares),
            )
            for (contender, jitter), run in runs.items()
        ],
        headlines=[
            harness.Headline(
                "Refused, three processes on one SQLite file",
                f"{refused:.0f}",
                "none",
                f"pyrate-limiter {max(run['refused'] for run in rivals):.0f}",
                met=refused == 0,
            ),
            harness.Headline(
                "... how far the least share is below the largest",
                f"{apart:.0%}",
                f"at most {_MOST_APART:.0%}",
                f"pyrate-limiter {max(run['apart'] for run in rivals):.0%}",
                met=apart <= _MOST_APART,
            ),
        ],
        samples=samples(found, "processes", noise=noise),
    )
