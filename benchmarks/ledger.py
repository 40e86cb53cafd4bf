"""What recording costs: CPU of a run with a ledger over that of the same run without, in one process.

The server is another process without limits, so that the client is all that counts.

Run: python -m benchmarks.ledger [GUESTS]
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.memory import _SERVER, guests
from thanx_async import AsyncBatcher, Ledger, LocalRateLimiter, RateLimit, SQLiteLedger, ThanxClient

_ROUNDS = 3


async def issue(url: str, count: int, ledger: Ledger | None) -> None:
    """Stream the guests and wait for the jobs."""
    limiter = LocalRateLimiter([RateLimit(10_000, 1)])
    async with ThanxClient("c", "t", base_url=url, limiter=limiter) as client:
        batcher = AsyncBatcher(
            client,
            campaign_id="camp_abc123",
            merchant_id="k2lye10h32l5wzo",
            variant_id="var_treat1",
            ledger=ledger,
        )
        report = await (await batcher.issue(guests(count))).wait()
    if report.issued != count:
        raise SystemExit(f"{report.issued} of {count} were issued")


async def recorded(url: str, count: int) -> None:
    """The same, recorded in a new ledger."""
    with tempfile.TemporaryDirectory() as folder:
        async with SQLiteLedger(Path(folder) / "ledger.sqlite") as ledger:
            await issue(url, count, ledger)


def seconds(url: str, count: int, *, ledger: bool) -> float:
    """CPU seconds of one run, user and system, all threads."""
    started = time.process_time()
    asyncio.run(recorded(url, count) if ledger else issue(url, count, None))
    return time.process_time() - started


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            seconds(url, 10_000, ledger=True)
            rounds = [
                (seconds(url, count, ledger=False), seconds(url, count, ledger=True)) for _ in range(_ROUNDS)
            ]
        finally:
            server.terminate()
    without, with_ledger = (median(times) for times in zip(*rounds, strict=True))
    print(f"{count:,} guests: {without:.2f} s without, {with_ledger:.2f} s with a ledger")
    print(f"recording adds {with_ledger / without - 1:.1%}")


if __name__ == "__main__":
    main()
