"""Calls that many requests to a service become, and how long its loop is held with a run beside it."""

from __future__ import annotations

import asyncio
import resource
import selectors
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop
from aiohttp import web

from benchmarks import harness
from benchmarks.held import Held
from benchmarks.issuing import TARGET
from tests.hosts.programs import serving
from thanx_async import AsyncBatcher, ThanxClient
from thanx_async.emulator import Emulator

_NAME = "benchmarks.service"
_REQUESTS, _SECONDS, _MOST_CALLS = 20_000, 10, 40
_GUESTS, _PINGS, _LONGEST = 300_000, 500, 20.0


async def _load(*arguments: object) -> dict[str, float]:
    """The load generator's summary."""
    command = [sys.executable, "-m", "benchmarks.load", *map(str, arguments)]
    found = await asyncio.to_thread(harness.command, *command, parse=True)
    return {name: value for name, value in found.items() if name not in {"statuses", "process_cpu"}}


async def _thanks(host: str, count: int) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        async with Emulator() as emulator, serving(host, Path(folder), emulator) as (service, _):
            found = await _load(service.url, count, _SECONDS * count / _REQUESTS)
            service.terminate()
            await service.ended()
    issued = sum(row.path.endswith("/issue") for row in emulator.requests)
    rewards = emulator.reward_counts()
    return found | {
        "issuing": issued,
        "polls": len(emulator.requests) - issued,
        "refused": emulator.refused,
        "rewards": len(rewards),
        "most_rewards": max(rewards.values()),
        "cpu": _cpu_of_children(),
    }


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _Watched(selectors.DefaultSelector):
    """Knows how long each turn of the loop took."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Held()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.held.end()
        try:
            return super().select(timeout)
        finally:
            self.held.begin()


async def _ping(_: web.Request) -> web.Response:
    return web.json_response({})


@asynccontextmanager
async def _service() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/ping", _ping)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def _issue(emulator: str, count: int) -> None:
    async with ThanxClient("c", "t", base_url=emulator) as client:
        guests = (f"guest{number}@example.com" for number in range(count))
        report = await (await AsyncBatcher(client, **TARGET).issue(guests)).wait()
    assert report.issued == count


async def _pinged(emulator: str, count: int, seconds: int) -> dict[str, float]:
    async with _service() as url, asyncio.TaskGroup() as group:
        loaded = group.create_task(_load(url, seconds * _PINGS, seconds, "/ping"))
        if count:
            group.create_task(_issue(emulator, count))
    return loaded.result()


def _beside(loop: str, emulator: str, count: str, seconds: str) -> harness.Sample:
    watched = _Watched()
    factory = uvloop.new_event_loop if loop == "uvloop" else partial(asyncio.SelectorEventLoop, watched)
    with asyncio.Runner(loop_factory=factory) as runner:
        found = runner.run(_pinged(emulator, int(count), int(seconds)))
    return found if loop == "uvloop" else found | watched.held.summary()


PARTS: dict[str, harness.Part] = {
    "thanks": lambda host, count: asyncio.run(_thanks(host, int(count))),
    "beside": _beside,
}


def _run(loop: str, count: int, seconds: int) -> harness.Sample:
    with harness.server("thanx_async", "emulator", "--port", "0") as url:
        return harness.part(_NAME, "beside", loop, url, count, seconds)


def main() -> None:
    """Measure, compare, publish."""
    requests, guests, seconds = harness.size((_REQUESTS, _GUESTS, 8), quick=(2_000, 50_000, 2))
    thanks = {host: partial(harness.part, _NAME, "thanks", host, requests) for host in ("fastapi", "aiohttp")}
    beside = {
        f"{loop}, {what}": partial(_run, loop, count, seconds)
        for loop in ("asyncio", "uvloop")
        for what, count in (("issuing", guests), ("idle", 0))
    }
    rounds = harness.size(3, quick=1)
    _publish_thanks(harness.interleave(thanks, rounds=rounds), requests)
    _publish_beside(harness.interleave(beside, rounds=rounds), guests)


def _publish_thanks(samples: harness.Samples, requests: int) -> None:
    columns = "seconds", "issuing", "polls", "wrong", "refused", "most_rewards", "p50", "p99", "cpu"
    rows = [(host, *(f"{samples.median(host, name):,.0f}" for name in columns)) for host in samples.runs]
    calls, seconds = samples.median("fastapi", "issuing"), samples.median("fastapi", "seconds")
    wrong = max(run["wrong"] for runs in samples.runs.values() for run in runs)
    harness.publish(
        harness.Report(
            name="service",
            question=f"{requests:,} concurrent requests within {_SECONDS * requests / _REQUESTS:g} s, each of"
            " whose guests is then asked about",
            columns=("", "s", "calls", "polls", "wrong", "429s", "most rewards", "ms p50", "p99", "CPU s"),
            rows=rows,
            headlines=[
                harness.Headline(
                    f"{requests:,} requests to a FastAPI service within {seconds:.0f} s become",
                    f"{calls:.0f} calls, {wrong:.0f} answers wrong",
                    f"fewer than {_MOST_CALLS}, 0 wrong",
                    met=calls < _MOST_CALLS and not wrong,
                )
            ],
            samples=samples,
        )
    )


def _publish_beside(samples: harness.Samples, guests: int) -> None:
    columns = "cpu_p999", "cpu_worst", "wall_p999", "wall_worst", "p50", "p99", "p999"
    rows = [(name, *_cells(samples, name, columns)) for name in samples.runs]
    held = samples.median("asyncio, issuing", "wall_p999")
    idle = samples.median("asyncio, idle", "wall_p999")
    harness.publish(
        harness.Report(
            name="beside",
            question=f"Milliseconds that the loop of a service is held, and that a request to it takes,"
            f" while {guests:,} guests are issued beside it",
            columns=("", "turn: CPU p99.9", "worst", "wall p99.9", "worst", "request: p50", "p99", "p99.9"),
            rows=rows,
            headlines=[
                harness.Headline.at_most(
                    f"Loop of a service held while {guests:,} guests are issued beside it: 99.9th percentile",
                    held,
                    _LONGEST,
                    "ms",
                    beside=f"{idle:.1f} ms without",
                )
            ],
            samples=samples,
        )
    )


def _cells(samples: harness.Samples, name: str, columns: Sequence[str]) -> list[str]:
    """A loop that cannot be watched from outside has no turns."""
    known = samples.runs[name][0]
    return [f"{samples.median(name, column):.1f}" if column in known else "-" for column in columns]


if __name__ == "__main__":
    harness.start(PARTS, main)
