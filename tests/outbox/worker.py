"""A process that drains an outbox until it is killed: ``python -m tests.outbox.worker STORE URL``."""

import asyncio
import sys

import aiohttp

from tests.helpers import TARGET
from thanx_async import LocalRateLimiter, RateLimit, RetryPolicy, SQLiteOutbox, ThanxClient
from thanx_async.jobs._schedule import PollSchedule
from thanx_async.postgres import PostgresOutbox

AnyOutbox = SQLiteOutbox | PostgresOutbox


def outbox_at(store: str, url: str) -> AnyOutbox:
    """The outbox in a file, or at a DSN."""
    kind = PostgresOutbox if store.startswith("postgresql://") else SQLiteOutbox
    return kind(store, **TARGET, client_id="c", base_url=url)


def client_at(url: str) -> ThanxClient:
    """A client that is quick to try again."""
    return ThanxClient(
        "c",
        "t",
        base_url=url,
        timeout=aiohttp.ClientTimeout(total=1),
        retry=RetryPolicy(base_delay=0.02, max_delay=0.1, patience=1),
        limiter=LocalRateLimiter([RateLimit(1000, 1)]),
    )


async def main(store: str, url: str) -> None:
    async with client_at(url) as client, outbox_at(store, url) as outbox:
        sys.stdout.write("draining\n")
        sys.stdout.flush()
        await outbox.drain(client, linger=0.02)


if __name__ == "__main__":
    usual = PollSchedule.due
    PollSchedule.due = lambda self, course: min(usual(self, course), course.polled_at + 0.02)  # type: ignore[method-assign]  # nobody here waits a second for a job of a hundredth
    asyncio.run(main(*sys.argv[1:]))
