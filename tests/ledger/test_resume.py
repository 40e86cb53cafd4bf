import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import attrs
import orjson
import pytest

from tests.helpers import BAD, LOST, TARGET, UNAUTHORIZED, USUAL, guests, recording, until
from thanx_async import (
    AsyncBatcher,
    BatchError,
    ConfigurationError,
    ConnectionFailedError,
    Guard,
    InputChangedError,
    LedgerError,
    SQLiteLedger,
    ThanxClient,
)
from thanx_async._batches import BatchOutcome
from thanx_async.emulator import Emulator, Faults, JobSpeed, ScriptedAnswer
from thanx_async.ledger import BatchState

pytestmark = pytest.mark.realtime
CONFLICT = ScriptedAnswer(
    422, b'{"error": {"code": "IDEMPOTENCY_CONFLICT", "message": "used with another body"}}'
)
SOURCE = [*guests(24), "junk", "guest3@example.com", *guests(30, start=24), "unknown@example.com"]


async def interrupted(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger) -> None:
    """A run that stops at the lost answer of its second batch."""
    emulator.script(USUAL, LOST)
    with pytest.raises(BatchError) as caught:
        await recording(client, ledger).issue(SOURCE, run_id="march")
    assert isinstance(caught.value.__cause__, ConnectionFailedError)


def failing(count: int) -> Iterator[str]:
    """A source that fails after so many guests."""
    yield from guests(count)
    raise LookupError


async def mark_revoked(ledger: SQLiteLedger) -> None:
    """As a process leaves it that ends before it revokes."""
    recorded = await ledger.run("march")
    assert recorded is not None
    await ledger.save_run(attrs.evolve(recorded, revoked_at=5.0))


async def slowly(rows: list[str]) -> AsyncIterator[str]:
    for row in rows:
        yield row


@pytest.mark.parametrize("source", [list, iter, slowly])
async def test_first_a_few_then_all(
    emulator: Emulator,
    client: ThanxClient,
    ledger: SQLiteLedger,
    source: Callable[[list[str]], Iterator[str] | AsyncIterator[str]],
) -> None:
    """A limited run goes on after its limit, also if it is stopped then, and nobody gets a second reward."""
    batcher, rows = recording(client, ledger), guests(40)
    run = await batcher.issue(source(rows), run_id="march", limit=13)
    assert (await run.wait()).counts["issued"] == 13
    assert (record := await ledger.run("march")) is not None
    assert record.batches is None
    emulator.script(USUAL, LOST)
    with pytest.raises(BatchError):
        await recording(client, ledger, max_concurrency=1).issue(source(rows), run_id="march")
    report = await (await batcher.issue(source(rows), run_id="march")).wait()
    assert (report.total, report.issued) == (40, 40)
    assert emulator.reward_counts() == dict.fromkeys(rows, 1)
    assert [len(batch.positions) for batch in await ledger.batches("march")] == [10, 3, 10, 10, 7]


async def test_limits_and_ends(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger) -> None:
    """A limit beyond the end is none; a lower limit than before is told; a plan counts up to its limit."""
    batcher = recording(client, ledger)
    assert (await batcher.plan(iter(guests(40)), limit=25)).requests == 3
    await batcher.issue(guests(12), run_id="march", limit=100)
    assert (record := await ledger.run("march")) is not None
    assert record.batches == 2
    with pytest.raises(InputChangedError, match="fewer items were read than before"):
        await batcher.issue(guests(12), run_id="march", limit=5)
    with pytest.raises(ConfigurationError, match="limit must be a whole number from 1"):
        await batcher.issue(guests(12), limit=0)


async def test_a_run_of_which_nothing_was_sent_is_not_complete(
    client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """An input of rejects only, or none at all, does not end a run."""
    batcher = recording(client, ledger)
    await batcher.issue(["junk"], run_id="march")
    assert [row.is_complete for row in await ledger.progress()] == [False]
    assert (record := await ledger.run("march")) is not None
    assert not record.is_complete([])


async def test_a_stopped_run_goes_on(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger) -> None:
    """The same run again sends what is missing, and its report is that of an undisturbed run."""
    await interrupted(emulator, client, ledger)
    accepted = [row for row in await ledger.batches("march") if row.state is BatchState.ACCEPTED]
    run = await recording(client, ledger).issue(SOURCE, run_id="march")
    assert [(handle.start, handle.total) for handle in run.handles[:2]] == [(0, 10), (10, 10)]
    report = await run.wait()
    assert report.counts == {
        "issued": 54,
        "failed": 1,
        "rejected": 1,
        "duplicates": 1,
        "unsent": 0,
        "in_doubt": 0,
        "unfinished": 0,
    }
    assert [(row.position, row.identifier) for row in report.failed] == [(56, "unknown@example.com")]
    assert emulator.reward_counts() == dict.fromkeys(guests(54), 1)
    sent = [request.idempotency_key for request in emulator.requests]
    assert all(sent.count(row.key) == 1 for row in accepted)


async def test_a_complete_run_is_not_even_looked_at(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """Finished jobs are neither sent nor polled again; the report is the same, and so are the handles."""
    first = await (await recording(client, ledger).issue(SOURCE, run_id="march")).wait()
    record = await ledger.run("march")
    assert record is not None
    assert record.total == len(SOURCE)
    assert record.is_complete(await ledger.batches("march"))
    asked = len(emulator.requests)
    run = await recording(client, ledger).issue(SOURCE, run_id="march")
    assert await run.wait() == first
    assert [job.state for job in await asyncio.gather(*run.handles)] == ["completed"] * 6
    resumed = await recording(client, ledger).resume("march")
    report = await resumed.wait()
    assert (report.total, report.issued) == (55, 54)
    assert [(row.position, row.identifier, row.reason) for row in report.failed] == [
        (56, None, "User not found")
    ]
    assert len(emulator.requests) == asked


async def test_resuming_without_the_input(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """What is in doubt is sent again with the recorded bytes; what was never recorded waits for the input."""
    await interrupted(emulator, client, ledger)
    before = len(await ledger.batches("march"))
    looked = await recording(client, ledger).resume("march", replay=False)
    assert [batch.first for batch in looked.in_doubt] == [10]
    run = await recording(client, ledger).resume("march")
    assert run.total == 10 * before
    assert not run.in_doubt
    assert emulator.jobs_accepted == before
    assert (await run.wait()).issued == 10 * before
    record = await ledger.run("march")
    assert record is not None
    assert not record.is_complete(await ledger.batches("march"))


@pytest.mark.parametrize(
    ("change", "batch", "phrase"),
    [
        (lambda rows: [*rows[:13], "other@example.com", *rows[14:]], 1, "batch 1, .* now holds other guests"),
        (lambda rows: rows[1:], 0, "now holds other guests"),
        (lambda rows: ["junk", *rows], 0, "items were added, removed or changed there"),
        (lambda rows: rows[:15], 1, "is now positions 10 to 14"),
        (lambda rows: rows[:10], 1, "the input is shorter"),
        (lambda rows: [], 0, "the input is shorter"),
    ],
)
async def test_another_input_sends_nothing(
    emulator: Emulator,
    client: ThanxClient,
    ledger: SQLiteLedger,
    change: Callable[[list[str]], list[str]],
    batch: int,
    phrase: str,
) -> None:
    """An input that differs from what is recorded is refused, with the place, before anything is sent."""
    await interrupted(emulator, client, ledger)
    asked = len(emulator.requests)
    with pytest.raises(InputChangedError, match=phrase) as caught:
        await recording(client, ledger).issue(change(SOURCE), run_id="march")
    assert (caught.value.batch, caught.value.first) == (batch, 10 * batch)
    assert "@" not in str(caught.value)
    assert len(emulator.requests) == asked
    await recording(client, ledger).issue(SOURCE, run_id="march")
    assert emulator.reward_counts() == dict.fromkeys(guests(54), 1)


async def test_another_input_does_not_unsay_what_was_issued(
    client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """What the ledger knows to be issued is never called unsent, whatever else has changed."""
    await (await recording(client, ledger).issue(guests(40), run_id="march")).wait()
    stream = recording(client, ledger).stream(["other@example.com", *guests(40)[1:]], run_id="march")

    async def changed() -> None:
        async with stream as handles:
            async for _ in handles:
                pass

    with pytest.raises(InputChangedError):
        await changed()
    counts = stream.run.report().counts
    assert (counts["issued"], counts["in_doubt"], counts["unsent"]) == (30, 10, 0)


async def test_a_complete_run_whose_input_has_grown(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """A last batch that was sent when it was smaller cannot be filled up."""
    await recording(client, ledger).issue(guests(15), run_id="march")
    with pytest.raises(InputChangedError, match=r"batch 1, .*the input has grown since"):
        await recording(client, ledger).issue(guests(16), run_id="march")
    assert emulator.jobs_accepted == 2


async def test_an_interrupted_source_is_cut_again(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """What was read and not sent when the source failed goes into a full batch the next time."""
    with pytest.raises(BatchError):
        await recording(client, ledger).issue(failing(15), run_id="march")
    run = await recording(client, ledger).issue(guests(30), run_id="march")
    assert [handle.total for handle in run.handles] == [10, 10, 10]
    assert emulator.reward_counts() == dict.fromkeys(guests(30), 1)


@pytest.mark.parametrize("read", [0, 7, 10, 15, 20, 24])
async def test_stopped_while_the_input_is_read_again(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, read: int
) -> None:
    """Who has a reward from before is never said to be unsent, however far the second reading came."""

    async def stuck() -> AsyncIterator[str]:
        for guest in guests(read):
            yield guest
        reached.set()
        await asyncio.Event().wait()

    async def again() -> None:
        async with stream as handles:
            async for _ in handles:
                pass

    await recording(client, ledger).issue(guests(20), run_id="march")
    reached = asyncio.Event()
    stream = recording(client, ledger).stream(stuck(), run_id="march")
    task = asyncio.create_task(again())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for run in (stream.run, pickle.loads(pickle.dumps(stream.run))):  # noqa: S301 - our own
        report = run.report()
        known = min(read, 20)
        whole = known // 10 * 10
        assert report.total == sum(report.counts.values()) == read
        assert (report.counts["unfinished"], report.counts["in_doubt"]) == (whole, known - whole)
        assert [batch.job_id for batch in report.in_doubt] == [f"job{whole // 10 + 1:06d}"] * (known > whole)
        assert report.counts["unsent"] == read - known


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        ({"batch_size": 20}, "batch_size 20 instead of 10"),
        ({"campaign_id": "camp_def456"}, "campaign_id 'camp_def456' instead of 'camp_abc123'"),
    ],
)
async def test_other_settings_are_refused(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, settings: dict[str, object], phrase: str
) -> None:
    """A known run keeps its target and its cut."""
    await recording(client, ledger).issue(guests(10), run_id="march")
    with pytest.raises(LedgerError, match=phrase):
        await recording(client, ledger, **settings).issue(guests(10), run_id="march")  # type: ignore[arg-type]  # by name
    async with ThanxClient("other", "t", base_url=emulator.url) as other:
        with pytest.raises(LedgerError, match="client_id 'other' instead of 'c'"):
            await recording(other, ledger).resume("march")
    assert len(emulator.requests) == 1


async def test_wrong_use_of_resume(client: ThanxClient, ledger: SQLiteLedger) -> None:
    """An unknown run, and a batcher without a ledger, are said to be so."""
    with pytest.raises(LedgerError, match="no run 'april'"):
        await recording(client, ledger).resume("april")
    with pytest.raises(ConfigurationError, match="needs the ledger"):
        await recording(client, None).resume("march")


async def test_an_old_doubt_is_only_reported(emulator: Emulator, client: ThanxClient, path: Path) -> None:
    """After ``replay_within`` a batch is not sent again, neither with its input nor without; the rest is."""
    async with SQLiteLedger(path) as ledger:
        await interrupted(emulator, client, ledger)
    async with SQLiteLedger(path, replay_within=0) as ledger:
        asked = len(emulator.requests)
        run = await recording(client, ledger).resume("march")
        assert [batch.first for batch in run.in_doubt] == [10]
        assert len(emulator.requests) == asked
        report = await (await recording(client, ledger).issue(SOURCE, run_id="march")).wait()
        assert [(batch.first, batch.count) for batch in report.in_doubt] == [(10, 10)]
        assert report.counts["in_doubt"] + report.issued == 54
        assert [row.state for row in await ledger.batches("march")].count(BatchState.IN_DOUBT) == 1
    assert emulator.reward_counts() == dict.fromkeys(guests(54), 1)


@pytest.mark.parametrize("answer", [UNAUTHORIZED, CONFLICT, BAD])
async def test_a_refused_replay_stays_in_doubt(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, answer: ScriptedAnswer
) -> None:
    """Whatever refuses the second sending, the first may have been accepted."""
    emulator.script(LOST)
    with pytest.raises(BatchError):
        await recording(client, ledger).issue(guests(5), run_id="march")
    emulator.script(answer)
    with pytest.raises(BatchError) if answer is not BAD else nullcontext():
        await recording(client, ledger).resume("march")
    looked = await recording(client, ledger).resume("march", replay=False)
    assert looked.report().counts["in_doubt"] == 5
    assert [row.state for row in await ledger.batches("march")] == [BatchState.IN_DOUBT]
    assert (await recording(client, ledger).resume("march")).report().counts["unfinished"] == 5
    assert emulator.reward_counts() == dict.fromkeys(guests(5), 1)


async def test_what_was_certainly_not_issued_is_forgotten(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, path: Path
) -> None:
    """After a refusal nothing is in doubt, and no guest's data is kept; other guests may take the place."""
    emulator.script(UNAUTHORIZED)
    with pytest.raises(BatchError) as caught:
        await recording(client, ledger).issue(guests(5), run_id="march")
    assert caught.value.run.report().counts["unsent"] == 5
    assert await ledger.batches("march") == []
    assert b"guest" not in path.with_name(path.name + "-bodies").read_bytes()
    await recording(client, ledger).issue(guests(5, start=50), run_id="march")
    assert emulator.reward_counts() == dict.fromkeys(guests(5, start=50), 1)


async def test_a_refused_batch_is_finished(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """A 400 settles a batch for good: it is not sent again, and its guests stay failed with the reason."""
    emulator.script(BAD)
    first = await (await recording(client, ledger).issue(guests(5), run_id="march")).wait()
    again = await (await recording(client, ledger).issue(guests(5), run_id="march")).wait()
    assert again == first
    assert {row.reason for row in again.failed} == {"HTTP 400 BAD_REQUEST: not like this"}
    assert len(emulator.requests) == 1


async def test_a_canary_keeps_the_cut(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger) -> None:
    """A run that was begun with a canary is cut the same way when it goes on without one."""
    emulator.script(USUAL, USUAL, LOST)
    with pytest.raises(BatchError):
        await recording(client, ledger, guard=Guard(canary=3, max_failure_rate=0.5)).issue(
            guests(30), run_id="march"
        )
    run = await recording(client, ledger).issue(guests(30), run_id="march")
    assert [handle.total for handle in run.handles] == [3, 10, 10, 7]
    assert emulator.reward_counts() == dict.fromkeys(guests(30), 1)


@pytest.mark.parametrize(("first", "second", "sizes"), [(None, 3, [3, 10, 10, 7]), (3, None, [10, 10, 10])])
async def test_a_run_without_batches_takes_another_canary(
    emulator: Emulator,
    client: ThanxClient,
    ledger: SQLiteLedger,
    first: int | None,
    second: int | None,
    sizes: list[int],
) -> None:
    """Where nothing was recorded the next start decides on the cut, and with that the run goes on."""
    before, after = (Guard(canary=canary, max_failure_rate=0.5) for canary in (first, second))
    with pytest.raises(BatchError):
        await recording(client, ledger, guard=before).issue(failing(15), run_id="march")
    assert await ledger.batches("march") == []
    for guard in (after, before):
        run = await recording(client, ledger, guard=guard).issue(guests(30), run_id="march")
        assert [handle.total for handle in run.handles] == sizes
    assert emulator.reward_counts() == dict.fromkeys(guests(30), 1)


class Failing(SQLiteLedger):
    """A ledger one of whose methods fails from some call on."""

    method = "record"
    after = 1
    calls = 0

    async def _fail(self, method: str) -> None:
        if method == self.method:
            self.calls += 1
            if self.calls > self.after:
                raise LedgerError("the disk is full")

    async def record(self, *args, **kwargs):  # type: ignore[no-untyped-def]  # passes through
        await self._fail("record")
        return await super().record(*args, **kwargs)

    async def accept(self, *args, **kwargs):  # type: ignore[no-untyped-def]  # passes through
        await self._fail("accept")
        await super().accept(*args, **kwargs)

    async def finish(self, *args, **kwargs):  # type: ignore[no-untyped-def]  # passes through
        await self._fail("finish")
        await super().finish(*args, **kwargs)


@pytest.mark.parametrize("method", ["record", "accept"])
async def test_a_ledger_that_fails_stops_the_run(
    emulator: Emulator, client: ThanxClient, path: Path, method: str
) -> None:
    """What cannot be recorded is not sent; what was accepted is known, and in doubt in the ledger."""
    async with Failing(path) as ledger:
        ledger.method = method
        with pytest.raises(BatchError) as caught:
            await recording(client, ledger).issue(guests(50), run_id="march")
        assert isinstance(caught.value.__cause__, LedgerError)
        run = caught.value.run
        records = await ledger.batches("march")
    counts = run.report().counts
    assert sum(counts.values()) == run.total
    assert counts["in_doubt"] == 0
    assert len(run.handles) == emulator.jobs_accepted == len(records)
    doubts = [row for row in records if row.state is BatchState.IN_DOUBT]
    assert len(doubts) == (0 if method == "record" else len(records) - 1)
    async with SQLiteLedger(path) as ledger:
        await recording(client, ledger).issue(guests(50), run_id="march")
    assert emulator.reward_counts() == dict.fromkeys(guests(50), 1)


async def test_outcomes_that_cannot_be_written(emulator: Emulator, client: ThanxClient, path: Path) -> None:
    """The wait says so, and the report is true all the same."""
    async with Failing(path) as ledger:
        ledger.method, ledger.after = "finish", 0
        run = await recording(client, ledger).issue(guests(5), run_id="march")
        with pytest.raises(LedgerError, match="disk is full"):
            await run.wait()
        assert run.report().issued == 5


async def test_an_empty_run_stays_revoked(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """Other settings do not make a revoked run another one, though nothing was recorded of it."""
    with pytest.raises(BatchError):
        await recording(client, ledger).issue(failing(5), run_id="march")
    await (await recording(client, ledger).resume("march")).revoke()
    other = recording(client, ledger, guard=Guard(canary=3, max_failure_rate=0.5))
    with pytest.raises(LedgerError, match="'march' was revoked"):
        await other.issue(guests(5), run_id="march")
    assert emulator.requests == []


async def test_a_run_that_another_process_revoked(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """What a process remembers of a finished job does not unsay its recorded revocation."""
    run = await recording(client, ledger).issue(guests(20), run_id="march")
    await run.wait()
    async with ThanxClient("c", "t", base_url=emulator.url) as other:
        await (await recording(other, ledger).resume("march")).revoke()
    resumed = await recording(client, ledger).resume("march")
    assert resumed.report().counts["failed"] == 20
    await resumed.wait()
    assert {row.outcome.state for row in await ledger.batches("march") if row.outcome} == {"revoked"}


async def test_a_revoked_run_keeps_what_cannot_be_looked_at(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """What was settled by hand stands, and so does the record of a job that Thanx does not know any more."""
    await (await recording(client, ledger).issue(guests(20), run_id="march")).wait()
    await ledger.finish("march", {0: BatchOutcome("settled by hand", 10, ())})
    await mark_revoked(ledger)
    async with ThanxClient("c", "t", base_url=emulator.url) as later:
        run = await recording(later, ledger).resume("march")
        counts = run.report().counts
        assert (counts["issued"], counts["unfinished"]) == (10, 10)
        emulator.script(ScriptedAnswer(404, b'{"error": {"code": "RESOURCE_NOT_FOUND", "message": "x"}}'))
        assert (await run.wait()).issued == 20


async def test_what_was_settled_by_hand_may_be_revoked(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """Where a process ends between the revocation of such a job and its record, the job is looked at."""
    (handle,) = (await recording(client, ledger).issue(guests(10), run_id="march")).handles
    await handle
    await ledger.finish("march", {0: BatchOutcome("settled by hand", 10, ())})
    await mark_revoked(ledger)
    await handle.revoke()
    async with ThanxClient("c", "t", base_url=emulator.url) as later:
        report = await (await recording(later, ledger).resume("march")).wait()
    assert (report.issued, len(report.failed)) == (0, 10)


async def test_a_revocation_that_was_not_written_down(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger, path: Path
) -> None:
    """Where a process ends between a revocation and its record, the jobs are looked at anew."""
    await (await recording(client, ledger).issue(guests(20), run_id="march")).wait()
    async with Failing(path) as failing:
        failing.method, failing.after = "finish", 0
        run = await recording(client, failing).resume("march")
        with pytest.raises(LedgerError, match="disk is full"):
            await run.revoke()
    assert sum(emulator.reward_counts().values()) == 0
    resumed = await recording(client, ledger).resume("march")
    assert resumed.report().issued == 0
    assert (await resumed.wait()).counts["failed"] == 20
    assert {row.outcome.state for row in await ledger.batches("march") if row.outcome} == {"revoked"}


async def test_values_are_not_kept_where_they_are_not_wanted(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """A run that goes on without values names nobody, and replays what is in doubt all the same."""
    await interrupted(emulator, client, ledger)
    lean = AsyncBatcher(client, **TARGET, batch_size=10, keep_values=False, ledger=ledger)
    for _ in range(2):
        run = await lean.issue(SOURCE, run_id="march")
        assert [row.identifier for row in (await run.wait()).failed] == [None]
    assert emulator.reward_counts() == dict.fromkeys(guests(54), 1)


async def test_a_cancelled_wait_stays_cancelled(path: Path) -> None:
    """A ledger that fails while a wait is being cancelled does not swallow the cancellation."""
    job = {"id": "job000001", "state": "completed", "total_count": 10, "success_count": 10}
    async with (
        Emulator(limits=[], speed=JobSpeed(0.01), id_tag="") as slow,
        ThanxClient("c", "t", base_url=slow.url) as other,
        Failing(path) as ledger,
    ):
        ledger.method, ledger.after = "finish", 0
        run = await recording(other, ledger).issue(guests(20), run_id="march")
        slow.script(ScriptedAnswer(200, orjson.dumps({"issuance_job": job})))
        await run.handles[0]
        assert run.report().issued == 10
        task = asyncio.create_task(run.wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert "the disk is full" in caught.value.__notes__[0]


async def test_cancelled_during_the_request(
    emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger
) -> None:
    """A batch on the wire is in doubt in the error, the account and the ledger, and nothing else is."""
    emulator.faults = Faults(delay=30)
    stream = recording(client, ledger).stream(guests(50), run_id="march")

    async def consume() -> None:
        async with stream as handles:
            async for _ in handles:
                pass

    task = asyncio.create_task(consume())
    await until(lambda: emulator.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    keys = {batch.key for batch in stream.run.in_doubt}
    assert keys == {row.key for row in await ledger.batches("march")}
    assert all(str(key) in caught.value.__notes__[0] for key in keys)
    assert stream.run.report().counts["unsent"] == stream.run.total - 10 * len(keys)


async def test_one_at_a_time(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger) -> None:
    """While a run is issued, nobody else can issue or resume it; afterwards anybody can."""
    batcher = recording(client, ledger)
    async with batcher.stream(guests(30), run_id="march") as handles:
        await anext(handles)
        with pytest.raises(LedgerError, match=r"being worked on by process \d+ on "):
            await recording(client, ledger).issue(guests(30), run_id="march")
        with pytest.raises(LedgerError, match="being worked on"):
            await batcher.resume("march")
    await batcher.issue(guests(30), run_id="march")
    assert emulator.reward_counts() == dict.fromkeys(guests(30), 1)


async def test_a_lost_lease_doubles_nothing(emulator: Emulator, client: ThanxClient, path: Path) -> None:
    """Where a lease has run out under a living run, the other goes on and the first stops."""
    async with SQLiteLedger(path) as one, SQLiteLedger(path) as two:
        stream = recording(client, one, max_concurrency=2).stream(guests(200), run_id="march")

        async def overtaken() -> None:
            async with stream as handles:
                await anext(handles)
                # Then it waits for its consumer, and renews no lease.
                await until(lambda: len(stream.run.handles) >= 5, pause=0)
                store = two._store
                assert store is not None
                store._db.execute("UPDATE runs SET owned_until = 0")
                await recording(client, two).issue(guests(200), run_id="march")
                async for _ in handles:
                    pass

        with pytest.raises(BatchError, match="taken over by another process"):
            await overtaken()
        assert sum(stream.run.report().counts.values()) == stream.run.total
        records = await two.batches("march")
    assert [row.state for row in records] == [BatchState.ACCEPTED] * 20
    assert emulator.reward_counts() == dict.fromkeys(guests(200), 1)
