"""The events that the emulator posts, as a receiver gets them over its socket."""

import asyncio
from collections import Counter as Tally
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.emulator.plain import HEADERS, ISSUE, Json, Receiver, body, call, data_of
from tests.helpers import MERCHANT, SECRET
from thanx_async.emulator import Emulator, Faults, JobSpeed, Webhooks

GUESTS = ["unknown@b.co", *(f"guest{number}@b.co" for number in range(49))]


@pytest.fixture
async def emulator(receiver: Receiver) -> AsyncIterator[Emulator]:
    async with Emulator(limits=[], webhooks=Webhooks(receiver.url, SECRET)) as running:
        yield running


async def issue(http: aiohttp.ClientSession, *guests: str, key: str = "key") -> Json:
    status, answer = await call(
        http, "POST", ISSUE, body=body(*(guests or GUESTS)), headers={"X-Idempotency-Key": key}
    )
    assert status == 202
    job = answer["issuance_job"]
    assert isinstance(job, dict)
    return job


async def test_both_events(http: aiohttp.ClientSession, receiver: Receiver) -> None:
    """One for each reward, and then one for the job, with the documented fields; a replay sends nothing."""
    job = await issue(http)
    assert await issue(http) == job
    await receiver.has(50)
    await asyncio.sleep(60)
    assert Tally(str(event["event"]) for event in receiver.events) == {
        "reward.issued": 49,
        "reward_batch.completed": 1,
    }
    assert receiver.data("reward_batch.completed") == [
        {
            "issuance_job_id": job["id"],
            "merchant_id": MERCHANT,
            "state": "completed",
            "total_count": 50,
            "issued_count": 49,
            "failed_count": 1,
            "failures": [{"user_identifier": "unknown@b.co", "reason": "User not found"}],
        }
    ]
    rewards = receiver.data("reward.issued")
    identifiers = [reward["identifier"] for reward in rewards]
    assert sorted(str(row) for row in identifiers) == sorted(
        str({"type": "email", "index": index}) for index in range(1, 50)
    )
    assert len({reward["reward_id"] for reward in rewards}) == len({row["user_id"] for row in rewards}) == 49
    assert set(rewards[0]) == {
        "issuance_job_id",
        "merchant_id",
        "reward_id",
        "identifier",
        "user_id",
        "state",
        "expires_at",
        "campaign",
    }
    campaign = rewards[0]["campaign"]
    assert isinstance(campaign, dict)
    assert campaign["variant"]["id"] == "var_treat1"
    dates = {"start_at", "end_at", "redeemable_from", "redeemable_to"}
    assert set(campaign) == {"id", "name", "objective", "fine_print", "time_zone", "variant", *dates}
    assert all(set(event) == {"event", "timestamp", "data"} for event in receiver.events)


async def test_rewards_are_announced_as_they_are_issued(
    http: aiohttp.ClientSession, emulator: Emulator, receiver: Receiver
) -> None:
    """A slow job's first events come long before its last."""
    emulator.speed = JobSpeed(identifiers_per_second=1, start_delay=10)
    await issue(http)
    await asyncio.sleep(30.5)
    assert len(receiver.events) == 19
    emulator.advance(1000)
    await receiver.has(50)


async def test_only_jobs(http: aiohttp.ClientSession, emulator: Emulator, receiver: Receiver) -> None:
    """The many events of single rewards can be left out."""
    emulator.webhooks = Webhooks(receiver.url, SECRET, reward_issued=False)
    await issue(http)
    await asyncio.sleep(60)
    assert [event["event"] for event in receiver.events] == ["reward_batch.completed"]
    emulator.webhooks = None
    await issue(http, key="other")
    await asyncio.sleep(60)
    assert len(receiver.events) == 1


@pytest.mark.parametrize("rewards", [True, False])
async def test_purchases(
    http: aiohttp.ClientSession, emulator: Emulator, receiver: Receiver, *, rewards: bool
) -> None:
    """They have no ``event`` at their top, are signed like the others, and follow rewards at their rate."""
    emulator.webhooks = Webhooks(receiver.url, SECRET, reward_issued=rewards, purchases=0.5, seed=1)
    await issue(http)
    await asyncio.sleep(60)
    bought = [event["purchase"] for event in receiver.events if "event" not in event]
    assert 10 < len(bought) < 40
    assert len(receiver.events) == len(bought) + 1 + 49 * rewards
    assert emulator.statistics()["webhooks"]["purchase"] == len(bought)  # type: ignore[index]  # a dict
    for row in bought:
        assert isinstance(row, dict)
        assert row["event"] == "create"
        assert row["user"]["email"] in GUESTS[1:]
        assert row["merchant"]["id"] == MERCHANT
    assert all(set(event) == {"purchase"} for event in receiver.events if "event" not in event)


async def test_events_without_a_merchant(
    http: aiohttp.ClientSession, emulator: Emulator, receiver: Receiver
) -> None:
    """Both events can leave the merchant out, as some pages of the documentation do."""
    emulator.webhooks = Webhooks(receiver.url, SECRET, merchant_id=False)
    await issue(http)
    await receiver.has(50)
    assert all("merchant_id" not in data_of(event) for event in receiver.events)


async def test_lost_duplicated_and_late(
    http: aiohttp.ClientSession, emulator: Emulator, receiver: Receiver
) -> None:
    """By their rates, and the same for the same seed."""
    seen: list[list[str]] = []
    for attempt in range(2):
        emulator.webhooks = Webhooks(
            receiver.url, SECRET, seed=7, lost=0.2, duplicated=0.3, late=0.3, late_by=20
        )
        await issue(http, key=str(attempt))
        await asyncio.sleep(60)
        seen.append([str(row.get("identifier", {"index": 50})) for row in map(data_of, receiver.events)])
        receiver.events.clear()
    assert sorted(seen[0]) == sorted(seen[1])
    tally = Tally(seen[0])
    assert set(tally.values()) == {1, 2}
    order = [int(row.rpartition(": ")[2].rstrip("}")) for row in dict.fromkeys(seen[0])]
    assert order != sorted(order)
    sent = emulator.statistics()["webhooks"]
    assert isinstance(sent, dict)
    assert sent["lost"] == 2 * (50 - len(tally)) > 0


async def test_events_before_the_answer(
    http: aiohttp.ClientSession, emulator: Emulator, receiver: Receiver
) -> None:
    """The 202 of an early job comes when its events are all out, and says nothing of that."""
    emulator.webhooks = Webhooks(receiver.url, SECRET, early=1)
    job = await issue(http)
    assert job["state"] == "pending"
    assert len(receiver.data("reward_batch.completed")) == 1
    assert len(receiver.events) == 50


@pytest.mark.parametrize("faults", [Faults(job_fails=1, seed=4), Faults(job_hangs=1), Faults(job_unknown=1)])
async def test_jobs_that_do_not_complete(
    http: aiohttp.ClientSession, emulator: Emulator, receiver: Receiver, faults: Faults
) -> None:
    """A failed job is announced with what it has done; one that hangs is not."""
    emulator.faults = faults
    await issue(http)
    await asyncio.sleep(60)
    issued = len(receiver.data("reward.issued"))
    assert issued == len(emulator.reward_counts()) < 49
    finished = receiver.data("reward_batch.completed")
    assert [(row["state"], row["issued_count"], row["failed_count"]) for row in finished] == (
        [("failed", issued, 1)] if faults.job_fails else []
    )


async def test_receivers_that_fail(
    http: aiohttp.ClientSession, emulator: Emulator, receiver: Receiver
) -> None:
    """Nothing is sent again, and issuing is not disturbed, whatever the receiver does."""
    receiver.status = 500
    await issue(http, "a@b.co", key="refuses")
    await receiver.has(2)
    receiver.delay = 100.0
    await issue(http, "a@b.co", key="sleeps")
    await asyncio.sleep(60)
    assert len(receiver.events) == 4
    emulator.webhooks = Webhooks("http://127.0.0.1:9", SECRET)
    await issue(http, "a@b.co", key="is away")
    await asyncio.sleep(60)
    assert emulator.statistics()["webhooks"] == {
        "reward.issued": 3,
        "reward_batch.completed": 3,
        "undelivered": 4,
    }


async def test_few_posts_at_once(http: aiohttp.ClientSession, emulator: Emulator, receiver: Receiver) -> None:
    """A large job does not flood the receiver."""
    receiver.delay = 1.0
    emulator.speed = JobSpeed(1e9, 0)
    await issue(http)
    await receiver.has(50)
    assert receiver.most_at_once == 20


def posting() -> list[str]:
    return [text for text in map(repr, asyncio.all_tasks()) if "Post._" in text]


async def test_closing_drops_what_is_not_sent(receiver: Receiver) -> None:
    """No task outlives the emulator, which does not wait for slow receivers or late events."""
    receiver.delay = 5.0
    webhooks = Webhooks(receiver.url, SECRET, late=0.5, late_by=1000)
    async with Emulator(limits=[], webhooks=webhooks) as emulator:
        async with aiohttp.ClientSession(emulator.url, headers=HEADERS) as http:
            await issue(http)
        await receiver.has(1)
        assert len(posting()) > 20
        start = asyncio.get_running_loop().time()
    assert posting() == []
    assert asyncio.get_running_loop().time() - start < 1


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        ({"url": "example.com"}, "begin with http"),
        ({"secret": ""}, "secret is empty"),
        ({"lost": 1.5}, "Webhooks.lost must be a rate from 0 to 1, not 1.5"),
        ({"late_by": -1.0}, "late_by"),
    ],
)
def test_impossible_settings(settings: Json, phrase: str) -> None:
    """The message names what is wrong, and the secret is never shown."""
    with pytest.raises(ValueError, match=phrase):
        Webhooks(**({"url": "http://x", "secret": SECRET} | settings))  # type: ignore[arg-type]  # on purpose
    assert SECRET not in repr(Webhooks("http://x", SECRET))
