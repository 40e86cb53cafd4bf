"""Memory of ten million streamed guests beside that of 200,000, every job waited for."""

from __future__ import annotations

import asyncio
from functools import partial

from benchmarks import guests, harness
from benchmarks.issuing import issue_and_wait
from benchmarks.sink import sink

_FEW, _MANY, _MANY_QUICK = 200_000, 10_000_000, 1_000_000
_LEAN = "keep_values=False, deduplicate=False"
_UNIQUE = "keep_values=False"
_DEFAULT = "as by default"
_MODES = {_LEAN: (False, False), _UNIQUE: (True, False), _DEFAULT: (True, True)}
_TARGET_GROWTH, _TARGET_EACH = 16.0, 110.0


def _run(url: str, count: str, mode: str) -> harness.Sample:
    deduplicate, keep_values = _MODES[mode]
    send = issue_and_wait(url, guests.plain(int(count)), deduplicate=deduplicate, keep_values=keep_values)
    asyncio.run(send)
    return {}


PARTS: dict[str, harness.Part] = {"run": _run}


def main() -> None:
    """Measure, compare, publish."""
    many = harness.size(_MANY, quick=_MANY_QUICK)
    run = partial(harness.part, "benchmarks.memory", "run")
    with sink() as url:
        contenders = {
            f"{mode}: {count:,}": partial(run, url, count, mode) for mode in _MODES for count in (_FEW, many)
        }
        samples = harness.interleave(contenders, rounds=1)
    growth = {
        mode: samples.median(f"{mode}: {many:,}", "process_peak")
        - samples.median(f"{mode}: {_FEW:,}", "process_peak")
        for mode in _MODES
    }
    harness.publish(_report(samples, growth, many))


def _report(samples: harness.Samples, growth: dict[str, float], many: int) -> harness.Report:
    lean, each = growth[_LEAN] / 2**20, growth[_UNIQUE] / (many - _FEW)
    return harness.Report(
        name="memory",
        question=f"Growth of the peak from {_FEW:,} to {many:,} streamed guests",
        columns=("AsyncBatcher(...)", "MiB", "bytes a further guest"),
        rows=[
            (mode, f"{growth[mode] / 2**20:.1f}", f"{growth[mode] / (many - _FEW):.1f}") for mode in _MODES
        ],
        headlines=[
            harness.Headline.at_most(
                f"Memory for {many - _FEW:,} further guests, streamed", lean, _TARGET_GROWTH, "MiB"
            ),
            harness.Headline.at_most(
                "... with de-duplication, a guest", each, _TARGET_EACH, "bytes", digits=0
            ),
        ],
        samples=samples,
    )


if __name__ == "__main__":
    harness.start(PARTS, main)
