"""Outboxes on each backend, a client without rate limits, and an emulator."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import TARGET
from thanx_async import LocalRateLimiter, RateLimit, SQLiteOutbox, ThanxClient
from thanx_async.emulator import Emulator, JobSpeed
from thanx_async.outbox import StoredOutbox

Make = Callable[..., StoredOutbox[Any]]
"""Makes an outbox on the same store each time; keyword arguments replace the usual ones."""


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    speed = JobSpeed(identifiers_per_second=1e6, start_delay=0.01, revoke_seconds=0.01)
    async with Emulator(limits=[(100_000, 1)], speed=speed) as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator, soon: None) -> AsyncIterator[ThanxClient]:
    limiter = LocalRateLimiter([RateLimit(100_000, 1)])
    async with ThanxClient("c", "s3cret", base_url=emulator.url, limiter=limiter) as opened:
        yield opened


@pytest.fixture(params=["sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path, emulator: Emulator) -> Make:
    """Makes outboxes on one store, which the test opens."""
    settings = {**TARGET, "client_id": "c", "base_url": emulator.url}

    def made(**changes: Any) -> StoredOutbox[Any]:
        return SQLiteOutbox(tmp_path / "outbox.sqlite", **{**settings, **changes})

    return made


@pytest.fixture
async def outbox(make: Make) -> AsyncIterator[StoredOutbox[Any]]:
    async with make() as opened:
        yield opened
