"""Refusals and time of 3 and of 20 processes that share their limits over each store, in real time."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from benchmarks import harness
from benchmarks.issuing import HEADERS
from benchmarks.limiter.cells import JITTERS, Tally, sending, visiting
from benchmarks.limiter.referees import REQUESTS, SECONDS
from benchmarks.limiter.report import Found, samples
from benchmarks.limiter.rivals import ours
from tests.servers import PostgresServer, RedisServer, folder_of
from thanx_async import RateLimit, RateLimiter, SQLiteRateLimiter
from thanx_async.emulator import Emulator
from thanx_async.emulator.counters import Counter
from thanx_async.postgres import PostgresRateLimiter, init
from thanx_async.redis import RedisRateLimiter

STORES = ("SQLite", "PostgreSQL", "Redis")
COUNTS = {3: 1.08, 20: 1.15}
"""The numbers of processes, and the most time over the least possible for each."""

_LIMITS = [RateLimit(REQUESTS, SECONDS)]
_IN_ALL = 120
_IN_FLIGHT = 4
_LOOK = 0.05
_BEGIN = "begin"


def machines(store: str, count: str) -> dict[str, float]:
    """Let so many processes send 120 requests together, all beginning at once.

    Returns:
        How many requests were refused, and the time from the first to the last over the least possible.
    """
    with _running(store) as where:
        return asyncio.run(_machines(store, where, int(count)))


async def _machines(store: str, where: str, count: int) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    async with Emulator(limits=[(REQUESTS, SECONDS)], counter=Counter.SLIDING_LOG) as emulator:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(count + 1) as threads:
            one = partial(harness.part, "benchmarks.limiter", "machine", store, where, emulator.url, folder)
            runs = [loop.run_in_executor(threads, one, _IN_ALL // count, seed) for seed in range(count)]
            await loop.run_in_executor(threads, _begin, Path(folder), count)
            await asyncio.gather(*runs)
        times = [row.time for row in emulator.requests if row.status == 200]
        least = (_IN_ALL - 1) * SECONDS / REQUESTS
        return {"refused": float(emulator.refused), "time": (max(times) - min(times)) / least}


def _begin(folder: Path, count: int) -> None:
    """Let all processes begin at once, when each has said that it is ready."""
    while len(list(folder.iterdir())) < count:
        time.sleep(_LOOK)
    (folder / _BEGIN).touch()


@contextmanager
def _running(store: str) -> Iterator[str]:
    """The address of a store of its own."""
    if store == "SQLite":
        with tempfile.TemporaryDirectory() as directory:
            yield str(Path(directory) / "limits.sqlite3")
        return
    with folder_of(store) as folder:
        if store == "PostgreSQL":
            postgres = PostgresServer(Path(folder))
            postgres.start()
            where = postgres.dsn("postgres")
            asyncio.run(init(where))
            yield where
            postgres.stop()
        else:
            redis = RedisServer(Path(folder))
            redis.start()
            yield redis.url
            redis.stop()


def machine(store: str, where: str, url: str, folder: str, requests: str, seed: str) -> dict[str, float]:
    """One of the processes."""
    tally = Tally()
    (Path(folder) / seed).touch()
    while not (Path(folder) / _BEGIN).exists():
        time.sleep(_LOOK)
    asyncio.run(_send(store, where, url, int(requests), random.Random(seed), tally))
    return {"admitted": float(tally.admitted)}


async def _send(store: str, where: str, url: str, requests: int, dice: random.Random, tally: Tally) -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as session, _limiter(store, where) as limiter:
        send = sending(visiting(session, f"{url}/partner/scopes"), JITTERS["low"], dice, tally)
        await ours(lambda: limiter)(requests, _IN_FLIGHT, send)


@asynccontextmanager
async def _limiter(store: str, where: str) -> AsyncIterator[RateLimiter]:
    if store == "SQLite":
        yield SQLiteRateLimiter(where, _LIMITS)
        return
    limiter = (
        PostgresRateLimiter(where, _LIMITS) if store == "PostgreSQL" else RedisRateLimiter(where, _LIMITS)
    )
    async with limiter:
        yield limiter


def installed() -> list[str]:
    """The stores whose servers are installed."""
    found = ["SQLite"]
    for store in STORES[1:]:
        try:
            with _running(store):
                found.append(store)
        except pytest.skip.Exception as missing:
            print(f"{missing}: limits in {store} are left out.")
    return found


def report(found: Found, noise: harness.Noise) -> harness.Report:
    runs = {
        (store, count): found.get(("machines", store, str(count))) for store in STORES for count in COUNTS
    }
    measured = {key: run for key, run in runs.items() if run}
    return harness.Report(
        name="limiter-machines",
        question=f"{_IN_ALL} requests of several processes over each store, at an exact sliding log:"
        " refused x time over the least possible",
        columns=("", *(f"{count} processes" for count in COUNTS)),
        rows=[
            (store, *(_cell(runs[store, count]) for count in COUNTS))
            for store in STORES
            if (store, min(COUNTS)) in measured
        ],
        headlines=[_headline(count, measured) for count in COUNTS],
        samples=samples(found, "machines", noise=noise),
    )


def _cell(run: harness.Sample | None) -> str:
    return f"{run['refused']:.0f}x{run['time']:.2f}" if run else "-"


def _headline(count: int, measured: dict[tuple[str, int], harness.Sample]) -> harness.Headline:
    runs = {store: run for (store, number), run in measured.items() if number == count}
    refused = sum(run["refused"] for run in runs.values())
    slowest = max(run["time"] for run in runs.values())
    return harness.Headline(
        f"{count} processes with one limit in {', '.join(runs)}: refused, time over the least possible",
        f"{refused:.0f}, {slowest:.2f}",
        f"none, at most {COUNTS[count]}",
        met=refused == 0 and round(slowest, 2) <= COUNTS[count],
    )
