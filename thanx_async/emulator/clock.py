"""The emulator's time: the loop's time plus the time skipped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from thanx_async.emulator import checks

_RESOLUTION = 1e-6


class Clock:
    """Seconds that never go backwards, and the wall time for them."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self._epoch = datetime.now(UTC)
        self._jumped = asyncio.Event()

    def start(self) -> None:
        """Set the wall time from the system's clock."""
        self._epoch = datetime.now(UTC) - timedelta(seconds=self.now())

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self._skipped

    def wall(self, at: float) -> datetime:
        """The wall time at a moment of this clock."""
        return self._epoch + timedelta(seconds=at)

    def iso(self, at: float) -> str:
        """The wall time in Thanx's format: ISO 8601, UTC, whole seconds."""
        return self.wall(at).strftime("%Y-%m-%dT%H:%M:%SZ")

    def advance(self, seconds: float) -> None:
        """Skip time; sleepers whose time has come wake at once."""
        checks.seconds("seconds of Emulator.advance()", seconds)
        self._skipped += seconds
        jumped, self._jumped = self._jumped, asyncio.Event()
        jumped.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep until this clock has advanced by ``seconds``."""
        until = self.now() + seconds
        while (left := until - self.now()) > _RESOLUTION:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._jumped.wait()
