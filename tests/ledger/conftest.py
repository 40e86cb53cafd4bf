import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.conftest import TARGET
from thanx_async import (
    AsyncBatcher,
    Guard,
    Ledger,
    LocalRateLimiter,
    RateLimit,
    RetryPolicy,
    SQLiteLedger,
    ThanxClient,
)
from thanx_async.emulator import Emulator, JobSpeed


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(limits=[], speed=JobSpeed(1e6, 0.01, 0.01)) as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    """A client that tries once and does not wait."""
    async with ThanxClient(
        "c",
        "t",
        base_url=emulator.url,
        retry=RetryPolicy(max_attempts=1),
        limiter=LocalRateLimiter([RateLimit(10_000, 1)]),
    ) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A ledger in memory, where there is such a place: hundreds of runs need not wait for a disk."""
    memory = Path("/dev/shm")  # noqa: S108 - its folder is made safely
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder) / "ledger.sqlite"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SQLiteLedger]:
    async with SQLiteLedger(path) as opened:
        yield opened


def recording(
    client: ThanxClient,
    ledger: Ledger | None,
    *,
    batch_size: int = 10,
    guard: Guard = Guard(),  # noqa: B008 - frozen
    campaign_id: str = "camp_abc123",
    max_concurrency: int | None = None,
) -> AsyncBatcher:
    """A batcher of small batches that records them."""
    target = TARGET.copy()
    target["campaign_id"] = campaign_id
    return AsyncBatcher(
        client,
        **target,
        batch_size=batch_size,
        max_concurrency=max_concurrency,
        guard=guard,
        ledger=ledger,
    )
