"""After a restart: another process has just spent the 15-minute budget. On virtual time."""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar
from unittest import mock

import attrs

from benchmarks import harness
from benchmarks.limiter_cells import IN_FLIGHT, JITTERS, Arrive, arriving
from benchmarks.limiter_report import Found, samples
from benchmarks.limiter_rivals import CONTESTS, STRICT, Contest, Send, on_virtual_time, ours
from thanx_async import THANX_RATE_LIMITS, SQLiteRateLimiter
from thanx_async.emulator.counters import Counter, referee
from thanx_async.limiter import _sqlite as _limiter_sqlite

T = TypeVar("T")

STORED = f"{STRICT}, SQLite"
CONTENDERS = ("aiolimiter", STRICT, STORED)
COUNTED = {
    "fixed": Counter.FIXED,
    "slog": Counter.SLIDING_LOG,
    "slogcr": Counter.SLIDING_LOG_COUNTING_REFUSED,
    "swc": Counter.SLIDING_COUNTER,
}
_BUDGET = max(limit.requests for limit in THANX_RATE_LIMITS)
_BEGINNINGS = (0.0, 450.0)
_AFTER = 50
_PATIENCE = 1800.0
_MOST_UNTIL_RECOVERY = 20


@attrs.define
class Tally:
    """Requests of the second process that were refused, until the first one was admitted and in all."""

    until_recovery: int = 0
    in_all: int = 0
    recovered: bool = False

    def count(self, *, admitted: bool) -> None:
        self.recovered = self.recovered or admitted
        self.in_all += not admitted
        self.until_recovery += not self.recovered


def restart(contender: str) -> dict[str, float]:
    """Let a fresh process get 50 requests through; the most that were refused, wherever in a server's
    window the process before it began."""
    found: dict[str, float] = {}
    for name, counter in COUNTED.items():
        tallies = [_restart(contender, counter, beginning) for beginning in _BEGINNINGS]
        found[f"{name}/until recovery"] = float(max(tally.until_recovery for tally in tallies))
        found[f"{name}/in all"] = float(max(tally.in_all for tally in tallies))
    return found


def _restart(contender: str, counter: Counter, beginning: float) -> Tally:
    random.seed(0)
    logging.getLogger("thanx_async").setLevel(logging.ERROR)  # every wait is one of virtual time
    arrive = arriving(*(referee(counter, limit.requests, limit.seconds) for limit in THANX_RATE_LIMITS))
    if contender != STORED:
        return on_virtual_time(_two_processes(_unseen, CONTESTS[contender], arrive, beginning))
    with tempfile.TemporaryDirectory() as directory, _virtual_file():
        path = Path(directory) / "limits.sqlite3"
        contest = ours(lambda: SQLiteRateLimiter(path))
        return on_virtual_time(_two_processes(contest, contest, arrive, beginning))


async def _unseen(requests: int, _in_flight: int, send: Send) -> None:
    """A process of which nobody knows, at an even pace."""
    for _ in range(requests):
        await send()
        await asyncio.sleep(0.21)


async def _two_processes(first: Contest, second: Contest, arrive: Arrive, beginning: float) -> Tally:
    dice, jitter, tally = random.Random(0), JITTERS["low"], Tally()

    async def send() -> int:
        await asyncio.sleep(jitter.draw(dice))
        admitted = await arrive()
        await asyncio.sleep(jitter.draw(dice))
        tally.count(admitted=admitted)
        return 200 if admitted else 429

    await asyncio.sleep(beginning)
    await first(_BUDGET, IN_FLIGHT, send)
    tally = Tally()
    try:
        async with asyncio.timeout(_PATIENCE):
            await second(_AFTER, IN_FLIGHT, send)
    except TimeoutError:
        pass
    return tally


@contextmanager
def _virtual_file() -> Iterator[None]:
    """A wall clock that goes with the loop's, and transactions that take no time."""

    async def inline(work: Callable[..., T], *arguments: object) -> T:
        return work(*arguments)

    def loop_time() -> float:
        return asyncio.get_running_loop().time()

    with (
        mock.patch.object(_limiter_sqlite, "to_thread", SimpleNamespace(run_sync=inline)),
        mock.patch.object(_limiter_sqlite, "wall_clock", loop_time),
    ):
        yield


def report(found: Found, noise: harness.Noise) -> harness.Report:
    names = CONTENDERS
    most = {
        name: max(value for key, value in found["restart", name].items() if key.endswith("until recovery"))
        for name in names
    }
    rows = [(name, *(_recovery(found["restart", name], counted) for counted in COUNTED)) for name in names]
    targets = {STRICT: _MOST_UNTIL_RECOVERY, STORED: 0}
    return harness.Report(
        name="limiter-restart",
        question="A fresh process after another one has just spent the 15-minute budget: refused until the"
        " first is admitted / until 50 are; the most of two places in the window",
        columns=("", *COUNTED),
        rows=rows,
        headlines=[
            harness.Headline(
                f"Refused until recovery after a restart, {name}",
                f"{most[name]:.0f}",
                f"at most {target}" if target else "none",
                f"aiolimiter {most['aiolimiter']:.0f}",
                met=most[name] <= target,
            )
            for name, target in targets.items()
        ],
        samples=samples(found, "restart", noise=noise),
    )


def _recovery(sample: harness.Sample, counted: str) -> str:
    return f"{sample[f'{counted}/until recovery']:.0f} / {sample[f'{counted}/in all']:.0f}"
