import asyncio
from collections.abc import AsyncIterator, Iterable
from inspect import iscoroutinefunction

import pytest

from thanx_async import AsyncBatcher, ThanxClient
from thanx_async.emulator import Emulator

TARGET = {"campaign_id": "camp_abc123", "merchant_id": "k2lye10h32l5wzo", "variant_id": "var_treat1"}
MERCHANT = TARGET["merchant_id"]


@pytest.fixture(autouse=True, scope="session")
def no_stray_loop() -> None:
    """Otherwise looptime's look at the current loop makes one that nobody closes."""
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Asynchronous tests run on virtual time unless they are marked as ``realtime``."""
    for item in items:
        function = getattr(item, "function", None)
        if iscoroutinefunction(function) and not item.get_closest_marker("realtime"):
            item.add_marker(pytest.mark.looptime)


def guests(count: int, start: int = 0) -> list[str]:
    return [f"guest{number}@example.com" for number in range(start, start + count)]


def batcher(client: ThanxClient, *, batch_size: int = 10, **target: str) -> AsyncBatcher:
    ids = TARGET | target
    return AsyncBatcher(
        client,
        campaign_id=ids["campaign_id"],
        merchant_id=ids["merchant_id"],
        variant_id=ids["variant_id"],
        batch_size=batch_size,
    )


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    async with ThanxClient("client", "s3cret-token", base_url=emulator.url) as opened:
        yield opened
