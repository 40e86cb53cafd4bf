"""What every outbox does, whatever it is stored in: over real sockets, on the real clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import attrs
import pytest

from tests.batching.test_collector_failures import poison_is_refused
from tests.helpers import HANGS, TARGET, UNAUTHORIZED, Wall, guests, issuing, until
from tests.outbox.conftest import Make, Sql
from thanx_async import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    Guard,
    GuardError,
    IdempotencyConflictError,
    IdReusedError,
    InvalidIdentifierError,
    LedgerError,
    LocalRateLimiter,
    NotFoundError,
    RateLimit,
    ThanxClient,
)
from thanx_async._batches import batch_key
from thanx_async.emulator import Emulator, Faults, JobSpeed, ScriptedAnswer
from thanx_async.emulator.answers import Refused
from thanx_async.ledger import BatchOutcome
from thanx_async.outbox import GuestOutcome, GuestState, StoredOutbox
from thanx_async.webhooks import RewardBatchCompleted

pytestmark = pytest.mark.realtime

Box = StoredOutbox[Any]
LINGER = 0.05


async def drain(outbox: Box, client: ThanxClient, **settings: Any) -> None:
    async with asyncio.timeout(60):
        await outbox.drain(client, **{"linger": LINGER, "until_empty": True, **settings})


@asynccontextmanager
async def draining(outbox: Box, client: ThanxClient) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(outbox.drain(client, linger=LINGER))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def states(outbox: Box, *ids: str) -> list[str]:
    return [(await outbox.outcome(id, timeout=0)).state.value for id in ids]


def bodies(emulator: Emulator) -> list[int]:
    """The numbers of rewards in the jobs that were accepted."""
    return sorted(emulator.reward_counts().values())


async def test_an_id_is_one_reward(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """The same id again is no second reward, before and after the guest is sent."""
    assert await outbox.put("jane@example.com", id="order-1")
    assert not await outbox.put(" Jane@Example.com ", id="order-1")
    await drain(outbox, client)
    assert not await outbox.put("jane@example.com", id="order-1")
    await drain(outbox, client)
    assert emulator.reward_counts() == {"jane@example.com": 1}
    assert len(issuing(emulator)) == 1


async def test_an_id_belongs_to_one_guest(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """An id that is used for another guest is refused by name, and changes nothing."""
    await outbox.put("jane@example.com", id="order-1")
    with pytest.raises(IdReusedError, match="'order-1' was put before, with another guest"):
        await outbox.put("john@example.com", id="order-1")
    await drain(outbox, client)
    assert emulator.reward_counts() == {"jane@example.com": 1}


async def test_a_guest_with_two_ids(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """Two ids are two rewards, and no request names a guest twice."""
    for order in ("1", "2", "3"):
        await outbox.put("jane@example.com", id=order)
    await drain(outbox, client)
    assert emulator.reward_counts() == {"jane@example.com": 3}
    assert len(set(issuing(emulator))) == 3


async def test_concurrent_puts(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """Each of many concurrent callers learns of its own id, also beside one whose id is refused."""
    await outbox.put("other@example.com", id="7")
    puts = [outbox.put(guest, id=str(number)) for number, guest in enumerate(guests(50))]
    again = [outbox.put(guest, id=str(number)) for number, guest in enumerate(guests(50))]
    results = await asyncio.gather(*puts, *again, return_exceptions=True)
    assert [type(result) for result in results].count(IdReusedError) == 2
    assert (results.count(True), results.count(False)) == (49, 49)
    await drain(outbox, client)
    assert set(emulator.reward_counts().values()) == {1}
    assert len(emulator.reward_counts()) == 50
    assert len(issuing(emulator)) == 1


async def test_put_many(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """Many guests are put in slices, from any iterable, and the call can be repeated."""
    pairs = [(guest, f"id-{guest}") for guest in guests(20_500)]

    async def source() -> AsyncIterator[tuple[object, str]]:
        for pair in pairs:
            yield pair

    assert await outbox.put_many(iter(pairs[:15_000])) == 15_000
    assert await outbox.put_many(source()) == 5_500
    await drain(outbox, client)
    assert len(emulator.reward_counts()) == 20_500
    assert set(emulator.reward_counts().values()) == {1}
    assert len(issuing(emulator)) == 3


async def test_put_many_names_the_bad_pair(outbox: Box) -> None:
    """An invalid pair is named by its place, and the guests of earlier slices are put."""
    pairs = [(guest, guest) for guest in guests(10_002)]
    with pytest.raises(InvalidIdentifierError, match="pair 10002: "):
        await outbox.put_many([*pairs, ("nobody", "x")])
    assert (await outbox.status()).waiting == 10_000
    with pytest.raises(IdReusedError, match="was put before, with another guest"):
        await outbox.put_many([("other@example.com", "guest0@example.com")])


@pytest.mark.parametrize("id", ["", "\0", "\ud800", 7, None])
async def test_bad_ids(outbox: Box, id: Any) -> None:
    """An id must be text that can be stored."""
    with pytest.raises(ConfigurationError, match="id "):
        await outbox.put("jane@example.com", id=id)
    assert (await outbox.status()).waiting == 0


async def test_outcomes(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """Each guest's outcome is known by id, with the reason of a failure."""
    names = ["a@example.com", "unknown1@example.com", "b@example.com", "unknown2@example.com"]
    await outbox.put_many(zip(names, "abcd", strict=True))
    assert await states(outbox, *"abcd") == ["waiting"] * 4
    await drain(outbox, client)
    assert await states(outbox, *"abcd") == ["issued", "failed", "issued", "failed"]
    failed = await outbox.outcome("b")
    (key,) = issuing(emulator)
    assert failed == GuestOutcome("b", GuestState.FAILED, "User not found", failed.job_id, key)
    assert failed.job_id is not None
    with pytest.raises(LedgerError, match="knows no outcome of the id 'e'"):
        await outbox.outcome("e")


async def test_waiting_for_an_outcome(outbox: Box, client: ThanxClient) -> None:
    """``outcome`` waits until the outcome is final, whoever drains."""
    await outbox.put("jane@example.com", id="1")
    assert (await outbox.outcome("1", timeout=0.1)).state is GuestState.WAITING
    async with draining(outbox, client):
        assert (await outbox.outcome("1")).issued


async def test_cancelling(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """A guest who waits can be taken out; the id stays used."""
    await outbox.put("jane@example.com", id="1")
    await outbox.put("john@example.com", id="2")
    assert await outbox.cancel("1")
    assert not await outbox.cancel("1")
    assert not await outbox.cancel("3")
    assert not await outbox.put("jane@example.com", id="1")
    await drain(outbox, client)
    assert not await outbox.cancel("2")
    assert await states(outbox, "1", "2") == ["cancelled", "issued"]
    assert emulator.reward_counts() == {"john@example.com": 1}


async def test_the_status(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """The status tells who waits, what is open, and who drains."""
    emulator.speed = JobSpeed(identifiers_per_second=0.1)
    await outbox.put_many((guest, guest) for guest in guests(3))
    status = await outbox.status()
    assert (status.waiting, status.accepted, status.drained_by, status.paused) == (3, 0, None, None)
    async with draining(outbox, client):
        await until(lambda: issuing(emulator))
        async with asyncio.timeout(HANGS):
            while (status := await outbox.status()).accepted == 0:
                await asyncio.sleep(0.01)
        assert (status.waiting, status.in_doubt, status.held) == (0, 0, 0)
        assert "(this process)" in (status.drained_by or "")
    assert (await outbox.status()).drained_by is None


async def test_lost_answers(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """What was sent and not answered is sent again with the same key, and nobody gets two rewards."""
    await outbox.put_many((guest, guest) for guest in guests(30))
    emulator.faults = Faults(reset_after=0.3, html_502=0.2, html_504=0.2, seed=3)
    await drain(outbox, client)
    assert emulator.reward_counts() == dict.fromkeys(guests(30), 1)
    assert len(set(issuing(emulator))) == 1


async def test_a_drain_that_is_cancelled(
    outbox: Box, make: Make, client: ThanxClient, emulator: Emulator
) -> None:
    """Another drain goes on with what a cancelled one left in doubt, with the same key."""
    await outbox.put_many((guest, guest) for guest in guests(30))
    emulator.faults = Faults(answer_lost=1)
    async with draining(outbox, client):
        await until(lambda: issuing(emulator))
    assert await states(outbox, guests(1)[0]) == ["in_doubt"]
    emulator.faults = Faults()
    async with make() as other:
        await drain(other, client)
        assert set(await states(other, *guests(30))) == {"issued"}
    assert emulator.reward_counts() == dict.fromkeys(guests(30), 1)
    assert len(set(issuing(emulator))) == 1


async def test_one_bad_guest(make: Make, client: ThanxClient) -> None:
    """A guest whom Thanx blames for the refusal of a batch fails alone."""
    names = [*guests(30), "poison@example.com", *guests(30, start=30)]
    limiter = LocalRateLimiter([RateLimit(100_000, 1)])
    async with (
        Emulator(fails=poison_is_refused, limits=[(100_000, 1)]) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as strict,
        make(base_url=emulator.url) as outbox,
    ):
        await outbox.put_many((name, name) for name in names)
        await drain(outbox, strict)
        assert emulator.reward_counts() == dict.fromkeys(guests(60), 1)
        outcome = await outbox.outcome("poison@example.com")
        assert outcome.state is GuestState.FAILED
        assert "USER_EMAIL_INVALID" in (outcome.reason or "")
        assert set(await states(outbox, *guests(60))) == {"issued"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (UNAUTHORIZED, AuthenticationError),
        (ScriptedAnswer(400, b'{"error": {"code": "BAD_REQUEST", "message": "no"}}'), BadRequestError),
    ],
)
async def test_a_refusal_of_everything(
    outbox: Box, client: ThanxClient, emulator: Emulator, answer: ScriptedAnswer, error: type[Exception]
) -> None:
    """A refusal that blames nobody ends the drain, everybody still waits, and the status names it."""
    await outbox.put_many((guest, guest) for guest in guests(5))
    emulator.script(answer)
    with pytest.raises(error):
        await drain(outbox, client)
    assert set(await states(outbox, *guests(5))) == {"waiting"}
    assert (await outbox.status()).paused == f"the last drain ended with {error.__name__}"
    await drain(outbox, client)
    assert (await outbox.status()).paused is None
    assert emulator.reward_counts() == dict.fromkeys(guests(5), 1)


async def test_a_number_that_was_used_before(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """After the store was restored from a copy, Thanx knows a batch's key: the drain stops, and stays so."""
    await outbox.put("new@example.com", id="1")
    key = batch_key(outbox.lane.run.run_id, 0)
    await client.issue_rewards(**TARGET, identifiers=["old@example.com"], idempotency_key=key)
    for _ in range(2):
        with pytest.raises(IdempotencyConflictError):
            await drain(outbox, client)
        assert await states(outbox, "1") == ["in_doubt"]
        assert (await outbox.status()).paused == "the last drain ended with IdempotencyConflictError"
    assert emulator.reward_counts() == {"old@example.com": 1}
    assert set(issuing(emulator)) == {key}


async def test_nothing_is_sent_beside_a_conflict(
    outbox: Box, client: ThanxClient, emulator: Emulator
) -> None:
    """A drain that is started again after a conflict sends nothing else, however many guests came since."""
    await outbox.put("new@example.com", id="1")
    key = batch_key(outbox.lane.run.run_id, 0)
    await client.issue_rewards(**TARGET, identifiers=["old@example.com"], idempotency_key=key)
    with pytest.raises(IdempotencyConflictError):
        await drain(outbox, client)
    await outbox.put("later@example.com", id="2")
    emulator.faults = Faults(delay=0.5)
    with pytest.raises(IdempotencyConflictError):
        await drain(outbox, client, linger=0)
    assert set(issuing(emulator)) == {key}
    assert await states(outbox, "2") == ["waiting"]


async def test_a_batch_that_always_fails(make: Make, client: ThanxClient) -> None:
    """A guest for whom Thanx fails again and again does not hold up the others."""

    def fails(kind: str, value: str) -> str | None:
        if value.startswith("poison"):
            raise Refused(500, "internal error", "GENERIC_ERROR")
        return None

    limiter = LocalRateLimiter([RateLimit(100_000, 1)])
    async with (
        Emulator(fails=fails, limits=[(100_000, 1)]) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as patient,
        make(base_url=emulator.url) as outbox,
    ):
        await outbox.put("poison@example.com", id="poison")
        async with draining(outbox, patient):
            await until(lambda: len(emulator.requests) > 1)
            await outbox.put("jane@example.com", id="1")
            assert (await outbox.outcome("1", timeout=HANGS)).issued
        assert await states(outbox, "poison") == ["in_doubt"]


async def test_a_poll_that_is_refused(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """A drain that is meant to end says that a job could not be followed; the next one follows it."""
    await outbox.put("jane@example.com", id="1")
    emulator.script(ScriptedAnswer(), ScriptedAnswer(404))
    with pytest.raises(NotFoundError):
        await drain(outbox, client)
    assert await states(outbox, "1") == ["accepted"]
    await drain(outbox, client)
    assert await states(outbox, "1") == ["issued"]


async def test_nested_blocks(outbox: Box) -> None:
    """A nested block that is cancelled leaves the outer one open."""

    async def inner() -> None:
        async with outbox:
            raise AssertionError

    task = asyncio.create_task(inner())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await outbox.put("jane@example.com", id="1")


async def test_too_old_to_send_again(make: Make, client: ThanxClient, emulator: Emulator) -> None:
    """A batch that is in doubt for too long is held, is not sent again, and does not hold up the others."""
    emulator.faults = Faults(answer_lost=1)
    async with make() as outbox:
        await outbox.put("jane@example.com", id="1")
        async with draining(outbox, client):
            await until(lambda: issuing(emulator))
    emulator.faults = Faults()
    async with make() as outbox:
        await outbox.configure(replay_within=0)
        await outbox.put("john@example.com", id="2")
        await drain(outbox, client)
        assert await states(outbox, "1", "2") == ["held", "issued"]
        assert (await outbox.outcome("1")).idempotency_key == issuing(emulator)[0]
        assert (await outbox.status()).held == 1
    assert len(issuing(emulator)) == 2


async def test_a_batch_grows_too_old_while_it_is_sent(make: Make, emulator: Emulator) -> None:
    """A patient client stops sending a batch again once its record is too old."""
    emulator.faults = Faults(reset_after=1)
    limiter = LocalRateLimiter([RateLimit(100_000, 1)])
    async with (
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client,
        make(replay_within=1) as outbox,
    ):
        await outbox.put("jane@example.com", id="1")
        await drain(outbox, client)
        assert await states(outbox, "1") == ["held"]


async def test_a_machine_that_sleeps(make: Make, emulator: Emulator, wall: Wall) -> None:
    """The sleep of the machine makes a batch older: it is held after a day by the wall clock."""
    emulator.faults = Faults(reset_after=1)
    wall.naps = [23 * 3600.0, 3 * 3600.0]
    limiter = LocalRateLimiter([RateLimit(100_000, 1)])
    async with (
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter, hook=wall) as client,
        make() as outbox,
    ):
        await outbox.put("jane@example.com", id="1")
        await drain(outbox, client)
        assert await states(outbox, "1") == ["held"]
    assert len(issuing(emulator)) == 2
    assert len(set(issuing(emulator))) == 1


async def test_standing_by(
    outbox: Box, make: Make, client: ThanxClient, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    """One of two drains sends; the other one says for whom it waits, and takes over after the first."""
    caplog.set_level("INFO")
    async with make() as other, draining(outbox, client):
        await outbox.put("a@example.com", id="1")
        assert (await outbox.outcome("1")).issued
        async with draining(other, client) as standby:
            await until(lambda: "standing by: " in caplog.text)
            await outbox.put("b@example.com", id="2")
            assert (await other.outcome("2")).issued
            assert not standby.done()
    async with make() as other, draining(other, client), draining(outbox, client) as standby:
        await outbox.put("c@example.com", id="3")
        assert (await outbox.outcome("3")).issued
        assert not standby.done()
    assert set(emulator.reward_counts().values()) == {1}
    assert "(this process). Another batcher, drain or ledger of this process has it" in caplog.text


async def test_taking_over(make: Make, client: ThanxClient, emulator: Emulator) -> None:
    """A drain that stands by takes over from one that ends."""
    async with make() as first, make() as second:
        async with draining(first, client):
            await first.put("a@example.com", id="1")
            assert (await first.outcome("1")).issued
            standby = asyncio.create_task(second.drain(client, linger=LINGER))
        await second.put("b@example.com", id="2")
        assert (await second.outcome("2", timeout=60)).issued
        standby.cancel()
        await asyncio.wait([standby])
    assert emulator.reward_counts() == {"a@example.com": 1, "b@example.com": 1}


async def test_max_rewards(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """The guard's limit counts all rewards of the outbox, and the others still wait."""
    await outbox.put_many((guest, guest) for guest in guests(10))
    with pytest.raises(GuardError, match="max_rewards is 7: 7 guests may have a reward"):
        await drain(outbox, client, guard=Guard(max_rewards=7))
    assert len(emulator.reward_counts()) == 7
    assert (await outbox.status()).waiting == 3
    await drain(outbox, client, guard=Guard(max_rewards=10))
    assert emulator.reward_counts() == dict.fromkeys(guests(10), 1)


async def test_max_rewards_counts_what_is_forgotten(make: Make, client: ThanxClient, sql: Sql) -> None:
    """The guard counts rewards whose ids were forgotten, and reads no finished batch for that."""
    async with make(keep_ids=timedelta(0)) as outbox:
        await outbox.put_many([(guest, guest) for guest in [*guests(4), "unknown@example.com"]])
        for _ in range(2):
            await drain(outbox, client)
        with pytest.raises(LedgerError, match="knows no outcome"):
            await outbox.outcome(guests(1)[0])
        await outbox.put_many((guest, guest) for guest in guests(4))
        with pytest.raises(GuardError, match="max_rewards is 6: 6 guests may have a reward"):
            await drain(outbox, client, guard=Guard(max_rewards=6))
        await sql("DELETE FROM thanx.batches WHERE state = 'finished'")
        with pytest.raises(GuardError, match="max_rewards is 6: 6 guests may have a reward"):
            await drain(outbox, client, guard=Guard(max_rewards=6))
        assert (await outbox.status()).waiting == 2


async def test_max_rewards_counts_what_was_taken_back(outbox: Box, client: ThanxClient) -> None:
    """Rewards that were revoked do not count any more, however often that is recorded."""
    await outbox.put_many((guest, guest) for guest in guests(4))
    await drain(outbox, client)
    ledger, run_id = outbox.ledger, outbox.lane.run.run_id
    assert await ledger.rewards(run_id) == 4
    for outcome, rewards in ((BatchOutcome("revoked", 0), 0), (BatchOutcome("completed", 3), 3)):
        for _ in range(2):
            await ledger.finish(run_id, {0: outcome, 7: outcome})
            assert await ledger.rewards(run_id) == rewards


async def test_the_oldest_keeps_its_age(
    outbox: Box, client: ThanxClient, emulator: Emulator, sql: Sql
) -> None:
    """A guest whose batch goes back to waiting has waited since it was put."""
    await outbox.put_many((guest, guest) for guest in guests(3))
    hour = "interval '1 hour'" if "Postgres" in repr(outbox) else "3600"
    await sql(f"UPDATE thanx.guests SET put_at = put_at - {hour}")  # noqa: S608 - the test's own
    emulator.script(UNAUTHORIZED)
    with pytest.raises(AuthenticationError):
        await drain(outbox, client)
    status = await outbox.status()
    assert status.waiting == 3
    assert 3600 <= status.oldest < 3700


async def test_a_bad_canary(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """After a first batch with too many failures nothing more is sent."""
    await outbox.put_many((f"unknown{number}@example.com", str(number)) for number in range(5))
    await outbox.put_many((guest, guest) for guest in guests(5))
    with pytest.raises(GuardError, match=r"5 of 5 guests in finished jobs have failed \(100.0%\)"):
        await drain(outbox, client, guard=Guard(canary=5, max_failure_rate=0.2))
    assert len(issuing(emulator)) == 1
    assert (await outbox.status()).waiting == 5


async def test_a_good_canary(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """After a good first batch the others follow."""
    await outbox.put_many((guest, guest) for guest in guests(10))
    await drain(outbox, client, guard=Guard(canary=2, max_failure_rate=0.2))
    assert emulator.reward_counts() == dict.fromkeys(guests(10), 1)
    assert len(issuing(emulator)) == 2


async def test_another_credential(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """A client of another credential or server cannot drain."""
    async with ThanxClient("other", "t", base_url=emulator.url) as other:
        with pytest.raises(ConfigurationError, match="client_id is 'other', and the outbox's 'c'"):
            await outbox.drain(other)
    async with ThanxClient("c", "t", base_url="https://example.com") as other:
        with pytest.raises(ConfigurationError, match="base_url"):
            await outbox.drain(other)
    assert emulator.requests == []


async def test_lanes_are_apart(make: Make, client: ThanxClient, emulator: Emulator) -> None:
    """The same id is another reward in another campaign."""
    async with make() as one, make(variant_id="var_control") as other:
        assert await one.put("jane@example.com", id="1")
        assert await other.put("jane@example.com", id="1")
        await drain(one, client)
        assert await states(one, "1") == ["issued"]
        assert await states(other, "1") == ["waiting"]
    assert emulator.reward_counts() == {"jane@example.com": 1}


async def test_what_is_no_identifier(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """A row that another program has put and that is no identifier is refused singly."""
    good, bad = (outbox.lane.guests.make(guest, guest) for guest in ("a@example.com", "b@example.com"))
    await outbox._ledger.put(outbox.lane.run.run_id, [attrs.evolve(bad, value="b at example"), good])
    await drain(outbox, client)
    assert await states(outbox, "a@example.com", "b@example.com") == ["issued", "rejected"]
    assert (await outbox.outcome("b@example.com")).reason
    assert emulator.reward_counts() == {"a@example.com": 1}


async def test_a_webhook_at_another_process(
    outbox: Box, make: Make, client: ThanxClient, emulator: Emulator
) -> None:
    """An event that arrives where nobody drains reaches who drains, and saves him the wait."""
    emulator.speed = JobSpeed(identifiers_per_second=1e6, start_delay=0.5)
    async with make() as other, draining(outbox, client):
        await outbox.put("jane@example.com", id="1")
        async with asyncio.timeout(HANGS):
            while (job_id := (await other.outcome("1", timeout=0)).job_id) is None:
                await asyncio.sleep(0.01)
        event = RewardBatchCompleted(job_id, "completed")
        await other.notify(event)
        assert (await outbox.outcome("1")).issued
    assert sum(row.method == "GET" for row in emulator.requests) >= 1


async def test_ids_are_forgotten(make: Make, client: ThanxClient, emulator: Emulator) -> None:
    """Ids are deleted once they are old enough and their guests' outcome is known."""
    async with make(keep_ids=timedelta(0)) as outbox:
        await outbox.put_many((guest, guest) for guest in guests(3))
        await drain(outbox, client)
        await drain(outbox, client)
        with pytest.raises(LedgerError, match="knows no outcome"):
            await outbox.outcome(guests(1)[0])
        assert await outbox.put(guests(1)[0], id=guests(1)[0])
        assert (await outbox.outcome(guests(1)[0], timeout=0)).state is GuestState.WAITING


async def test_settings_are_the_outbox_s_own(make: Make) -> None:
    """Whoever creates an outbox sets how long ids are kept; another setting is refused, none adopts it."""
    async with make(keep_ids=timedelta(days=200), replay_within=100) as service:
        async with make() as other:
            assert (other.keep_ids, other.replay_within) == (timedelta(days=200), 100)
        for setting, message in (
            ({"keep_ids": None}, r"keep_ids=timedelta\(days=200\) for all processes, not None\."),
            ({"replay_within": 1}, r"replay_within=100 for all processes, not 1\."),
        ):
            with pytest.raises(ConfigurationError, match=message):
                await make(**setting).__aenter__()
        await service.configure(keep_ids=None)
        assert (service.keep_ids, service.replay_within) == (None, 100)
    async with service, make(keep_ids=None, replay_within=100) as other:
        await other.configure(replay_within=50)
        assert (other.keep_ids, other.replay_within) == (None, 50)
    async with make(variant_id="var_control") as another:
        assert (another.keep_ids, another.replay_within) == (timedelta(days=90), 86_400)


@pytest.mark.parametrize("setting", [{"keep_ids": 90}, {"replay_within": -1}, {"replay_within": "1"}])
async def test_bad_settings(make: Make, outbox: Box, setting: dict[str, Any]) -> None:
    """A setting of another kind is refused by its name, and changes nothing."""
    (name,) = setting
    with pytest.raises(ConfigurationError, match=f"{name} must be a "):
        make(**setting)
    with pytest.raises(ConfigurationError, match=f"{name} must be a "):
        await outbox.configure(**setting)
    assert (outbox.keep_ids, outbox.replay_within) == (timedelta(days=90), 86_400)


async def test_a_drain_elsewhere_keeps_ids_as_the_outbox_says(make: Make, client: ThanxClient) -> None:
    """A drain that was not told for how long ids are kept forgets those that are too old, and no others."""
    async with make(keep_ids=None) as service, make() as drainer:
        await service.put("jane@example.com", id="1")
        for _ in range(2):
            await drain(drainer, client)
        assert not await service.put("jane@example.com", id="1")
        await service.configure(keep_ids=timedelta(0))
        await drain(drainer, client)
        assert await service.put("jane@example.com", id="1")


async def test_using_it_closed(make: Make) -> None:
    """An outbox that is not open says how to open it."""
    outbox = make()
    with pytest.raises(ConfigurationError, match="the outbox is not open"):
        await outbox.put("jane@example.com", id="1")
    assert "not open" in repr(outbox)
    async with outbox:
        await outbox.put("jane@example.com", id="1")
    with pytest.raises(ConfigurationError, match="not open"):
        await outbox.put("jane@example.com", id="1")


async def test_cancelled_puts(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """A cancelled put tells whether the guest may have been put; the others are put all the same."""

    async def put(guest: str) -> str:
        try:
            return "new" if await outbox.put(guest, id=guest) else "known"
        except asyncio.CancelledError as error:
            return error.__notes__[0]

    tasks = [asyncio.create_task(put(guest)) for guest in guests(10)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    results = await asyncio.gather(*tasks)
    certain = results.count("nothing was put")
    assert results.count("new") == 6
    assert (await outbox.status()).waiting == 10 - certain
    assert [await outbox.put(guest, id=guest) for guest in guests(10)].count(True) == certain
    await drain(outbox, client)
    assert emulator.reward_counts() == dict.fromkeys(guests(10), 1)


async def test_messages_do_not_show_guests(outbox: Box) -> None:
    """An id may hold a guest's address, which no message shows."""
    await outbox.put("jane@example.com", id="survey of jane@example.com")
    with pytest.raises(IdReusedError) as reused:
        await outbox.put("john@example.com", id="survey of jane@example.com")
    with pytest.raises(LedgerError) as unknown:
        await outbox.outcome("survey of john@example.com")
    assert "example.com" not in f"{reused.value} {unknown.value}"
