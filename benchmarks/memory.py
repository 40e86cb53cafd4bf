"""How much memory a run takes as the number of guests grows; the server is another process.

Run: python -m benchmarks.memory
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import Iterator

from thanx_async import AsyncBatcher, LocalRateLimiter, RateLimit, ThanxClient

_SERVER = """
import asyncio
from thanx_async.emulator import Emulator, JobSpeed

async def main():
    async with Emulator(limits=[], track_guests=False, speed=JobSpeed(1e9, 0)) as emulator:
        print(emulator.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
_SIZES = (200_000, 1_000_000, 3_000_000)


def guests(count: int) -> Iterator[str]:
    """Generated addresses, none of them kept."""
    return (f"guest{number}@example.com" for number in range(count))


async def issue(url: str, count: int, *, lean: bool) -> int:
    """Stream the guests and wait for the jobs; returns the peak of the process in bytes."""
    limiter = LocalRateLimiter([RateLimit(10_000, 1)])
    async with ThanxClient("c", "t", base_url=url, limiter=limiter) as client:
        batcher = AsyncBatcher(
            client,
            campaign_id="camp_abc123",
            merchant_id="k2lye10h32l5wzo",
            variant_id="var_treat1",
            keep_values=not lean,
            deduplicate=not lean,
        )
        run = await batcher.issue(guests(count))
        report = await run.wait()
    if report.issued != count:
        raise SystemExit(f"{report.issued} of {count} were issued")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak(url: str, count: int, *, lean: bool) -> int:
    """The peak of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", url, str(count), "lean" if lean else "full"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    if len(sys.argv) == 4:
        print(asyncio.run(issue(sys.argv[1], int(sys.argv[2]), lean=sys.argv[3] == "lean")))
        return
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            for lean in (True, False):
                print("without values and de-duplication" if lean else "with de-duplication")
                base = peak(url, _SIZES[0], lean=lean)
                for count in _SIZES:
                    growth = peak(url, count, lean=lean) - base
                    each = growth / (count - _SIZES[0]) if count > _SIZES[0] else 0.0
                    print(
                        f"{count:>12,} guests: {growth / 2**20:+8.1f} MiB, {each:6.1f} bytes a further guest"
                    )
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
