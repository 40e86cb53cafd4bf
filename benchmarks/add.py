"""What ``await batcher.add(guest)`` costs a service: CPU beside the caller's own task, and time beside the
linger and the round trip.

The rate limits are out of the way, and the server is another process that accepts everything.

Run: python -m benchmarks.add
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial

from benchmarks import guests, harness
from benchmarks.issuing import TARGET, client_of
from benchmarks.sink import sink
from thanx_async import AsyncBatcher, JobHandle, ThanxClient

_NAME = "benchmarks.add"
_AT_ONCE = 10_000
_ADD, _TASK, _OLDEST = "await batcher.add(guest)", "await a shared future", "oldest guest of each batch"
_LINGER, _PER_SECOND = 0.05, 1000
_TARGET = 10.0


def _cpu(seconds: float, count: int) -> harness.Sample:
    return {"microseconds": seconds * 1e6 / count}


async def _add(url: str, count: int) -> harness.Sample:
    """All callers of a wave are tasks of their own, as the requests to a service are."""
    texts, spent = list(guests.plain(count)), 0.0
    async with client_of(url) as client, AsyncBatcher(client, **TARGET) as batcher:

        async def caller(guest: str) -> JobHandle:
            return await batcher.add(guest)

        await caller("first@example.com")  # opens the connection
        for start in range(0, count, _AT_ONCE):
            begun = time.process_time()
            await _all(caller(guest) for guest in texts[start : start + _AT_ONCE])
            spent += time.process_time() - begun
    return _cpu(spent, count)


async def _task(_: str, count: int) -> harness.Sample:
    """The same tasks, awaiting one future that all share: what asyncio itself takes."""
    loop, spent = asyncio.get_running_loop(), 0.0

    async def caller(answer: asyncio.Future[None]) -> None:
        return await answer

    for _start in range(0, count, _AT_ONCE):
        begun, answer = time.process_time(), loop.create_future()
        loop.call_later(_LINGER, answer.set_result, None)
        await _all(caller(answer) for _ in range(_AT_ONCE))
        spent += time.process_time() - begun
    return _cpu(spent, count)


async def _oldest(url: str, count: int) -> harness.Sample:
    """Guests come at random, and the one of each batch who waited longest is held against the linger and the
    round trip of a request with as many guests."""
    async with client_of(url) as client:
        trip = await _round_trip(client, round(_LINGER * _PER_SECOND))
        async with AsyncBatcher(client, **TARGET, linger=_LINGER) as batcher:
            waited = await _waits(batcher, count)
    beyond = [1000 * (seconds - _LINGER - trip) for seconds in waited]
    p99 = statistics.quantiles(beyond, n=100, method="inclusive")[98]
    return {
        "median": statistics.median(beyond),
        "p99": p99,
        "round_trip": 1000 * trip,
        "batches": len(beyond),
    }


async def _round_trip(client: ThanxClient, count: int) -> float:
    """The median of many, in seconds."""
    texts, seconds = list(guests.plain(count)), []
    for _ in range(100):
        begun = time.perf_counter()
        await client.issue_rewards(identifiers=texts, **TARGET)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


async def _waits(batcher: AsyncBatcher, count: int) -> list[float]:
    """The longest wait of each batch, in seconds."""
    chance, longest = random.Random(count), dict[str, float]()

    async def caller(guest: str) -> None:
        begun = time.perf_counter()
        job = (await batcher.add(guest)).id
        longest[job] = max(longest.get(job, 0.0), time.perf_counter() - begun)

    async with asyncio.TaskGroup() as group:
        due = time.perf_counter()
        for guest in guests.plain(count):
            due += chance.expovariate(_PER_SECOND)
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            group.create_task(caller(guest))
    return list(longest.values())


async def _all(callers: Iterable[Coroutine[object, object, object]]) -> None:
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller)


def _part(measure: Callable[[str, int], Coroutine[object, object, harness.Sample]]) -> harness.Part:
    return lambda url, count: asyncio.run(measure(url, int(count)))


PARTS: dict[str, harness.Part] = {"add": _part(_add), "task": _part(_task), "oldest": _part(_oldest)}


def main() -> None:
    """Measure, compare, publish."""
    quick = harness.is_quick()
    adds, arrivals = (50_000, 2_000) if quick else (200_000, 10_000)
    with sink() as url:
        run = partial(harness.part, _NAME)
        contenders = {
            _ADD: partial(run, "add", url, adds),
            _TASK: partial(run, "task", url, adds),
            _OLDEST: partial(run, "oldest", url, arrivals),
        }
        samples = harness.interleave(contenders, rounds=2 if quick else 5)
    harness.publish(_report(samples))


def _report(samples: harness.Samples) -> harness.Report:
    whole, task = (samples.median(name, "microseconds") for name in (_ADD, _TASK))
    pairs = zip(samples.runs[_ADD], samples.runs[_TASK], strict=True)
    net = statistics.median(one["microseconds"] - two["microseconds"] for one, two in pairs)
    middle, p99, trip = (samples.median(_OLDEST, value) for value in ("median", "p99", "round_trip"))
    return harness.Report(
        name="add",
        question=f"CPU of guests added by {_AT_ONCE:,} tasks at a time, and the wait of a batch's first guest",
        columns=("", "median", "p99"),
        rows=[
            (f"{_ADD}, microseconds", f"{whole:.1f}", ""),
            (f"{_TASK}, microseconds", f"{task:.1f}", ""),
            ("the difference, microseconds", f"{net:.1f}", ""),
            (f"{_OLDEST}, beyond linger and round trip, ms", f"{middle:.2f}", f"{p99:.2f}"),
            ("round trip, ms", f"{trip:.2f}", ""),
        ],
        headlines=[
            harness.Headline(
                "CPU of `await batcher.add(guest)`, beside the caller's own task",
                f"{net:.1f} microseconds",
                f"{_TARGET:g} microseconds",
                f"{task:.1f} microseconds for the task",
                met=net <= _TARGET,
            ),
            harness.Headline(
                "Longest wait in a batch of `add`, beyond linger and round trip: median, 99th percentile",
                f"{middle:.1f} ms, {p99:.1f} ms",
                beside=f"{1000 * _LINGER:g} ms linger, {trip:.1f} ms round trip",
            ),
        ],
        samples=samples,
    )


if __name__ == "__main__":
    harness.start(PARTS, main)
