"""A service that adds guests until it is killed: ``python -m tests.ledger.adding URL LEDGER GUEST...``."""

import asyncio
import sys

from tests.helpers import TARGET
from thanx_async import AsyncBatcher, SQLiteLedger, ThanxClient


async def main(url: str, path: str, *guests: str) -> None:
    async with (
        ThanxClient("c", "t", base_url=url) as client,
        SQLiteLedger(path) as ledger,
        AsyncBatcher(client, **TARGET, ledger=ledger) as batcher,
    ):
        await asyncio.gather(*(batcher.add(guest) for guest in guests))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
