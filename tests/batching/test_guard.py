import asyncio
from collections.abc import AsyncIterator, Iterator

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import FAST, LOST, UNAUTHORIZED, USUAL, batcher, guests, impatient, recording
from thanx_async import (
    AsyncBatcher,
    BatchError,
    ConfigurationError,
    Guard,
    GuardError,
    LedgerError,
    LocalRateLimiter,
    RateLimit,
    RetryPolicy,
    SQLiteLedger,
    ThanxClient,
)
from thanx_async.batching._guard import check_failures
from thanx_async.emulator import Emulator, Faults, JobSpeed, ScriptedAnswer

SECOND_HANGS = Faults(seed=5, job_hangs=0.5)
UNKNOWN = [f"unknown{number}@example.com" for number in range(100)]


@pytest.fixture
async def emulator(soon: None) -> AsyncIterator[Emulator]:
    async with Emulator(limits=[], speed=FAST, id_tag="") as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    async with impatient(emulator.url) as opened:
        yield opened


def guarded(client: ThanxClient, guard: Guard) -> AsyncBatcher:
    return recording(client, None, guard=guard)


@pytest.mark.parametrize(
    ("fields", "phrase"),
    [
        ({"max_rewards": -1}, r"Guard\.max_rewards must be a whole number from 0, not -1"),
        ({"canary": 0, "max_failure_rate": 0.1}, "canary must be a whole number from 1 to 10,000, not 0"),
        (
            {"canary": 10_001, "max_failure_rate": 0.1},
            "canary must be a whole number from 1 to 10,000, not 10,001",
        ),
        ({"max_failure_rate": 1.5}, "max_failure_rate must be a number from 0 to 1, not 1.5"),
        ({"canary": 10}, "canary needs max_failure_rate"),
        ({"max_rewards": "many"}, "max_rewards must be a whole number from 0, not str"),
    ],
)
def test_wrong_guards(fields: dict[str, float], phrase: str) -> None:
    """An unusable guard names its field."""
    with pytest.raises(ConfigurationError, match=phrase):
        Guard(**fields)  # type: ignore[arg-type]  # wrong on purpose


async def test_rewards_stay_below_the_maximum(emulator: Emulator, client: ThanxClient) -> None:
    """Nothing is sent once the next batch could exceed the maximum; the rest is unsent."""
    with pytest.raises(BatchError, match="max_rewards is 25: 20 guests") as caught:
        await guarded(client, Guard(max_rewards=25)).issue(guests(100))
    assert isinstance(caught.value.__cause__, GuardError)
    counts = caught.value.run.report().counts
    assert counts["unsent"] == caught.value.run.total - 20
    assert sum(emulator.reward_counts().values()) == 20
    run = await guarded(client, Guard(max_rewards=20)).issue(guests(20, start=500))
    assert len(run.handles) == 2


@settings(max_examples=40)  # each example opens sockets, on a machine that may be busy
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 20))
def test_the_maximum_is_never_exceeded(maximum: int, count: int, size: int) -> None:
    """Whatever the sizes: at most the maximum is issued, and everything where it suffices."""

    async def check() -> None:
        async with (
            Emulator(limits=[]) as emulator,
            ThanxClient(
                "c", "t", base_url=emulator.url, limiter=LocalRateLimiter([RateLimit(10_000, 1)])
            ) as client,
        ):
            sender = recording(client, None, batch_size=size, guard=Guard(max_rewards=maximum))
            try:
                await sender.issue(guests(count))
                assert count <= maximum
            except BatchError:
                assert count > maximum
            issued = sum(emulator.reward_counts().values())
            assert issued == min(count, maximum // size * size if count > maximum else count)

    asyncio.run(check())


@pytest.mark.realtime
async def test_the_maximum_counts_what_went_before(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """A run that goes on counts what earlier processes sent, in doubt or not."""
    emulator.script(USUAL, LOST)
    with pytest.raises(BatchError):
        await recording(client, ledger, max_concurrency=1).issue(guests(100), run_id="march")
    with pytest.raises(BatchError, match="max_rewards is 40"):
        await recording(client, ledger, guard=Guard(max_rewards=40)).issue(guests(100), run_id="march")
    assert emulator.reward_counts() == dict.fromkeys(guests(40), 1)


async def test_a_good_canary_lets_the_run_go_on(emulator: Emulator, client: ThanxClient) -> None:
    """The first batch has the canary's size, and its job is finished before anything else is sent."""
    run = await guarded(client, Guard(canary=4, max_failure_rate=0.3)).issue([UNKNOWN[0], *guests(29)])
    assert [handle.total for handle in run.handles] == [4, 10, 10, 6]
    paths = [request.path for request in emulator.requests]
    assert paths[0].endswith("/issue")
    assert paths[1].endswith(run.handles[0].id)
    assert (await run.wait()).issued == 29


async def test_a_bad_canary_stops_the_run(emulator: Emulator, client: ThanxClient) -> None:
    """More failures than allowed among the first guests: nobody else is sent."""
    with pytest.raises(
        BatchError, match=r"50\.0%\): 3 of 4 guests|max_failure_rate is 50\.0%: 3 of 4"
    ) as caught:
        await guarded(client, Guard(canary=4, max_failure_rate=0.5)).issue([*UNKNOWN[:3], *guests(100)])
    report = caught.value.run.report()
    assert (report.issued, len(report.failed)) == (1, 3)
    assert report.counts["unsent"] == report.total - 4
    assert emulator.jobs_accepted == 1


async def test_a_canary_that_tells_nothing_stops_the_run(emulator: Emulator, client: ThanxClient) -> None:
    """Numbers that do not name the failed leave the canary in doubt, and nothing more is sent."""
    job = {"id": "job000001", "state": "completed", "total_count": 4, "success_count": 1}
    emulator.script(USUAL, ScriptedAnswer(200, orjson.dumps({"issuance_job": job})))
    with pytest.raises(BatchError, match="cannot be told") as caught:
        await guarded(client, Guard(canary=4, max_failure_rate=1)).issue(guests(100))
    assert caught.value.run.report().counts["in_doubt"] == 4
    assert emulator.jobs_accepted == 1


async def test_a_lost_canary_stops_the_run(emulator: Emulator, client: ThanxClient) -> None:
    """A canary without an answer ends the run as any other batch does."""
    emulator.script(LOST)
    with pytest.raises(BatchError) as caught:
        await guarded(client, Guard(canary=4, max_failure_rate=1)).issue(guests(100))
    assert caught.value.run.report().counts["in_doubt"] == 4
    assert len(emulator.requests) == 1


@pytest.mark.realtime
async def test_a_bad_canary_is_remembered(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """The same run with the same guard is stopped by the recorded outcome, without a request."""
    guard = Guard(canary=4, max_failure_rate=0.5)
    for _ in range(2):
        with pytest.raises(BatchError, match="3 of 4"):
            await recording(client, ledger, guard=guard).issue([*UNKNOWN[:3], *guests(100)], run_id="march")
        asked = len(emulator.requests)
    assert len(emulator.requests) == asked
    assert emulator.jobs_accepted == 1


async def test_failures_are_watched_during_the_run() -> None:
    """A list that turns bad in the middle is stopped there, though nobody waits for the jobs."""

    def turning() -> Iterator[str]:
        yield from guests(200)
        for number in range(100_000):
            yield f"unknown{number}@example.com"

    async with (
        Emulator(speed=JobSpeed(1000, 0.1)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        sender = guarded(client, Guard(max_failure_rate=0.25))
        with pytest.raises(BatchError, match=r"max_failure_rate is 25\.0%") as caught:
            await sender.issue(turning())
        run = caught.value.run
        assert 27 <= len(run.handles) < 100
        assert sum(run.report().counts.values()) == run.total


@pytest.mark.parametrize("seed", range(8))
async def test_jobs_that_hang_do_not_blind_the_guard(seed: int) -> None:
    """Where some jobs never end, those that do are seen in time."""
    async with (
        Emulator(speed=JobSpeed(1000, 0.1), faults=Faults(seed=seed, job_hangs=0.3)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        sender = guarded(client, Guard(max_failure_rate=0.25))
        unknown = (f"unknown{number}@example.com" for number in range(100_000))
        with pytest.raises(BatchError, match=r"max_failure_rate is 25\.0%") as caught:
            await sender.issue(unknown)
        assert len(caught.value.run.handles) < 300  # of 10,000


async def test_jobs_that_fail_partway_count() -> None:
    """Where a job tells how many got no reward, and not who, they are in doubt, and failures all the same."""
    async with (
        Emulator(speed=JobSpeed(1000, 0.1), faults=Faults(job_fails=1)) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        sender = recording(client, None, batch_size=100, guard=Guard(max_failure_rate=0.25))
        with pytest.raises(BatchError, match=r"max_failure_rate is 25\.0%") as caught:
            await sender.issue(guests(10_000))
        run = caught.value.run
        assert len(run.handles) < 50  # of 100
        assert run.report().counts["in_doubt"]


async def test_jobs_that_tell_nothing_do_not_count(emulator: Emulator, client: ThanxClient) -> None:
    """A job without numbers is no success, in whose company failures would weigh less."""
    run = await batcher(client).issue([*UNKNOWN[:6], *guests(24)])
    silent = b'{"issuance_job": {"id": "%b", "state": "failed", "total_count": 10}}'
    for handle, answer in zip(run.handles, [None, silent, silent], strict=True):
        if answer:
            emulator.script(ScriptedAnswer(200, answer % handle.id.encode()))
        await handle
    run.report()
    total = run._account.tally.sum
    with pytest.raises(GuardError, match="6 of 10 guests in finished jobs"):
        check_failures(Guard(max_failure_rate=0.5), failed=total.ended_failed, ended=total.ended)


async def test_jobs_that_others_look_at_are_seen(emulator: Emulator, client: ThanxClient) -> None:
    """The guard counts what the consumer has looked at, also while all of its own looks hang."""
    unknown = (f"unknown{number}@example.com" for number in range(10_000))
    stream = guarded(client, Guard(max_failure_rate=0.25)).stream(unknown)
    emulator.faults = Faults(job_hangs=1)

    async def consume() -> None:
        async with stream as handles:
            async for handle in handles:
                if len(handles.run.handles) >= 8:
                    emulator.faults = Faults()
                await asyncio.sleep(0.05)
                await handle.refresh()

    with pytest.raises(BatchError, match="max_failure_rate"):
        await consume()
    assert len(stream.run.handles) < 60  # of 1,000


async def test_a_watched_run_is_not_held_up(client: ThanxClient) -> None:
    """Watching does not keep `issue` from returning once all is accepted."""
    async with (
        Emulator(limits=[], speed=JobSpeed(0.01)) as slow,
        ThanxClient("c", "t", base_url=slow.url) as other,
    ):
        run = await guarded(other, Guard(max_failure_rate=0.1)).issue(guests(30))
        assert run.report().counts["unfinished"] == 30


async def test_a_failing_watch_ends_the_run(emulator: Emulator) -> None:
    """A guard that cannot look any more does not let the run go on blindly."""
    async with ThanxClient("c", "t", base_url=emulator.url, retry=RetryPolicy(max_attempts=1)) as client:
        stream = guarded(client, Guard(max_failure_rate=0.5)).stream(guests(100_000))

        async def consume() -> None:
            async with stream as handles:
                async for _ in handles:
                    if handles.run.report().issued:
                        emulator.script(*[UNAUTHORIZED] * 50)

        with pytest.raises(BatchError, match="HTTP 401"):
            await consume()
        assert sum(stream.run.report().counts.values()) == stream.run.total


async def test_revoking_takes_everything_back(emulator: Emulator, client: ThanxClient) -> None:
    """Jobs that still run are waited for, and the account says what has become of the guests."""
    run = await batcher(client).issue([*guests(25), UNKNOWN[0]])
    report = await run.revoke()
    assert (report.rewards, len(report.revoked), report.not_revoked) == (25, 3, [])
    assert sum(emulator.reward_counts().values()) == 0
    again = await run.revoke()
    assert (again.rewards, len(again.revoked)) == (0, 3)
    counts = (await run.wait()).counts
    assert counts["failed"] == sum(counts.values()) == 26


@pytest.mark.realtime
async def test_a_revoked_run_is_not_issued_further(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """The ledger remembers a revocation; what is in doubt is neither sent nor called taken back."""
    emulator.script(USUAL, LOST)
    with pytest.raises(BatchError) as caught:
        await recording(client, ledger).issue(guests(30), run_id="march")
    accepted = len(caught.value.run.handles)
    run = await recording(client, ledger).resume("march", replay=False)
    report = await run.revoke()
    assert report.rewards == 10 * accepted
    assert [(left.batch.first, left.reason) for left in report.not_revoked] == [
        (10, "it is not known which job issued it")
    ]
    with pytest.raises(LedgerError, match="was revoked; give another run_id"):
        await recording(client, ledger).issue(guests(30), run_id="march")
    looked = await recording(client, ledger).resume("march")
    assert looked.report().counts == report_of(revoked=10 * accepted, in_doubt=10)
    assert sum(emulator.reward_counts().values()) == 10


def report_of(*, revoked: int, in_doubt: int) -> dict[str, int]:
    empty = dict.fromkeys(("issued", "rejected", "duplicates", "unsent", "unfinished"), 0)
    return {**empty, "failed": revoked, "in_doubt": in_doubt}


async def states(ledger: SQLiteLedger) -> list[str | None]:
    """How the jobs of the run have ended, as is recorded."""
    return [row.outcome.state if row.outcome else None for row in await ledger.batches("march")]


@pytest.mark.realtime
async def test_a_revocation_that_is_broken_off(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """What was taken back until then is written down, and the run can be taken up again."""
    emulator.faults = SECOND_HANGS
    run = await recording(client, ledger, max_concurrency=1).issue(guests(20), run_id="march")
    job = await run.handles[0]
    assert run.report().issued == 10
    await run.wait(timeout=0)
    assert await states(ledger) == ["completed", None]
    revoking = asyncio.create_task(run.revoke())
    while job.state != "revoked":
        await asyncio.sleep(0.01)
        job = run.handles[0].job or job
    revoking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await revoking
    assert await states(ledger) == ["revoked", None]
    counts = (await recording(client, ledger).resume("march")).report().counts
    assert (counts["failed"], counts["unfinished"]) == (10, 10)


@pytest.mark.realtime
async def test_a_run_that_is_issued_is_not_revoked(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """Nothing is taken back while somebody still issues."""
    async with recording(client, ledger).stream(guests(30), run_id="march") as handles:
        await anext(handles)
        with pytest.raises(LedgerError, match="being worked on"):
            await handles.run.revoke()
    assert sum(emulator.reward_counts().values()) > 0


async def test_a_lost_answer_to_a_revocation_is_looked_up(emulator: Emulator, client: ThanxClient) -> None:
    """A revocation that worked although its answer was lost counts; one that did not is reported."""
    run = await batcher(client).issue(guests(5))
    await run.wait()
    emulator.script(LOST)
    assert (await run.revoke()).rewards == 5
    other = await batcher(client).issue(guests(5, start=50))
    await other.wait()
    emulator.script(ScriptedAnswer(fault="reset_before"))
    report = await other.revoke()
    assert report.rewards == 0
    assert "broke before the answer" in report.not_revoked[0].reason
    job = {"id": other.handles[0].id, "state": "completed", "success_count": 5}
    emulator.script(ScriptedAnswer(202, orjson.dumps({"issuance_job": job})))
    assert [left.reason for left in (await other.revoke()).not_revoked] == ["the job is completed"]


async def test_whoever_had_no_reward_is_not_told_of_a_revocation(
    emulator: Emulator, client: ThanxClient
) -> None:
    """A revoked job says nothing of its failures any more: what it said before stands."""
    run = await batcher(client).issue(["unknown@example.com", *guests(2)])
    (handle,) = run.handles
    silent = b'{"issuance_job": {"id": "%b", "state": "revoked", "total_count": 3, "success_count": 2}}'
    await handle.wait()
    emulator.script(ScriptedAnswer(202, silent % handle.id.encode()))
    await run.revoke()
    reasons = {row.position: row.reason for row in run.report().failed}
    assert reasons[0] == "User not found"
    assert reasons[1] == reasons[2] == "reward revoked"
