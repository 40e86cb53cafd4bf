"""Time and memory of ten million guests beside those of ten thousand: linear, and flat."""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial

from benchmarks import guests, harness
from benchmarks.issuing import issue_and_wait
from benchmarks.sink import sink

_MODES = {"no de-duplication": False, "with de-duplication": True}
_SIZES = (10_000, 100_000, 1_000_000, 10_000_000)


def _run(url: str, count: str, mode: str) -> harness.Sample:
    base, started = harness.peak(), time.process_time()
    asyncio.run(issue_and_wait(url, guests.plain(int(count)), deduplicate=_MODES[mode], keep_values=False))
    return {"cpu": time.process_time() - started, "growth": harness.peak() - base}


PARTS: dict[str, harness.Part] = {"run": _run}


def main() -> None:
    """Measure, compare, publish."""
    sizes = harness.size(_SIZES, quick=_SIZES[:-1])
    run = partial(harness.part, "benchmarks.growth", "run")
    with sink() as url:
        contenders = {
            _name(mode, count): partial(run, url, count, mode) for mode in _MODES for count in sizes
        }
        samples = harness.interleave(contenders, rounds=1)
    harness.publish(_report(samples, sizes))
    _draw(samples, sizes)


def _name(mode: str, count: int) -> str:
    return f"{mode}, {count:,}"


def _slope(samples: harness.Samples, mode: str, value: str, low: int, high: int) -> float:
    """Of the log-log line from ``low`` to ``high`` guests: 1 is linear, 0 is flat."""
    first, last = (samples.median(_name(mode, count), value) for count in (low, high))
    return math.log(last / first) / math.log(high / low)


def _report(samples: harness.Samples, sizes: tuple[int, ...]) -> harness.Report:
    lean, unique = _MODES
    time_slope = _slope(samples, unique, "cpu", sizes[-3], sizes[-1])
    memory_slope = _slope(samples, lean, "growth", sizes[-3], sizes[-1])
    return harness.Report(
        name="growth",
        question="CPU time and memory as the number of guests grows, every job waited for",
        columns=("", "guests", "CPU s", "microseconds a guest", "MiB"),
        rows=[
            (
                mode,
                f"{count:,}",
                f"{samples.median(_name(mode, count), 'cpu'):.2f}",
                f"{1e6 * samples.median(_name(mode, count), 'cpu') / count:.2f}",
                f"{samples.median(_name(mode, count), 'growth') / 2**20:.1f}",
            )
            for mode in _MODES
            for count in sizes
        ],
        headlines=[
            harness.Headline(
                f"From {sizes[-3]:,} to {sizes[-1]:,} guests, time grows as guests to the power of",
                f"{time_slope:.2f}",
                "1, linear",
            ),
            harness.Headline("... and memory, without de-duplication", f"{memory_slope:.2f}", "0, flat"),
        ],
        samples=samples,
    )


def _draw(samples: harness.Samples, sizes: tuple[int, ...]) -> None:
    with harness.chart("growth", "CPU time and memory by guests", height=4.0) as axes:
        for mode, style in zip(_MODES, ("-", "--"), strict=True):
            names = [_name(mode, count) for count in sizes]
            cpu = [samples.median(name, "cpu") for name in names]
            memory = [samples.median(name, "growth") / 2**20 for name in names]
            axes.plot(sizes, cpu, style, marker="o", color="#4477aa", label=f"CPU seconds, {mode}")
            axes.plot(sizes, memory, style, marker="s", color="#cc3311", label=f"MiB, {mode}")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("guests, streamed")
        axes.legend(frameon=False)


if __name__ == "__main__":
    harness.start(PARTS, main)
