"""CPU of a run that a ledger records, beside the same run without one."""

from __future__ import annotations

import asyncio
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks import guests, harness
from benchmarks.issuing import TARGET, client_of
from benchmarks.sink import sink
from thanx_async import AsyncBatcher, Ledger, SQLiteLedger

_COUNT, _COUNT_QUICK = 1_000_000, 100_000
_ROUNDS = 5
_WITHOUT, _WITH = "without", "with SQLiteLedger"
_TARGET = 5.0


async def _issue(url: str, count: int, ledger: Ledger | None) -> None:
    async with client_of(url) as client:
        report = await (await AsyncBatcher(client, **TARGET, ledger=ledger).issue(guests.plain(count))).wait()
    assert report.issued == count


async def _record(url: str, count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with SQLiteLedger(Path(folder) / "ledger.sqlite") as ledger:
            await _issue(url, count, ledger)


def _run(url: str, count: str, mode: str) -> harness.Sample:
    started = time.process_time()
    asyncio.run(_record(url, int(count)) if mode == _WITH else _issue(url, int(count), None))
    return {"cpu": time.process_time() - started}


PARTS: dict[str, harness.Part] = {"run": _run}


def main() -> None:
    """Measure, compare, publish."""
    count = harness.size(_COUNT, quick=_COUNT_QUICK)
    with sink() as url:
        contenders = {
            mode: partial(harness.part, "benchmarks.ledger", "run", url, count, mode)
            for mode in (_WITHOUT, _WITH)
        }
        samples = harness.interleave(contenders, rounds=harness.size(_ROUNDS, quick=1))
    harness.publish(_report(samples, count))


def _report(samples: harness.Samples, count: int) -> harness.Report:
    cpu = {mode: samples.median(mode, "cpu") for mode in samples.runs}
    added = (cpu[_WITH] / cpu[_WITHOUT] - 1) * 100
    return harness.Report(
        name="ledger",
        question=f"CPU of issuing to {count:,} guests, with and without a record",
        columns=("run", "CPU seconds", "over the run without"),
        rows=[(mode, f"{value:.2f}", f"{value / cpu[_WITHOUT]:.2f}") for mode, value in cpu.items()],
        headlines=[
            harness.Headline.at_most("CPU that recording in a ledger adds", added, _TARGET, "%", digits=0)
        ],
        samples=samples,
    )


if __name__ == "__main__":
    harness.start(PARTS, main)
