"""The command that runs the emulator by itself."""

from __future__ import annotations

import asyncio
import sys

from thanx_async._cli_output import write
from thanx_async._cli_run import ISSUED, on_signals
from thanx_async.emulator import Counter, Emulator, JobSpeed
from thanx_async.errors import ConfigurationError


async def run_emulator(
    *,
    port: int = 8086,
    counter: Counter = Counter.FIXED,
    limits: str = "5/1,2000/900",
    speed: float = 5000.0,
) -> int:
    """Run the emulator on loopback until Ctrl-C.

    Parameters
    ----------
    port:
        The port on 127.0.0.1; 0 takes a free one.
    counter:
        How requests are counted.
    limits:
        Requests/seconds, separated by commas.
    speed:
        Identifiers a second that a job processes.
    """
    job_speed = JobSpeed(identifiers_per_second=speed)
    stop = asyncio.Event()
    with on_signals(stop.set):
        async with Emulator(port=port, counter=counter, limits=_limits(limits), speed=job_speed) as emulator:
            write(f"{emulator.url}\nUse it with: export THANX_BASE_URL={emulator.url}")
            sys.stdout.flush()
            await stop.wait()
            write(str(emulator.statistics()))
    return ISSUED


def _limits(text: str) -> list[tuple[int, float]]:
    try:
        pairs = [part.split("/") for part in text.split(",")]
        return [(int(requests), float(seconds)) for requests, seconds in pairs]
    except ValueError:
        raise ConfigurationError(f"--limits must look like 5/1,2000/900, not {text!r}") from None
