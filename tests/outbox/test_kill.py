"""Workers that are killed at any moment, while Thanx fails and every guest is put twice."""

import asyncio
import random
import sys
from collections import Counter

import pytest

from tests.helpers import guests
from tests.outbox.worker import AnyOutbox, client_at, outbox_at
from thanx_async.emulator import Emulator, Faults, JobSpeed

pytestmark = pytest.mark.realtime

KILLS = 12
PUTS_AT_ONCE = 20
FAULTS = Faults(
    reset_before=0.04, reset_after=0.04, truncated=0.03, html_502=0.03, html_504=0.03, error_500=0.03, seed=7
)
"""One request in five goes wrong."""


async def workers_are_killed(store: str, url: str, draw: random.Random) -> None:
    """Start a worker and kill it at a random moment, again and again."""
    for _ in range(KILLS):
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.outbox.worker", store, url, stdout=asyncio.subprocess.PIPE
        )
        assert worker.stdout is not None
        assert await worker.stdout.readline() == b"draining\n"
        await asyncio.sleep(draw.uniform(0, 0.4))
        worker.kill()
        await worker.wait()


async def put_twice(outbox: AnyOutbox, names: list[str], draw: random.Random) -> int:
    """Put every guest twice, as a broker delivers again, at random moments. Returns how many were new."""
    deliveries = [*names, *names]
    draw.shuffle(deliveries)
    new = 0
    for first in range(0, len(deliveries), PUTS_AT_ONCE):
        part = deliveries[first : first + PUTS_AT_ONCE]
        new += sum(await asyncio.gather(*[outbox.put(name, id=f"order of {name}") for name in part]))
        await asyncio.sleep(draw.uniform(0, 0.05))
    return new


async def test_killed_workers(store: str, soon: None) -> None:
    """Whoever dies whenever: each guest gets exactly one reward, and every outcome is known."""
    names, draw = guests(2000), random.Random(1)
    speed = JobSpeed(identifiers_per_second=1e6, start_delay=0.01)
    async with (
        Emulator(limits=[], speed=speed, faults=FAULTS) as emulator,
        outbox_at(store, emulator.url) as outbox,
    ):
        async with asyncio.TaskGroup() as group:
            killing = group.create_task(workers_are_killed(store, emulator.url, draw))
            new = group.create_task(put_twice(outbox, names, random.Random(2)))
        assert killing.done()
        assert new.result() == len(names)
        emulator.faults = Faults()
        async with client_at(emulator.url) as client:
            await outbox.drain(client, linger=0.02, until_empty=True)
        outcomes = [await outbox.outcome(f"order of {name}", timeout=0) for name in names]
        assert Counter(outcome.state.value for outcome in outcomes) == {"issued": len(names)}
        assert emulator.reward_counts() == dict.fromkeys(names, 1)
        assert 422 not in {row.status for row in emulator.requests}
        assert (await outbox.status()).waiting == 0
