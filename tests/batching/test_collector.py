"""Guests who come one by one: when batches go, who is in them, who waits."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager

import pytest
import uvloop

from tests.helpers import MERCHANT, TARGET, guests, issuing, now
from thanx_async import (
    AsyncBatcher,
    ConfigurationError,
    InvalidIdentifierError,
    JobHandle,
    JobTimeoutError,
    Lane,
    LocalRateLimiter,
    Outcome,
    RateLimit,
    Slot,
    SQLiteLedger,
    ThanxClient,
)
from thanx_async.emulator import Counter, Emulator, Faults, JobSpeed, ScriptedAnswer

FAST = (RateLimit(1000, 1),)
LINGER = 0.25
TOO_MANY = ScriptedAnswer(429, b"", headers={"Retry-After": "30"})


async def timed(batcher: AsyncBatcher, guest: object, *, after: float = 0.0) -> tuple[JobHandle, float]:
    await asyncio.sleep(after)
    begun = now()
    return await batcher.add(guest), now() - begun


async def steadily(batcher: AsyncBatcher, names: list[str], *, every: float, at_once: int = 1) -> list[float]:
    """How long each add took, while guests come in at a steady rate."""
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number, guest in enumerate(names, start=1):
            tasks.append(group.create_task(timed(batcher, guest)))
            if number % at_once == 0:
                await asyncio.sleep(every)
    return [task.result()[1] for task in tasks]


async def test_concurrent_callers_share_a_batch(emulator: Emulator, client: ThanxClient) -> None:
    """Those who come together go together, after the linger, and hold the same handle."""
    async with AsyncBatcher(client, **TARGET) as batcher:
        results = await asyncio.gather(*(timed(batcher, guest) for guest in guests(5)))
        assert {(handle.id, handle.start, handle.total) for handle, _ in results} == {("job000001", 0, 5)}
        assert all(LINGER <= took < LINGER + 0.05 for _, took in results)
        later = await batcher.add("later@example.com")
        assert (later.start, later.total) == (5, 1)
    assert emulator.reward_counts() == dict.fromkeys([*guests(5), "later@example.com"], 1)


async def test_a_full_batch_does_not_linger(emulator: Emulator, client: ThanxClient) -> None:
    """The guest who fills a batch sends it."""
    async with AsyncBatcher(client, **TARGET, batch_size=10, linger=60) as batcher:
        results = await asyncio.gather(*(timed(batcher, guest) for guest in guests(10)))
        assert max(took for _, took in results) < 0.1
    assert len(issuing(emulator)) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_nobody_waits_longer_than_linger_and_round_trip(seed: int) -> None:
    """Where the limits leave room, a guest's own arrival decides, however many come after."""
    chance = random.Random(seed)
    async with (
        Emulator(limits=[], faults=Faults(delay=0.1)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=LocalRateLimiter(FAST)) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        results = await asyncio.gather(
            *(timed(batcher, guest, after=chance.uniform(0, 3)) for guest in guests(300))
        )
        assert max(took for _, took in results) < LINGER + 0.1 + 0.02
        assert len(issuing(emulator)) <= 3 / LINGER


async def test_twenty_thousand_in_ten_seconds(emulator: Emulator, client: ThanxClient) -> None:
    """Under Thanx's limits they become fewer than 40 requests, none is refused, and all are answered."""
    everybody = guests(20_000)
    async with AsyncBatcher(client, **TARGET) as batcher:
        took = await steadily(batcher, everybody, every=0.01, at_once=20)
    assert len(emulator.requests) < 40
    assert emulator.refused == 0
    assert emulator.reward_counts() == dict.fromkeys(everybody, 1)
    assert max(took) < 0.5


async def test_batches_grow_while_requests_are_limited() -> None:
    """A batch is cut as its slot becomes free: who comes until then still goes with it."""
    limiter = LocalRateLimiter([RateLimit(1, 5)])
    async with (
        Emulator(limits=[]) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        took = await steadily(batcher, guests(200), every=0.1)
        assert len(issuing(emulator)) == 5
        assert max(took) < 5.1


async def test_a_refusal_gathers_the_others(emulator: Emulator, client: ThanxClient) -> None:
    """While a refused batch waits for its turn, everybody else goes into one batch behind it."""
    emulator.script(TOO_MANY)
    async with AsyncBatcher(client, **TARGET) as batcher:
        results = await asyncio.gather(
            *(timed(batcher, guest, after=number / 10) for number, guest in enumerate(guests(100)))
        )
    assert sorted({(handle.start, handle.total) for handle, _ in results}) == [(0, 3), (3, 97)]


async def test_polls_do_not_go_before_guests(client: ThanxClient) -> None:
    """Jobs that are looked at all the time do not keep an added guest waiting for long."""
    limiter = LocalRateLimiter([RateLimit(1, 1)])
    async with (
        Emulator(limits=[], speed=JobSpeed(identifiers_per_second=0.001)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as slow,
        AsyncBatcher(slow, **TARGET) as batcher,
    ):
        handle = await batcher.add("first@example.com")

        async def look() -> None:
            for _ in range(50):
                await handle.refresh()

        looking = [asyncio.create_task(look()) for _ in range(5)]
        for guest in guests(10):
            _, took = await timed(batcher, guest, after=0.6)
            assert took < 2.3
        for task in looking:
            task.cancel()
        await asyncio.wait(looking)


async def test_steady_guests_do_not_spend_the_long_limit_at_once() -> None:
    """Under a load that never ends, the service is never held up for long."""
    async with (
        Emulator(limits=[]) as emulator,
        ThanxClient(
            "c", "t", base_url=emulator.url, limiter=LocalRateLimiter([RateLimit(5, 1), RateLimit(200, 90)])
        ) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        assert max(await steadily(batcher, guests(1500), every=0.2)) < 2.5


async def test_the_same_guest_twice_while_waiting(emulator: Emulator, client: ThanxClient) -> None:
    """It is one reward with two holders of the handle; after it was sent it is another reward."""
    async with AsyncBatcher(client, **TARGET) as batcher:
        first, second = await asyncio.gather(
            batcher.add("jane@example.com"), batcher.add(("email", " Jane@Example.com"))
        )
        assert first.id == second.id
        assert emulator.reward_counts() == {"jane@example.com": 1}
        assert (await batcher.add("jane@example.com")).id != first.id
    assert emulator.reward_counts() == {"jane@example.com": 2}


async def test_junk_is_refused_at_once(emulator: Emulator, client: ThanxClient) -> None:
    """An invalid identifier concerns nobody else."""
    async with AsyncBatcher(client, **TARGET) as batcher:
        waiting = asyncio.create_task(batcher.add("a@example.com"))
        await asyncio.sleep(0)
        begun = now()
        with pytest.raises(InvalidIdentifierError):
            await batcher.add("junk")
        assert now() == begun
        assert (await waiting).total == 1


async def test_a_cancelled_caller_is_taken_out(emulator: Emulator, client: ThanxClient) -> None:
    """Before the batch is cut, unless another caller wants the same guest; timers and others stay."""
    async with AsyncBatcher(client, **TARGET) as batcher:
        tasks = [asyncio.create_task(batcher.add(guest)) for guest in [*guests(3), "guest1@example.com"]]
        await asyncio.sleep(0.1)
        for task in tasks[:2]:
            task.cancel()
        handles = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(handle, JobHandle) for handle in handles] == [False, False, True, True]
    assert emulator.reward_counts() == {"guest1@example.com": 1, "guest2@example.com": 1}
    assert len(issuing(emulator)) == 1


async def test_all_cancelled_sends_nothing(emulator: Emulator, client: ThanxClient) -> None:
    """A batch of nobody is no request, and the next guest lingers anew."""
    async with AsyncBatcher(client, **TARGET) as batcher:
        task = asyncio.create_task(batcher.add("a@example.com"))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.sleep(1)
        assert emulator.requests == []
        _, took = await timed(batcher, "b@example.com")
        assert took >= LINGER


async def test_cancelled_after_sending_changes_nothing(client: ThanxClient) -> None:
    """The guest has the reward, and the others have their handle."""
    async with (
        Emulator(faults=Faults(delay=1)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as slow,
        AsyncBatcher(slow, **TARGET) as batcher,
    ):
        tasks = [asyncio.create_task(batcher.add(guest)) for guest in guests(3)]
        await asyncio.sleep(0.5)
        assert len(issuing(emulator)) == 1
        tasks[0].cancel()
        _, *handles = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(handle, JobHandle) for handle in handles)
        assert len(emulator.reward_counts()) == 3


async def test_backpressure(client: ThanxClient) -> None:
    """Past ``max_waiting`` callers wait for a place, in order; one who gives up makes no hole."""
    limiter = LocalRateLimiter([RateLimit(1, 10)])
    async with (
        Emulator(limits=[]) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as limited,
        AsyncBatcher(limited, **TARGET, max_waiting=3) as batcher,
    ):
        await batcher.add("first@example.com")
        tasks = [asyncio.create_task(batcher.add(guest)) for guest in guests(9)]
        await asyncio.sleep(1)
        assert "open, 9 waiting, 0 batches in flight" in repr(batcher)
        tasks[4].cancel()
        same = asyncio.create_task(batcher.add("guest5@example.com"))
        handles = await asyncio.gather(*tasks, same, return_exceptions=True)
        starts = [handle.start if isinstance(handle, JobHandle) else None for handle in handles]
        assert starts == [1, 1, 1, 4, None, 4, 4, 7, 7, 4]
    assert emulator.reward_counts()["guest5@example.com"] == 1


@pytest.mark.parametrize("gone", [0, 2])
async def test_a_place_is_freed_by_cancelling(client: ThanxClient, gone: int) -> None:
    """Whoever gives up, inside or outside, gives the place to the next."""
    limiter = LocalRateLimiter([RateLimit(1, 10)])
    async with (
        Emulator(limits=[]) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as limited,
        AsyncBatcher(limited, **TARGET, max_waiting=2) as batcher,
    ):
        await batcher.add("first@example.com")
        tasks = [asyncio.create_task(batcher.add(guest)) for guest in guests(4)]
        await asyncio.sleep(1)
        tasks[gone].cancel()
        handles = await asyncio.gather(*tasks, return_exceptions=True)
        starts = [handle.start for handle in handles if isinstance(handle, JobHandle)]
        assert starts == [1, 1, 3]
    assert len(emulator.reward_counts()) == 4


async def test_bulk_beside_guests(emulator: Emulator, client: ThanxClient) -> None:
    """The same batcher issues to an input, and nobody waits for the end of it."""
    async with AsyncBatcher(client, **TARGET, batch_size=10) as batcher:
        bulk = asyncio.create_task(batcher.issue(guests(500, start=1000)))
        results = await asyncio.gather(
            *(timed(batcher, guest, after=number) for number, guest in enumerate(guests(8)))
        )
        assert not bulk.done()
        assert max(took for _, took in results) < 3
        assert (await (await bulk).wait()).issued == 500
    assert max(emulator.reward_counts().values()) == 1
    assert emulator.refused == 0


async def test_outcomes(emulator: Emulator, client: ThanxClient) -> None:
    """Each guest's own result, for the latest add; the job is polled once for all."""
    async with AsyncBatcher(client, **TARGET) as batcher:
        names = [*guests(50), "unknown1@example.com"]
        await asyncio.gather(*(batcher.add(name) for name in names))
        outcomes = await asyncio.gather(*(batcher.outcome(name) for name in names))
        assert outcomes[3] == Outcome(True, None, False, "job000001", 3)
        assert outcomes[50] == Outcome(False, "User not found", False, "job000001", 50)
        assert sum(outcome.issued for outcome in outcomes) == 50
        assert len(emulator.requests) - len(issuing(emulator)) <= 2
        again = await batcher.add("GUEST3@example.com")
        assert (await batcher.outcome("guest3@example.com")).job_id == again.id
        revoked = client.job("job000001", merchant_id=MERCHANT)
        await revoked.revoke()
        await revoked.wait()
        assert (await batcher.outcome("guest1@example.com")).reason == "reward revoked"
    assert (await batcher.outcome("guest3@example.com")).issued


async def test_outcomes_of_strangers(emulator: Emulator, client: ThanxClient) -> None:
    """Only the latest guests are remembered, and the error says so."""
    async with AsyncBatcher(client, **TARGET, max_waiting=5) as batcher:
        for part in (guests(5), [*guests(3, start=5), "guest0@example.com"]):
            await asyncio.gather(*(batcher.add(guest) for guest in part))
        assert (await batcher.outcome("guest0@example.com")).position == 8
        with pytest.raises(ConfigurationError, match="remembers the last 5"):
            await batcher.outcome("guest1@example.com")
        with pytest.raises(InvalidIdentifierError):
            await batcher.outcome("junk")


async def test_an_outcome_that_thanx_leaves_open(emulator: Emulator, client: ThanxClient) -> None:
    """Numbers that name nobody are not taken for a success."""
    async with AsyncBatcher(client, **TARGET) as batcher:
        await asyncio.gather(*(batcher.add(guest) for guest in guests(2)))
        emulator.script(
            ScriptedAnswer(
                200, b'{"issuance_job": {"id": "job000001", "state": "failed", "success_count": 1}}'
            )
        )
        outcome = await batcher.outcome("guest1@example.com")
        assert (outcome.issued, outcome.in_doubt) == (False, True)


async def test_an_outcome_in_time(client: ThanxClient) -> None:
    """A job that takes longer than the timeout is an error that can be repeated."""
    async with (
        Emulator(speed=JobSpeed(identifiers_per_second=0.02)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as other,
        AsyncBatcher(other, **TARGET) as batcher,
    ):
        await batcher.add("a@example.com")
        with pytest.raises(JobTimeoutError):
            await batcher.outcome("a@example.com", timeout=5)
        assert (await batcher.outcome("a@example.com")).issued


class Doubling:
    """A limiter of the user's: it knows little, and its status never asks to wait."""

    def __init__(self) -> None:
        self._inner = LocalRateLimiter([RateLimit(1, 5)])
        self._idle = LocalRateLimiter([RateLimit(1, 5)])
        self.limits = self._inner.limits
        self.status = self._idle.status

    def slot(self, lane: Lane = Lane.ISSUE) -> AbstractAsyncContextManager[Slot]:
        return self._inner.slot(lane)


async def test_a_limiter_that_does_not_know_its_waits(client: ThanxClient) -> None:
    """At most one batch waits for its slot; everybody else is gathered behind it."""
    async with (
        Emulator(limits=[], counter=Counter.NONE) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=Doubling()) as other,
        AsyncBatcher(other, **TARGET) as batcher,
    ):
        await steadily(batcher, guests(200), every=0.1)
        assert len(issuing(emulator)) <= 6


class Metronome(Doubling):
    """Gives one slot a second, whatever is still under way."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def slot(self, lane: Lane = Lane.ISSUE) -> AsyncIterator[Slot]:
        async with self._turn:
            await asyncio.sleep(1)
        async with LocalRateLimiter(FAST).slot(lane) as slot:
            yield slot


async def test_a_slow_answer_keeps_nobody_waiting(client: ThanxClient) -> None:
    """The next batch is cut as soon as the one before is on the wire, not when it is answered."""
    async with (
        Emulator(limits=[], faults=Faults(delay=20)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=Metronome()) as other,
        AsyncBatcher(other, **TARGET, max_concurrency=30) as batcher,
    ):
        assert max(await steadily(batcher, guests(100), every=0.1)) < 20 + 1 + 1 + LINGER


@contextmanager
def uvloop_runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


def test_on_uvloop() -> None:
    """The same on uvloop, in real time."""

    async def main() -> None:
        async with (
            Emulator() as emulator,
            ThanxClient("c", "t", base_url=emulator.url) as client,
            AsyncBatcher(client, **TARGET, linger=0.01) as batcher,
        ):
            handles = await asyncio.gather(*(batcher.add(guest) for guest in guests(1000)))
            assert len({handle.id for handle in handles}) == 1
            assert len(emulator.reward_counts()) == 1000

    with uvloop_runner() as runner:
        runner.run(main())


@pytest.mark.parametrize(
    "use",
    [
        lambda batcher: batcher.add("a@example.com"),
        lambda batcher: batcher.outcome("a@example.com"),
        lambda batcher: batcher.aclose(),
        lambda batcher: batcher.__aenter__(),
        lambda batcher: batcher.issue(["a@example.com"]),
        lambda batcher: batcher.stream(["a@example.com"]).__aenter__(),
        lambda batcher: batcher.resume("run-1"),
        lambda batcher: batcher.recover(),
        lambda batcher: batcher.__aexit__(None, None, None),
    ],
    ids=["add", "outcome", "aclose", "open", "issue", "stream", "resume", "recover", "leave"],
)
async def test_another_loop_is_refused_before_anything_happens(
    emulator: Emulator,
    client: ThanxClient,
    ledger: SQLiteLedger,
    use: Callable[[AsyncBatcher], Coroutine[object, object, object]],
) -> None:
    """From the loop of another thread nothing can be used, and the message says how to hand a call over."""
    async with AsyncBatcher(client, **TARGET, ledger=ledger) as batcher:
        with pytest.raises(ConfigurationError, match=r"run_coroutine_threadsafe|is open already"):
            await asyncio.to_thread(asyncio.run, use(batcher))
        loop = asyncio.get_running_loop()
        handed = asyncio.run_coroutine_threadsafe(batcher.add("b@example.com"), loop)
        assert (await asyncio.wrap_future(handed)).total == 1
    assert emulator.reward_counts() == {"b@example.com": 1}
