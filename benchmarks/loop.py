"""How long a loop is held while a million guests are issued, beside hand-written and generated clients."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory

import uvloop

from benchmarks import guests, harness, rivals
from benchmarks.held import Held
from benchmarks.issuing import issue, open_batcher
from benchmarks.sink import sink

_NAME = "benchmarks.loop"
_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
_IDLE = 0.0001  # seconds; shorter turns do nothing
_ONE_IN = 50
_TO_THE_END = f"thanx_async, each job waited for, one guest in {_ONE_IN} failed"
_TARGET_P99, _TARGET_WORST = 5.0, 20.0


async def _watch(held: Held) -> None:
    while True:
        held.begin()
        await asyncio.sleep(0)
        held.end(least=_IDLE)


async def _watched(send: rivals.Send, url: str, texts: Sequence[str]) -> harness.Sample:
    held = Held()
    watcher = asyncio.create_task(_watch(held))
    await send(url, texts)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    return held.summary()


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
    count = harness.size(1_000_000, quick=200_000)
    run = partial(harness.part, _NAME)
    with sink() as url, sink(_ONE_IN) as failing, TemporaryDirectory() as directory:
        rivals.generate(directory)
        contenders = {}
        for loop in _LOOPS:
            contenders[f"thanx_async, {loop}"] = partial(run, "ours", loop, url, count)
            contenders[f"by hand: aiohttp + orjson, {loop}"] = partial(run, "by-hand", loop, url, count)
        contenders[_TO_THE_END] = partial(run, "to-the-end", "asyncio", failing, count)
        contenders["generated, asyncio"] = partial(run, "generated", "asyncio", url, count, directory)
        samples = harness.interleave(contenders, rounds=harness.size(3, quick=1))
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
