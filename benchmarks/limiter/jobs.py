"""Polls of each job and how late its end is seen, and how much slower issuing is than with nobody waiting."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks import harness
from benchmarks.issuing import TARGET
from benchmarks.limiter.report import Found, samples
from benchmarks.limiter.rivals import on_virtual_time
from thanx_async import AsyncBatcher, JobHandle, ThanxClient
from thanx_async.emulator import Emulator, Faults, JobSpeed

JOB_SECONDS = 20.0
COUNTS = (40, 400)
_BATCH = 200
_LATENCY = 0.06
_MOST_POLLS, _MOST_LAG, _MOST_SLOWED = 1.5, 0.1, 0.05


def jobs(count: str) -> dict[str, float]:
    """Issue so many batches, and wait for their jobs meanwhile.

    Returns:
        The polls of a job and how long after its end it was seen to be over, over its duration; and how
        much longer issuing took than when nobody waited.
    """
    alone = on_virtual_time(_issue(int(count), watch=False), sockets=True)
    watched = on_virtual_time(_issue(int(count), watch=True), sockets=True)
    return {**watched, "slowed": watched["issuing"] / alone["issuing"] - 1}


async def _issue(count: int, *, watch: bool) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    accepted: list[float] = []
    over: dict[JobHandle, float] = {}

    async def wait(handle: JobHandle) -> None:
        await handle.wait()
        over[handle] = loop.time()

    async with _thanx() as (emulator, batcher):
        guests = (f"guest{number}@example.com" for number in range(count * _BATCH))
        async with batcher.stream(guests) as handles, asyncio.TaskGroup() as group:
            async for handle in handles:
                accepted.append(loop.time())
                if watch:
                    group.create_task(wait(handle))
        found = {"issuing": accepted[-1] - accepted[0], "refused": float(emulator.refused)}
        return {**found, **_polling(emulator, over)} if watch else found


@asynccontextmanager
async def _thanx() -> AsyncIterator[tuple[Emulator, AsyncBatcher]]:
    """Thanx, whose every answer takes its time, and a batcher that sends to it."""
    speed = JobSpeed(identifiers_per_second=_BATCH / JOB_SECONDS, start_delay=0)
    async with (
        Emulator(speed=speed, faults=Faults(delay=_LATENCY)) as emulator,
        ThanxClient("client", "token", base_url=emulator.url) as client,
    ):
        yield emulator, AsyncBatcher(client, **TARGET, batch_size=_BATCH)


def _polling(emulator: Emulator, over: dict[JobHandle, float]) -> dict[str, float]:
    polls = Counter(row.path.rpartition("/")[2] for row in emulator.requests if row.method == "GET")
    begun = [row.time for row in emulator.requests if row.method == "POST" and row.status == 202]
    handles = sorted(over, key=lambda handle: handle.start)  # batches are sent in order, one after another
    lags = [(over[handle] - since) / JOB_SECONDS - 1 for handle, since in zip(handles, begun, strict=True)]
    counts = [polls[handle.id] for handle in over]
    return {
        "polls": statistics.median(counts),
        "polls_mean": statistics.mean(counts),
        "polls_most": float(max(counts)),
        "lag": statistics.median(lags),
        "lag_p90": statistics.quantiles(lags, n=10)[-1],
        "lag_most": max(lags),
    }


def report(found: Found, noise: harness.Noise) -> harness.Report:
    runs = {count: found["jobs", str(count)] for count in COUNTS}
    return harness.Report(
        name="limiter-polling",
        question=f"Jobs of {JOB_SECONDS:g} s, waited for while others are issued",
        columns=(
            "jobs",
            "polls of each: median, mean, most",
            "seen late: median, 90 %, most",
            "issuing slower",
        ),
        rows=[
            (
                str(count),
                f"{run['polls']:g}, {run['polls_mean']:.2f}, {run['polls_most']:.0f}",
                f"{run['lag']:.1%}, {run['lag_p90']:.1%}, {run['lag_most']:.1%}",
                f"{run['slowed']:.1%}",
            )
            for count, run in runs.items()
        ],
        headlines=_headlines(runs[COUNTS[0]]),
        samples=samples(found, "jobs", noise=noise),
    )


def _headlines(few: harness.Sample) -> list[harness.Headline]:
    return [
        harness.Headline(
            f"Polls of a job at the median, {COUNTS[0]} jobs of {JOB_SECONDS:g} s",
            f"{few['polls']:g}",
            f"at most {_MOST_POLLS}",
            met=few["polls"] <= _MOST_POLLS,
        ),
        harness.Headline(
            "... seen how late, of a job's duration, nine in ten",
            f"{few['lag_p90']:.1%}",
            f"at most {_MOST_LAG:.0%}",
            met=few["lag_p90"] <= _MOST_LAG,
        ),
        harness.Headline(
            "... issuing slowed by",
            f"{few['slowed']:.1%}",
            f"at most {_MOST_SLOWED:.0%}",
            met=few["slowed"] <= _MOST_SLOWED,
        ),
    ]
