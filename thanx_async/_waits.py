"""Waiting for a change on the loop's clock."""

from __future__ import annotations

import asyncio
from math import inf

RESOLUTION = 1e-6
"""A wait below the resolution of the loop's clock would spin. Seconds."""


async def changed(change: asyncio.Event, wait: float | None) -> None:
    """Return when something has changed, or after ``wait`` seconds (None, infinity: only then)."""
    try:
        async with asyncio.timeout(None if wait is None or wait == inf else max(wait, RESOLUTION)):
            await change.wait()
    except TimeoutError:
        return
