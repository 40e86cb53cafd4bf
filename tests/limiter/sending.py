"""Requests through limiters, what must hold of them, and a look into a limiter's file."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from tests.helpers import now
from thanx_async import Lane, RateLimit, RateLimiter
from thanx_async.limiter._state import LimiterState
from thanx_async.limiter._stored import load_state

LIMITS = st.lists(
    st.builds(RateLimit, st.integers(1, 6), st.sampled_from([0.5, 1.0, 7.0, 30.0])), min_size=1, max_size=3
)
FATES = st.sampled_from(["answer", "answer", "refused", "cancel", "lost"])
REQUESTS = st.lists(st.tuples(st.floats(0, 2), FATES, st.sampled_from(Lane)), min_size=1, max_size=40)


async def send(limiter: RateLimiter, sent: list[float], *, lane: Lane = Lane.ISSUE, status: int = 200,
               took: float = 0.0, headers: dict[str, str] | None = None,
               clock: Callable[[], float] = now) -> None:  # fmt: skip
    async with limiter.slot(lane) as slot:
        sent.append(clock())
        await asyncio.sleep(took)
        slot.answered(status, headers or {})


async def course(
    limiters: Sequence[RateLimiter],
    requests: list[tuple[float, str, Lane]],
    *,
    clock: Callable[[], float] = now,
) -> list[float]:
    """Send requests through limiters that should act as one, whatever happens to them; returns when."""
    sent: list[float] = []

    async def one(limiter: RateLimiter, took: float, fate: str, lane: Lane) -> None:
        task = asyncio.create_task(
            send(limiter, sent, lane=lane, took=took, status=429 if fate == "refused" else 200, clock=clock)
        )
        if fate in {"cancel", "lost"}:
            await asyncio.sleep(took / 2)
            task.cancel()
        await asyncio.wait([task])

    async with asyncio.TaskGroup() as group:
        for number, request in enumerate(requests):
            group.create_task(one(limiters[number % len(limiters)], *request))
    for limiter in limiters:
        status = limiter.status()
        assert status.waiting == 0
        assert all(window.used + window.free == window.limit.requests for window in status.windows)
    return sent


def check(sent: list[float], limits: Sequence[RateLimit], *, slack: float = 1e-5) -> None:
    """No window that slides over what was sent ever holds more than it may."""
    for limit in limits:
        for first, later in zip(sent, sent[limit.requests :], strict=False):
            assert later - first >= limit.seconds - slack


@contextmanager
def looking(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def stored(path: Path) -> LimiterState:
    with looking(path) as connection:
        return load_state(connection.execute("SELECT state FROM limiter").fetchone()[0])
