"""A loop that counts its steps, to crash or cancel at each of them."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from pathlib import Path

from tests.helpers import TARGET, guests
from thanx_async import AsyncBatcher, IssuanceStream, LocalRateLimiter, RateLimit, SQLiteLedger, ThanxClient

EACH = 3


class CountingLoop(asyncio.SelectorEventLoop):
    """Calls ``act`` in place of nothing at its step ``at``: each step of each task is one of its steps."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        super().__init__()
        self._left = at
        self._act = act

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.Handle:
        return super().call_soon(self._step, callback, args, context=context)

    def _step(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()
        callback(*args)


async def issue(
    url: str, path: Path, number: int, streams: list[IssuanceStream], *, again: bool = False
) -> None:
    """A small run of its own guests: two batches at once; if it is begun again, at first from the ledger."""
    async with (
        ThanxClient("c", "t", base_url=url, limiter=LocalRateLimiter([RateLimit(10_000, 1)])) as client,
        SQLiteLedger(path) as ledger,
    ):
        batcher = AsyncBatcher(client, **TARGET, batch_size=2, max_concurrency=2, ledger=ledger)
        if again and await ledger.run(f"run {number}"):
            run = await batcher.resume(f"run {number}")
            assert not run.in_doubt
            assert not run.unsent
        stream = batcher.stream(guests(EACH, start=number * EACH), run_id=f"run {number}")
        streams.append(stream)
        async with stream as handles:
            async for _ in handles:
                pass
