"""What recording costs: CPU of a run with a ledger over that of the same run without.

The server is another process that accepts everything, so that the client is all that counts.

Run: python -m benchmarks.ledger
"""

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
    count = _COUNT_QUICK if harness.is_quick() else _COUNT
    with sink() as url:
        contenders = {
            mode: partial(harness.part, "benchmarks.ledger", "run", url, count, mode)
            for mode in (_WITHOUT, _WITH)
        }
        samples = harness.interleave(contenders, rounds=1 if harness.is_quick() else _ROUNDS)
    cpu = {mode: samples.median(mode, "cpu") for mode in contenders}
    added = (cpu[_WITH] / cpu[_WITHOUT] - 1) * 100
    harness.publish(
        harness.Report(
            name="ledger",
            question=f"CPU of issuing to {count:,} guests, with and without a record",
            columns=("run", "CPU seconds", "over the run without"),
            rows=[(mode, f"{value:.2f}", f"{value / cpu[_WITHOUT]:.2f}") for mode, value in cpu.items()],
            headlines=[
                harness.Headline(
                    "CPU that recording in a ledger adds",
                    f"{added:.0f} %",
                    f"{_TARGET:g} %",
                    met=added <= _TARGET,
                )
            ],
            samples=samples,
        )
    )


if __name__ == "__main__":
    harness.start(PARTS, main)
