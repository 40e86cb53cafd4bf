"""Refusals of a process after another has spent the 15-minute budget, with a file beside without."""

from __future__ import annotations

import asyncio
import logging
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from unittest import mock

from benchmarks import harness
from benchmarks.limiter.cells import IN_FLIGHT, JITTERS, Arrive, Tally, arriving, sending
from benchmarks.limiter.referees import EMULATED
from benchmarks.limiter.report import Found, samples
from benchmarks.limiter.rivals import CONTESTS, STRICT, Contest, Send, on_virtual_time, ours
from thanx_async import THANX_RATE_LIMITS, SQLiteRateLimiter
from thanx_async.emulator.counters import Counter, referee
from thanx_async.limiter import _sqlite as _limiter_sqlite

T = TypeVar("T")

STORED = f"{STRICT}, SQLite"
CONTENDERS = ("aiolimiter", STRICT, STORED)
_BUDGET = max(limit.requests for limit in THANX_RATE_LIMITS)
_BEGINNINGS = (0.0, 450.0)
_AFTER = 50
_PATIENCE = 1800.0
_MOST_UNTIL_RECOVERY = 20


def restart(contender: str) -> dict[str, float]:
    """Let a fresh process get 50 requests through; the most that were refused, wherever in a server's
    window the process before it began."""
    found: dict[str, float] = {}
    for name, counter in EMULATED.items():
        tallies = [_restart(contender, counter, beginning) for beginning in _BEGINNINGS]
        found[f"{name}/until recovery"] = float(max(tally.refused_at_first for tally in tallies))
        found[f"{name}/in all"] = float(max(tally.refused for tally in tallies))
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
    dice, tally = random.Random(0), Tally()
    await asyncio.sleep(beginning)
    await first(_BUDGET, IN_FLIGHT, sending(arrive, JITTERS["low"], dice, Tally()))
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await second(_AFTER, IN_FLIGHT, sending(arrive, JITTERS["low"], dice, tally))
    return tally


class _Inline:
    """Does the work at once, in place of a thread."""

    def __init__(self, name: str) -> None:
        del name

    def do(self, work: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        loop.call_soon(future.set_result, work())
        return future

    def stop(self) -> None: ...


@contextmanager
def _virtual_file() -> Iterator[None]:
    """A wall clock that goes with the loop's, and transactions that take no time."""

    def loop_time() -> float:
        return asyncio.get_running_loop().time()

    with (
        mock.patch.object(_limiter_sqlite, "Worker", _Inline),
        mock.patch.object(_limiter_sqlite, "wall_clock", loop_time),
    ):
        yield


def report(found: Found, noise: harness.Noise) -> harness.Report:
    runs = {name: found["restart", name] for name in CONTENDERS}
    most = {name: max(run[f"{counted}/until recovery"] for counted in EMULATED) for name, run in runs.items()}
    targets = {STRICT: _MOST_UNTIL_RECOVERY, STORED: 0}
    return harness.Report(
        name="limiter-restart",
        question="A fresh process after another one has just spent the 15-minute budget: refused until the"
        " first is admitted / until 50 are; the most of two places in the window",
        columns=("", *EMULATED),
        rows=[(name, *(_recovery(run, counted) for counted in EMULATED)) for name, run in runs.items()],
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
