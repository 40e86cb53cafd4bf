"""Run in an environment that has only the wheel: the package imports and issues one batch."""

import asyncio

import thanx_async
from thanx_async.emulator import Emulator


async def main() -> None:
    async with (
        Emulator() as emulator,
        thanx_async.ThanxClient("client", "token", base_url=emulator.url) as client,
    ):
        batcher = thanx_async.AsyncBatcher(
            client, campaign_id="camp_abc123", merchant_id="k2lye10h32l5wzo", variant_id="var_treat1"
        )
        run = await batcher.issue(f"guest{number}@example.com" for number in range(100))
        report = await run.wait(timeout=60)
    assert report.counts["issued"] == report.total == 100, report
    print(f"thanx_async {thanx_async.__version__}: the wheel issued {report.issued} rewards")  # noqa: T201 - what CI shows


asyncio.run(main())
