"""How long the event loop is held while a million guests are issued beside a web service's own work.

Run: python -m benchmarks.loop
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory

import uvloop

from benchmarks import guests, harness, rivals
from benchmarks.issuing import issue, open_batcher
from benchmarks.sink import sink

_NAME = "benchmarks.loop"
_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
_IDLE = 0.0001
_ONE_IN = 50
_TO_THE_END = f"thanx_async, each job waited for, one guest in {_ONE_IN} failed"
_TARGET_P99, _TARGET_WORST = 5.0, 20.0


class _Holds:
    """Seconds between two turns of the loop, as wall time and as CPU time of the loop's thread.

    Turns of less than 0.1 ms are the idle ones and are left out. The CPU time tells what the code did, even
    where other programs had the core in between.
    """

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    async def watch(self) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(0)
            now, spent = time.perf_counter(), time.thread_time()
            if now - wall > _IDLE:
                self.wall.append(now - wall)
                self.cpu.append(spent - cpu)
            wall, cpu = now, spent

    def summary(self) -> harness.Sample:
        """Milliseconds."""
        values: dict[str, float] = {"holds": len(self.wall)}
        for clock, held in (("wall", self.wall), ("cpu", self.cpu)):
            values[f"{clock}_p99"] = 1000 * statistics.quantiles(held, n=100, method="inclusive")[98]
            values[f"{clock}_worst"] = 1000 * max(held)
        return values


async def _watched(send: rivals.Send, url: str, texts: Sequence[str]) -> harness.Sample:
    holds = _Holds()
    watcher = asyncio.create_task(holds.watch())
    await send(url, texts)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    return holds.summary()


def _measured(send: rivals.Send, loop: str, url: str, count: str) -> harness.Sample:
    texts = list(guests.plain(int(count)))
    gc.freeze()  # a collection that walks the input is not the sender's doing
    with asyncio.Runner(loop_factory=_LOOPS[loop]) as runner:
        return runner.run(_watched(send, url, texts))


async def _to_the_end(url: str, texts: Sequence[str]) -> None:
    async with open_batcher(url) as batcher:
        report = await (await batcher.issue(texts)).wait()
    assert len(report.failed) == report.total // _ONE_IN


def _generated(loop: str, url: str, count: str, directory: str) -> harness.Sample:
    return _measured(rivals.generated(directory), loop, url, count)


PARTS: dict[str, harness.Part] = {
    "ours": partial(_measured, issue),
    "to-the-end": partial(_measured, _to_the_end),
    "by-hand": partial(_measured, rivals.aiohttp_orjson),
    "generated": _generated,
}


def main() -> None:
    """Measure, compare, publish."""
    count = 200_000 if harness.is_quick() else 1_000_000
    run = partial(harness.part, _NAME)
    with sink() as url, sink(_ONE_IN) as failing, TemporaryDirectory() as directory:
        rivals.generate(directory)
        contenders = {}
        for loop in _LOOPS:
            contenders[f"thanx_async, {loop}"] = partial(run, "ours", loop, url, count)
            contenders[f"by hand: aiohttp + orjson, {loop}"] = partial(run, "by-hand", loop, url, count)
        contenders[_TO_THE_END] = partial(run, "to-the-end", "asyncio", failing, count)
        contenders["generated, asyncio"] = partial(run, "generated", "asyncio", url, count, directory)
        samples = harness.interleave(contenders, rounds=1 if harness.is_quick() else 3)
    harness.publish(_report(samples, count))
    harness.bars(
        "loop",
        f"Longest time the loop is held while {count:,} guests are issued",
        "milliseconds of the loop's thread",
        {name: samples.median(name, "cpu_worst") for name in contenders},
        target=_TARGET_WORST,
    )


def _report(samples: harness.Samples, count: int) -> harness.Report:
    columns = "cpu_p99", "cpu_worst", "wall_p99", "wall_worst"
    rows = [(name, *(f"{samples.median(name, value):.1f}" for value in columns)) for name in samples.runs]
    headlines = []
    for loop in _LOOPS:
        p99, worst = (samples.median(f"thanx_async, {loop}", value) for value in columns[:2])
        by_hand = (samples.median(f"by hand: aiohttp + orjson, {loop}", value) for value in columns[:2])
        headlines.append(
            harness.Headline(
                f"Loop ({loop}) held while {count:,} guests are issued: 99th percentile, worst",
                f"{p99:.1f} ms, {worst:.1f} ms",
                f"{_TARGET_P99:g} ms, {_TARGET_WORST:g} ms",
                ", ".join(f"{value:.1f} ms" for value in by_hand) + " by hand",
                met=p99 <= _TARGET_P99 and worst <= _TARGET_WORST,
            )
        )
    p99, worst = (samples.median(_TO_THE_END, value) for value in columns[:2])
    headlines.append(
        harness.Headline(
            f"... and each job waited for, one guest in {_ONE_IN} failed", f"{p99:.1f} ms, {worst:.1f} ms"
        )
    )
    return harness.Report(
        name="loop",
        question=f"Milliseconds that the loop is held while {count:,} guests are issued",
        columns=("", "CPU p99", "CPU worst", "wall p99", "wall worst"),
        rows=rows,
        headlines=headlines,
        samples=samples,
    )


if __name__ == "__main__":
    harness.start(PARTS, main)
