import asyncio
import pickle
from contextlib import aclosing

import orjson
import pytest

from tests.helpers import MERCHANT, TARGET, batcher, guests, issue, polls
from thanx_async import (
    ConfigurationError,
    JobTimeoutError,
    NotFoundError,
    ThanxClient,
)
from thanx_async.emulator import Emulator, JobSpeed, ScriptedAnswer


async def test_waiting_together_polls_once(emulator: Emulator, client: ThanxClient) -> None:
    """Any number of waiters and handles share the polls of a job."""
    handle = await issue(client)
    twin = client.job(handle.id, merchant_id=MERCHANT)
    jobs = await asyncio.gather(handle, handle.wait(), twin.wait(timeout=60), twin)
    assert {job.state for job in jobs} == {"completed"}
    assert len(polls(emulator)) <= 2
    assert repr(handle) == f"<JobHandle {handle.id}: completed 100/100>"


async def test_a_timeout_carries_the_last_snapshot() -> None:
    """A wait that is over says so, and the job lives on."""
    async with (
        Emulator(speed=JobSpeed(identifiers_per_second=1.0)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        handle = await issue(client)
        with pytest.raises(JobTimeoutError, match=f"job {handle.id} was not finished after 30 s") as caught:
            await handle.wait(timeout=30)
        assert caught.value.job_id == handle.id
        assert caught.value.job is handle.job
        twin = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made right here
        assert twin.job == handle.job
        assert (await handle).state == "completed"


async def test_updates_tell_each_change() -> None:
    """Updates grow and end with the finished job; each is a change."""
    async with (
        Emulator(speed=JobSpeed(identifiers_per_second=1.0)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        handle = await issue(client)
        seen = [job async for job in handle.updates()]
    assert [job.state for job in (seen[0], seen[-1])] == ["pending", "completed"]
    progress = [job.processed_count for job in seen]
    assert progress == sorted(progress)
    assert len({(job.state, job.processed_count) for job in seen}) == len(seen)


async def test_ways_to_wait(emulator: Emulator, client: ThanxClient) -> None:
    """Tasks, futures and a loop that is left early; mypy proves that each of them type-checks."""
    handle = await issue(client)
    async with aclosing(handle.updates()) as updates:
        first = await anext(updates)
    with pytest.raises(StopAsyncIteration):
        await anext(updates)
    assert first.state == "pending"
    jobs = await asyncio.gather(
        asyncio.create_task(handle.wait()), asyncio.ensure_future(handle), asyncio.wait_for(handle, 60)
    )
    assert {job.state for job in jobs} == {"completed"}
    async with aclosing(client.list_campaigns(merchant_id=MERCHANT)) as campaigns:
        assert (await anext(campaigns)).id == TARGET["campaign_id"]


async def test_an_unknown_state_is_not_an_end(emulator: Emulator, client: ThanxClient) -> None:
    """A state that Thanx may introduce is waited through, and the timeout works there as well."""
    handle = await issue(client)
    body = orjson.dumps({"issuance_job": {"id": handle.id, "state": "auditing", "total_count": 100}})
    emulator.script(*[ScriptedAnswer(200, body)] * 50)
    with pytest.raises(JobTimeoutError, match="state: auditing"):
        await handle.wait(timeout=20)
    assert (await handle.wait()).state == "completed"


async def test_a_cancelled_waiter_harms_nobody(emulator: Emulator, client: ThanxClient) -> None:
    """Whoever polls for all may be cancelled: another waiter takes over."""
    handle = await issue(client)
    first, second = asyncio.create_task(handle.wait()), asyncio.create_task(handle.wait())
    await asyncio.sleep(0.1)
    first.cancel()
    assert (await second).state == "completed"
    assert first.cancelled()


async def test_attaching_by_id(emulator: Emulator, client: ThanxClient) -> None:
    """A handle made of an id makes no request until it is used."""
    made = await issue(client)
    before = len(emulator.requests)
    handle = client.job(made.id, merchant_id=MERCHANT)
    assert (handle.id, handle.merchant_id) == (made.id, MERCHANT)
    assert len(emulator.requests) == before
    assert (await handle.refresh()).id == made.id
    other = client.job("nope", merchant_id=MERCHANT)
    assert (other.job, repr(other)) == (None, "<JobHandle nope: not polled yet>")
    with pytest.raises(NotFoundError):
        await other


async def test_an_answer_that_is_given_again(emulator: Emulator, client: ThanxClient) -> None:
    """A repeated key is answered with how the job began, which does not unsay that it is over."""
    first = await client.issue_rewards(**TARGET, identifiers=guests(10), idempotency_key="k")
    finished = await first
    again = await client.issue_rewards(**TARGET, identifiers=guests(10), idempotency_key="k")
    assert (again.id, again.job) == (first.id, finished)
    asked = len(polls(emulator))
    assert (await again).state == "completed"
    assert len(polls(emulator)) == asked


async def test_a_pickled_handle_says_how_to_attach(client: ThanxClient) -> None:
    """A handle crosses processes with its numbers, but without a connection."""
    handle = await issue(client)
    twin = pickle.loads(pickle.dumps(handle))  # noqa: S301 - made right here
    assert (twin.id, twin.merchant_id, twin.start, twin.total) == (handle.id, MERCHANT, 0, 100)
    with pytest.raises(ConfigurationError, match="unpickled"):
        await twin


async def test_long_jobs_cost_few_polls() -> None:
    """A job of three hours is looked at a few times, and its end is seen soon after."""
    async with (
        Emulator(speed=JobSpeed(identifiers_per_second=100 / 10_800)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        handle = await issue(client)
        loop = asyncio.get_running_loop()
        await handle
        assert loop.time() < 1.1 * 10_800
        assert len(polls(emulator)) < 200


async def test_many_jobs_share_the_budget() -> None:
    """A thousand waiters poll within the limits, hardly more than once for each job."""
    async with (
        Emulator(speed=JobSpeed(identifiers_per_second=1.0)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        run = await batcher(client).issue(guests(3000))
        await asyncio.gather(*run.handles)
        assert emulator.refused == 0
        assert len(polls(emulator)) <= 1.5 * 300
