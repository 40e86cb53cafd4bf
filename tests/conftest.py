import asyncio
from collections.abc import AsyncIterator, Iterable
from inspect import iscoroutinefunction
from typing import TypedDict

import pytest

from thanx_async import AsyncBatcher, ThanxClient
from thanx_async.emulator import Emulator

pytest_plugins = ["thanx_async.pytest_plugin"]  # not the installed copy, so that its coverage is measured


class Target(TypedDict):
    campaign_id: str
    merchant_id: str
    variant_id: str


TARGET = Target(campaign_id="camp_abc123", merchant_id="k2lye10h32l5wzo", variant_id="var_treat1")
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


def batcher(client: ThanxClient, *, campaign_id: str = TARGET["campaign_id"]) -> AsyncBatcher:
    """A batcher of small batches."""
    target = TARGET.copy()
    target["campaign_id"] = campaign_id
    return AsyncBatcher(client, **target, batch_size=10)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    async with ThanxClient("client", "s3cret-token", base_url=emulator.url) as opened:
        yield opened
