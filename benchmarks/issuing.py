"""What a user of the library does, with rate limits out of the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypedDict

from thanx_async import AsyncBatcher, LocalRateLimiter, RateLimit, ThanxClient

AT_ONCE = 5


class Target(TypedDict):
    """What is issued."""

    campaign_id: str
    merchant_id: str
    variant_id: str


TARGET = Target(campaign_id="camp_abc123", merchant_id="k2lye10h32l5wzo", variant_id="var_treat1")
HEADERS = {
    "Authorization": "Bearer token",
    "X-ClientId": "client",
    "Accept-Version": "v4.0",
    "Content-Type": "application/json",
    "User-Agent": "benchmark/1.0.0",
}
"""What Thanx wants of those who write their requests by hand."""


def client_of(url: str) -> ThanxClient:
    """A client whose rate limits never make it wait."""
    limiter = LocalRateLimiter([RateLimit(1_000_000, 1)])
    return ThanxClient("client", "token", base_url=url, limiter=limiter)


@asynccontextmanager
async def open_batcher(
    url: str, *, deduplicate: bool = True, keep_values: bool = True
) -> AsyncIterator[AsyncBatcher]:
    """A batcher on a client of its own."""
    async with client_of(url) as client:
        yield AsyncBatcher(
            client,
            **TARGET,
            max_concurrency=AT_ONCE,
            deduplicate=deduplicate,
            keep_values=keep_values,
        )


async def issue(url: str, guests: Iterable[str], *, deduplicate: bool = True) -> None:
    """Send the guests with all checks; returns once every batch is accepted."""
    async with open_batcher(url, deduplicate=deduplicate) as batcher:
        run = await batcher.issue(guests)
    fates = run.report().counts
    assert fates["unfinished"] + fates["rejected"] + fates["duplicates"] == run.total


async def issue_and_wait(url: str, guests: Iterable[str], *, deduplicate: bool, keep_values: bool) -> None:
    """The same to the end: every job is polled and accounted for."""
    async with open_batcher(url, deduplicate=deduplicate, keep_values=keep_values) as batcher:
        report = await (await batcher.issue(guests)).wait()
    assert report.issued == report.total
