"""Outboxes whose guests have their outcomes from events."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.helpers import SECRET, polls
from tests.outbox.conftest import Make
from tests.outbox.test_conformance import drain
from thanx_async import Events, LocalRateLimiter, RateLimit, ThanxClient
from thanx_async._batches import Trust
from thanx_async.client import internals
from thanx_async.emulator import Emulator, Oddity, Webhooks
from thanx_async.jobs import EventTrust
from thanx_async.outbox import StoredOutbox
from thanx_async.webhooks import aiohttp_handler

pytestmark = pytest.mark.realtime


@pytest.fixture(autouse=True)
def unsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is polled by chance."""
    monkeypatch.setattr(EventTrust, "is_sampled", lambda *_: False)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    """A client that hears of its jobs and may believe it."""
    async with ThanxClient(
        "c",
        "s3cret",
        base_url=emulator.url,
        limiter=LocalRateLimiter([RateLimit(100_000, 1)]),
        events=Events.OUTCOME,
    ) as opened:
        app = web.Application()
        app.router.add_post("/hook", aiohttp_handler(opened, SECRET))
        async with TestServer(app) as server:
            url = str(server.make_url("/hook"))
            emulator.webhooks = Webhooks(url, SECRET, reward_issued=False, early=1)
            yield opened


async def put(outbox: StoredOutbox[Any], number: int) -> None:
    """Two guests, one of whom Thanx does not know."""
    await outbox.put(f"unknown{number}@example.com", id=f"failed{number}")
    await outbox.put(f"guest{number}@example.com", id=f"issued{number}")


async def states(outbox: StoredOutbox[Any], number: int) -> list[tuple[str, bool]]:
    found = [await outbox.outcome(f"{name}{number}") for name in ("failed", "issued")]
    return [(str(row.state), row.by_event) for row in found]


async def test_outcomes_without_polls(
    make: Make, emulator: Emulator, client: ThanxClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Trust is kept with the outbox; after a lie the outcomes that events told are polled, all of them."""
    async with make() as outbox:
        await outbox.ledger.exchange_trust(emulator.url, "c", Trust(3, 1))
        await put(outbox, 0)
        await drain(outbox, client)
        assert await states(outbox, 0) == [("failed", True), ("issued", True)]
        assert emulator.webhooks is not None
        emulator.webhooks = Webhooks(
            emulator.webhooks.url, SECRET, reward_issued=False, early=1, odd=1, oddities=(Oddity.SWAPPED,)
        )
        await put(outbox, 1)
        await drain(outbox, client)
        assert await states(outbox, 1) == [("issued", True), ("failed", True)]
        assert polls(emulator) == []
        with caplog.at_level(logging.ERROR):
            internals(client)[1].trust.disagree("job1", "a poll told otherwise")
        await drain(outbox, client)
        for number in (0, 1):
            assert await states(outbox, number) == [("failed", False), ("issued", False)]
        assert len(polls(emulator)) == 2
        known = await outbox.ledger.exchange_trust(emulator.url, "c", Trust())
        assert known.broken


async def test_trust_is_earned_by_drains(make: Make, emulator: Emulator, client: ThanxClient) -> None:
    """Three batches are polled, and the fourth is not."""
    async with make() as outbox:
        for number in range(4):
            await put(outbox, number)
            await drain(outbox, client)
        assert await states(outbox, 2) == [("failed", False), ("issued", False)]
        assert await states(outbox, 3) == [("failed", True), ("issued", True)]
        assert len(polls(emulator)) == 3
