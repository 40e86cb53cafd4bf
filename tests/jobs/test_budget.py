"""What it costs to learn outcomes: polls and virtual seconds, under Thanx's limits and under smaller ones."""

import asyncio

import pytest

from tests.helpers import SECRET, completed, guests, issue, now, polls, recording, sign
from tests.jobs.spending import equal, lognormal, queued, spend, uniform
from thanx_async import RateLimit, ThanxClient
from thanx_async.emulator import Emulator, JobSpeed
from thanx_async.webhooks import verify


async def test_polls_use_what_nobody_issues_with() -> None:
    """Once nothing is issued any more, polls go at full speed, even where half of a long window is spent."""
    spent = await spend(30, equal(0.01), limits=[RateLimit(5, 1), RateLimit(60, 60)])
    assert (spent.polls, spent.refused) == (30, 0)
    assert spent.known < spent.least + 6


async def test_instant_jobs_are_known_as_soon_as_the_limits_allow() -> None:
    """A hundred batches, and a poll for each: 3 % over the least possible at most."""
    spent = await spend(100, equal(0.01))
    assert spent.known <= 1.03 * spent.least
    assert (spent.polls, spent.refused) == (100, 0)


@pytest.mark.parametrize("seconds", [0.1, 1.0, 10.0, 100.0, 1000.0])
async def test_a_job_takes_little_more_than_one_poll(seconds: float) -> None:
    """However long jobs take, most are looked at once, and all are known soon after the last has ended."""
    spent = await spend(100, equal(seconds))
    assert spent.polls <= 1.2 * spent.requests
    assert spent.known <= 1.04 * spent.least


VARIED = {
    "uniform": uniform(10.0, 200.0),
    "lognormal": lognormal(10.0),
    "long tail": lognormal(100.0),
    "one after another": queued(1.0),
    "slowly one after another": queued(10.0),
}


@pytest.mark.parametrize("jobs", VARIED)
async def test_jobs_that_vary_take_little_more_than_one_poll(jobs: str) -> None:
    """However their durations are spread: few looks are too early, and the last is known in time."""
    spent = await spend(100, VARIED[jobs])
    assert spent.polls <= 1.25 * spent.requests
    assert spent.known <= 1.25 * spent.least


@pytest.mark.parametrize("batch", [10, 1000])
async def test_one_job_is_looked_at_for_all(batch: int) -> None:
    """The scout keeps its place in line from look to look, however coarsely progress is reported."""
    spent = await spend(10, equal(100.0), batch=batch)
    assert spent.polls <= 20


@pytest.mark.parametrize("lost", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("seconds", [0.01, 10.0, 1000.0])
async def test_webhooks_are_not_slower_than_none(seconds: float, lost: float) -> None:
    """Whichever webhooks get lost, all is known as early as without any, and for as few polls."""
    without = await spend(100, equal(seconds))
    spent = await spend(100, equal(seconds), lost=lost)
    assert spent.known <= 1.01 * without.known + 0.1
    assert spent.polls <= 1.25 * spent.requests


async def test_a_job_that_ends_just_after_its_webhook_is_looked_at_again_soon() -> None:
    """The first look after a webhook may still find the job running, a moment before its end."""
    async with (
        Emulator(speed=JobSpeed(identifiers_per_second=0.1)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        handle = await issue(client, 100)
        waiter = asyncio.create_task(handle.wait())
        await asyncio.sleep(999.9)
        event = completed(handle.id)
        client.notify(verify(event, sign(event), SECRET))
        await waiter
        assert now() < 1002


async def test_a_scout_that_nobody_waits_for_any_more_is_replaced() -> None:
    """Where the watcher of the scout gives up, another job is looked at for the others."""
    async with (
        Emulator(speed=JobSpeed(identifiers_per_second=1.0)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        run = await recording(client, None, batch_size=100).issue(guests(300))
        first, *others = [asyncio.create_task(handle.wait()) for handle in run.handles]
        await asyncio.sleep(5)
        first.cancel()
        await asyncio.gather(*others)
        assert now() < 110
        assert len(polls(emulator)) < 20
