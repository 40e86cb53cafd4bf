import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.helpers import (
    MERCHANT,
    SECRET,
    batcher,
    completed,
    guests,
    issue,
    issued,
    now,
    polls,
    sign,
)
from thanx_async import JobHandle, ThanxClient
from thanx_async.emulator import Emulator, JobSpeed, Webhooks
from thanx_async.webhooks import UnknownEvent, aiohttp_handler, verify

SPEED = JobSpeed(identifiers_per_second=0.5, start_delay=0.2)
RUNNING = 20.2
PERFECT = Webhooks("http://to-be-set", SECRET)


def tell(client: ThanxClient, body: bytes) -> None:
    client.notify(verify(body, sign(body), SECRET))


async def work(client: ThanxClient, count: int, *, told: bool = True, copies: int = 1) -> list[float]:
    """Issue jobs, tell of their ends by webhook, and give the seconds from each end to its being known."""
    loop = asyncio.get_running_loop()
    lags: list[float] = []

    async def follow(handle: JobHandle, end: float) -> None:
        await handle
        lags.append(loop.time() - end)

    async with asyncio.TaskGroup() as group, batcher(client).stream(guests(10 * count)) as handles:
        async for handle in handles:
            end = loop.time() + RUNNING
            group.create_task(follow(handle, end))
            if told:
                for copy in range(copies):
                    loop.call_at(end + 0.01 * copy, tell, client, completed(handle.id))
    return lags


async def test_a_job_is_known_at_once_by_one_poll() -> None:
    """A completed job is known within a second of its webhook, at one poll a job, however often it comes."""
    async with Emulator(speed=SPEED) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        lags = await work(client, 30, copies=3)
        by_job = [polls(emulator).count(path) for path in set(polls(emulator))]
        assert max(lags) < 1.5
        assert statistics.median(lags) < 1.0
        assert statistics.median(by_job) == 1
        assert len(polls(emulator)) <= 30 + 5
        before = len(polls(emulator))
        lags = await work(client, 20)
        assert max(lags) < 1.5
        assert len(polls(emulator)) - before == 20


async def test_lost_events_are_caught_by_a_slow_net() -> None:
    """Once webhooks come, polls wait some seconds for them; when they stop, polls come back by themselves."""
    async with Emulator(speed=SPEED) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        await work(client, 3)
        lags = await work(client, 1, told=False)
        assert 2 < lags[0] < 10
        await work(client, 3, told=False)
        lags = await work(client, 1, told=False)
        assert lags[0] < 5


async def test_events_spread_over_two_workers_make_waiting_no_slower() -> None:
    """Where every other event comes to another worker, jobs are known about as soon as without any."""
    lags = {}
    for told in (False, True):
        async with Emulator(speed=SPEED) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
            await work(client, 3, told=told)
            found = []
            for number in range(40):
                found += await work(client, 1, told=told and number % 2 > 0)
            lags[told] = sorted(found)
    assert statistics.mean(lags[True]) <= statistics.mean(lags[False]) + 2
    assert lags[True][-1] < 10


async def test_events_of_other_workers_jobs_tell_nothing() -> None:
    """A worker who hears only of the jobs of others waits for its own as if there were no webhooks."""
    async with Emulator(speed=SPEED) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        await work(client, 3, told=False)
        for number in range(20):
            tell(client, completed(f"other{number}"))
        assert max(await work(client, 5, told=False)) < 5


async def test_an_event_before_the_answer() -> None:
    """Thanx may be quicker with its webhook than with its 202: the handle made afterwards polls at once."""
    speed = JobSpeed(start_delay=0, identifiers_per_second=1e6)
    async with (
        Emulator(speed=speed, id_tag="") as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        tell(client, issued("job000001", 3))
        tell(client, completed("job000001"))
        handle = await issue(client, 10)
        assert handle.rewards_seen == 1
        begun = now()
        assert (await handle).state == "completed"
        assert now() - begun < 0.5


async def test_an_event_is_a_hint() -> None:
    """What an event says is not believed: a job that still runs is looked at again until it is over."""
    async with Emulator(speed=SPEED) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        handle = await issue(client, 10)
        waiter = asyncio.create_task(handle.wait())
        await asyncio.sleep(0.1)
        tell(client, completed(handle.id, state="failed"))
        await asyncio.sleep(0.5)
        assert len(polls(emulator)) == 1
        assert not waiter.done()
        assert (await waiter).state == "completed"
        assert now() < RUNNING + 5
        tell(client, completed(handle.id))
        await handle
        assert len(polls(emulator)) < 20


async def test_rewards_are_counted_as_they_come() -> None:
    """Each guest's event counts once, costs no request, and wakes nobody."""
    async with Emulator(speed=SPEED) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        handle = await issue(client, 10)
        for index in (0, 9, 3, 9, 0, 10_000):
            tell(client, issued(handle.id, index))
        tell(client, issued(handle.id, 0, identifier={"type": "email"}))
        assert handle.rewards_seen == client.job(handle.id, merchant_id=MERCHANT).rewards_seen == 3
        assert polls(emulator) == []


async def test_events_of_strangers_are_forgotten(client: ThanxClient) -> None:
    """Events of jobs that nobody asks for are kept for the last thousand or so only."""
    for number in range(3000):
        tell(client, completed(f"other{number}"))
    tell(client, issued("other2999", 1))
    client.notify(UnknownEvent("purchase.created", {}))
    assert client.job("other2999", merchant_id=MERCHANT).rewards_seen == 1
    tell(client, issued("other0", 1))
    for number in range(1100):
        tell(client, completed(f"more{number}"))
    assert client.job("other0", merchant_id=MERCHANT).rewards_seen == 0


@pytest.mark.parametrize("cancelled", [False, True])
async def test_an_event_without_a_waiter_is_kept(cancelled: bool) -> None:
    """Who waits after the event, or takes over from a cancelled waiter, polls at once."""
    async with Emulator(speed=SPEED) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        handle = await issue(client, 10)
        waiter = asyncio.create_task(handle.wait())
        await asyncio.sleep(0.1)
        if not cancelled:
            waiter.cancel()
            await asyncio.sleep(25)
        tell(client, completed(handle.id))
        if cancelled:
            await asyncio.sleep(0)
            waiter.cancel()
            await asyncio.sleep(25)
        begun = now()
        assert (await handle).state == "completed"
        assert now() - begun < 1


@asynccontextmanager
async def hooked(settings: Webhooks = PERFECT) -> AsyncIterator[tuple[Emulator, ThanxClient]]:
    """An emulator that posts its events to the endpoint of a client of it."""
    async with Emulator(speed=SPEED) as emulator, ThanxClient("c", "t", base_url=emulator.url) as client:
        app = web.Application()
        app.router.add_post("/hook", aiohttp_handler(client, SECRET))
        async with TestServer(app) as server:
            emulator.webhooks = attrs.evolve(settings, url=str(server.make_url("/hook")))
            yield emulator, client


async def test_the_emulators_webhooks() -> None:
    """From the server's event to the handle over sockets: a poll a job, known within a second."""
    async with hooked() as (emulator, client):
        lags = await work(client, 20, told=False)
        assert statistics.median(lags) < 1.0
        assert max(lags) < 1.5
        assert len(polls(emulator)) <= 20 + 5


async def test_bad_webhooks_do_no_harm() -> None:
    """Lost, repeated, late and early events: every job is known in the end, and the report is right."""
    async with hooked(attrs.evolve(PERFECT, lost=0.2, duplicated=0.3, late=0.3, early=0.3)) as (
        emulator,
        client,
    ):
        run = await batcher(client).issue([*guests(195), *(f"unknown{n}@example.com" for n in range(5))])
        report = await run.wait()
        assert (report.issued, len(report.failed)) == (195, 5)
        assert 0 < sum(handle.rewards_seen for handle in run.handles) <= 195
        assert len(polls(emulator)) <= 4 * 20


async def test_whole_events_are_counted() -> None:
    """Without losses the events tell of every reward, each once, although all come twice."""
    async with hooked(attrs.evolve(PERFECT, duplicated=1.0)) as (_, client):
        run = await batcher(client).issue([*guests(45), *(f"unknown{n}@example.com" for n in range(5))])
        await run.wait()
        assert sum(handle.rewards_seen for handle in run.handles) == 45
