"""One client that drains many outboxes within tight rate limits, on virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.helpers import issuing, until
from thanx_async import LocalRateLimiter, RateLimit, SQLiteOutbox, ThanxClient
from thanx_async.emulator import Emulator, JobSpeed

LANES = [("camp_abc123", "var_treat1"), ("camp_abc123", "var_control1"), ("camp_def456", "var_treat2")]
WINDOW = 10


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    speed = JobSpeed(identifiers_per_second=1e-6)
    async with Emulator(limits=[(1, WINDOW)], speed=speed) as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    limiter = LocalRateLimiter([RateLimit(1, WINDOW)])
    async with ThanxClient("c", "s3cret", base_url=emulator.url, limiter=limiter) as opened:
        yield opened


@pytest.fixture
async def outboxes(tmp_path: Path, client: ThanxClient) -> AsyncIterator[list[SQLiteOutbox]]:
    """Outboxes that are being drained, one for each lane."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                SQLiteOutbox(
                    tmp_path / "outbox.sqlite",
                    campaign_id=campaign,
                    merchant_id="k2lye10h32l5wzo",
                    variant_id=variant,
                    client_id="c",
                    base_url=client.base_url,
                )
            )
            for campaign, variant in LANES
        ]
        drains = [asyncio.create_task(outbox.drain(client, linger=0)) for outbox in opened]
        yield opened
        for drain in drains:
            drain.cancel()
        await asyncio.wait(drains)


def has_sent(emulator: Emulator, requests: int) -> bool:
    return len(issuing(emulator)) == requests


async def all_are_accepted(outboxes: list[SQLiteOutbox]) -> None:
    for outbox in outboxes:
        while (status := await outbox.status()).waiting or status.in_doubt:
            await asyncio.sleep(0.1)


async def test_guests_who_come_while_the_limits_hold(
    outboxes: list[SQLiteOutbox], emulator: Emulator
) -> None:
    """No batch is cut before its request is allowed, so guests who come meanwhile join it."""
    for outbox in outboxes:
        await outbox.put("first@example.com", id="first")
    await until(partial(has_sent, emulator, 1))
    for outbox in outboxes:
        await outbox.put("second@example.com", id="second")
    await until(partial(has_sent, emulator, 2))
    for outbox in outboxes:
        await outbox.put("third@example.com", id="third")
    await all_are_accepted(outboxes)
    assert has_sent(emulator, 2 + len(LANES))


async def test_a_busy_outbox(outboxes: list[SQLiteOutbox], emulator: Emulator) -> None:
    """An outbox that always has guests waiting leaves the others their turns."""
    busy, *others = outboxes
    await busy.put("first@example.com", id="first")
    await until(partial(has_sent, emulator, 1))
    for outbox in outboxes:
        await outbox.put("second@example.com", id="second")
    for number in range(2, len(LANES) + 2):
        await busy.put(f"guest{number}@example.com", id=str(number))
        await until(partial(has_sent, emulator, number))
    await all_are_accepted(others)
    assert has_sent(emulator, len(LANES) + 1)
