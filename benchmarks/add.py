"""CPU and latency of a call of `add()`, beside a task that does nothing and a request for each guest."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial

import aiohttp

from benchmarks import guests, harness, rivals
from benchmarks.issuing import AT_ONCE, TARGET, client_of
from benchmarks.sink import sink
from thanx_async import AsyncBatcher, ThanxClient

_OURS, _BARE, _SINGLE = "batcher.add()", "a task that does nothing", "a request for each guest: aiohttp"
_LATENCY = "latency"
_WAVE = 10_000
_LINGER = 0.05
_TARGET = 10.0

Call = Callable[[str], Awaitable[object]]


async def _cpu(call: Call, count: int) -> harness.Sample:
    """Microseconds for each of many concurrent callers, every one a task, as in a service."""
    texts = list(guests.plain(count))
    gc.freeze()  # collections that walk the input are not the calls' doing
    started = time.process_time()
    for first in range(0, count, _WAVE):
        await asyncio.gather(*[call(text) for text in texts[first : first + _WAVE]])
    return {"cpu": 1e6 * (time.process_time() - started) / count}


async def _add(url: str, count: int) -> harness.Sample:
    async with client_of(url) as client, AsyncBatcher(client, **TARGET, linger=_LINGER) as batcher:
        return await _cpu(batcher.add, count)


async def _bare(_: str, count: int) -> harness.Sample:
    return await _cpu(lambda _: asyncio.sleep(0), count)


async def _single(url: str, count: int) -> harness.Sample:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await _cpu(lambda guest: rivals.issue_at_once(session, url, [guest]), count)


async def _latency(url: str, calls: int) -> harness.Sample:
    """Milliseconds beyond linger and round trip: of calls one after the other, and of the last of many."""
    texts = guests.plain(10**9)
    async with client_of(url) as client, AsyncBatcher(client, **TARGET, linger=_LINGER) as batcher:
        trip = statistics.median([await _seconds(_issue_one(client, next(texts))) for _ in range(calls)])
        alone = statistics.median([await _seconds(batcher.add(next(texts))) for _ in range(calls)])
        together = await _seconds(asyncio.gather(*[batcher.add(next(texts)) for _ in range(_WAVE - 1)]))
    return {
        "trip": 1000 * trip,
        "alone": 1000 * (alone - _LINGER - trip),
        "together": 1000 * (together - _LINGER - trip),
    }


async def _issue_one(client: ThanxClient, guest: str) -> object:
    return await client.issue_rewards(**TARGET, identifiers=[guest])


async def _seconds(call: Awaitable[object]) -> float:
    started = time.perf_counter()
    await call
    return time.perf_counter() - started


_RUNS = {_OURS: _add, _BARE: _bare, _SINGLE: _single, _LATENCY: _latency}


def _run(name: str, url: str, count: str) -> harness.Sample:
    return asyncio.run(_RUNS[name](url, int(count)))


PARTS: dict[str, harness.Part] = {"run": _run}


def main() -> None:
    """Measure, compare, publish."""
    counts = {_OURS: 200_000, _BARE: 200_000, _SINGLE: 10_000, _LATENCY: 50}
    counts = {name: harness.size(count, quick=max(count // 10, 10)) for name, count in counts.items()}
    with sink() as url:
        contenders = {
            name: partial(harness.part, "benchmarks.add", "run", name, url, count)
            for name, count in counts.items()
        }
        samples = harness.interleave(contenders, rounds=harness.size(3, quick=1))
    harness.publish(_report(samples))


def _report(samples: harness.Samples) -> harness.Report:
    gross, bare, single = (samples.median(name, "cpu") for name in (_OURS, _BARE, _SINGLE))
    trip, alone, together = (samples.median(_LATENCY, value) for value in ("trip", "alone", "together"))
    return harness.Report(
        name="add",
        question="CPU of a call of add(), and its latency",
        columns=("", "CPU, microseconds a call"),
        rows=[(name, f"{samples.median(name, 'cpu'):.1f}") for name in (_OURS, _BARE, _SINGLE)],
        headlines=[
            harness.Headline.at_most(
                "CPU for each `add()`, net of the caller's own task",
                gross - bare,
                _TARGET,
                "µs",
                beside=f"{single - bare:.0f} µs for a request each with aiohttp",
            ),
            harness.Headline(
                f"`add()` beyond linger and round trip ({trip:.1f} ms): alone, the last of {_WAVE:,} at once",
                f"{alone:.1f} ms, {together:.1f} ms",
            ),
        ],
        samples=samples,
    )


if __name__ == "__main__":
    harness.start(PARTS, main)
