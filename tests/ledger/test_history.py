"""What a ledger forgets, what it never forgets, and how its runs are counted."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from time import time

import attrs
import pytest

from tests.helpers import TARGET, guests, recording
from tests.ledger.test_store import BODY, RUN, batch
from thanx_async import AsyncBatcher, BatchError, ConfigurationError, LedgerError, SQLiteLedger, ThanxClient
from thanx_async._batches import SERVICE_RUNS
from thanx_async.emulator import Emulator
from thanx_async.ledger import BatchOutcome, BatchState, RunProgress

pytestmark = pytest.mark.realtime
DONE = BatchOutcome("completed", 2, ((1, "User not found"),))
SERVICE = attrs.evolve(RUN, run_id=f"{SERVICE_RUNS}{'0' * 32}")


def change(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(sql, values)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thanx_async.ledger._sqlite_history._CHUNK", 3)


def rows(path: Path) -> tuple[int, int]:
    """How many runs and batches are in the file."""
    with closing(sqlite3.connect(path)) as db:
        count = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM batches)"
        runs, batches = db.execute(count).fetchone()
    return runs, batches


async def sent(ledger: SQLiteLedger, run_id: str, batches: int, *, finished: int) -> None:
    """A run with so many batches, the first of which are finished, the others in doubt."""
    await ledger.claim(attrs.evolve(RUN, run_id=run_id))
    for number in range(batches):
        await ledger.record(attrs.evolve(batch(number), run_id=run_id), BODY)
        if number < finished:
            await ledger.accept(run_id, number, f"{run_id}-{number}")
    await ledger.finish(run_id, dict.fromkeys(range(finished), DONE))


async def test_complete_runs_are_forgotten(path: Path) -> None:
    """After its time a complete run is gone, whatever its size, and its id is refused, since issuing it again
    would be a second reward for everybody."""
    async with SQLiteLedger(path) as ledger:
        await sent(ledger, "march", 10, finished=10)
        await ledger.save_run(attrs.evolve(RUN, total=10, batches=10))
    async with SQLiteLedger(path) as ledger:
        assert len(await ledger.runs()) == 1
    async with SQLiteLedger(path, keep_for=timedelta()) as ledger:
        assert await ledger.runs() == []
        assert await ledger.progress() == []
        assert await ledger.run("march") is None
        assert rows(path) == (0, 0)
        with pytest.raises(LedgerError, match=r"'march' was complete on 20.*give another run_id"):
            await ledger.claim(RUN)


async def test_what_is_not_complete_is_kept(path: Path) -> None:
    """Whoever goes on with a run needs all of its batches, the finished ones too, however old they are."""
    async with SQLiteLedger(path) as ledger:
        await sent(ledger, "unsent", 2, finished=2)
        await sent(ledger, "doubtful", 2, finished=1)
        await ledger.save_run(attrs.evolve(RUN, run_id="doubtful", total=10, batches=2))
        await sent(ledger, "short", 2, finished=2)
        await ledger.save_run(attrs.evolve(RUN, run_id="short", total=10, batches=3))
    async with SQLiteLedger(path, keep_for=0) as ledger:
        assert {run.run_id for run in await ledger.runs()} == {"unsent", "doubtful", "short"}
        assert rows(path) == (3, 6)


async def test_a_run_that_is_worked_on_is_kept(path: Path) -> None:
    """Nobody forgets what another process has claimed."""
    async with SQLiteLedger(path) as ledger:
        await sent(ledger, "march", 2, finished=2)
        await ledger.save_run(attrs.evolve(RUN, total=10, batches=2))
        async with SQLiteLedger(path, keep_for=0) as other:
            assert len(await other.batches("march")) == 2


async def test_services_forget_as_they_go(path: Path) -> None:
    """Of a service that runs on, finished batches go after their time, in chunks, and what is in doubt stays;
    once the service is over and nothing is left, its run goes."""
    async with SQLiteLedger(path) as ledger:
        await sent(ledger, SERVICE.run_id, 10, finished=10)
        await ledger.record(attrs.evolve(batch(10), run_id=SERVICE.run_id), BODY)
        old = time() - 100
        change(path, "UPDATE runs SET created_at = ?, changed_at = ?", old, old)
        change(path, "UPDATE batches SET recorded_at = ? WHERE number != 9", old)
        async with SQLiteLedger(path, keep_for=50) as other:
            left = [row.number for row in await other.batches(SERVICE.run_id)]
        assert left == [9, 10]
        await ledger.withdraw(SERVICE.run_id, 10)
        change(path, "UPDATE batches SET recorded_at = ?", old)
    async with SQLiteLedger(path, keep_for=50) as ledger:
        assert await ledger.runs() == []


async def test_it_forgets_by_the_hour(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that stays open goes on forgetting."""
    monkeypatch.setattr("thanx_async.ledger._sqlite._RENEWS_EVERY", 0.01)
    monkeypatch.setattr("thanx_async.ledger._sqlite._FORGETS_EVERY", 0.02)
    async with SQLiteLedger(path, keep_for=0) as ledger:
        await sent(ledger, "march", 2, finished=2)
        await ledger.save_run(attrs.evolve(RUN, total=10, batches=2))
        await ledger.release("march")
        while await ledger.runs():
            await asyncio.sleep(0.01)


async def test_forgetting_that_fails_is_no_harm(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can be deleted the ledger works all the same, and says so in the log."""
    async with SQLiteLedger(path) as ledger:
        await sent(ledger, "march", 2, finished=2)
        await ledger.save_run(attrs.evolve(RUN, total=10, batches=2))
    change(path, "CREATE TRIGGER keep BEFORE DELETE ON batches BEGIN SELECT RAISE(ABORT, 'kept'); END")
    async with SQLiteLedger(path, keep_for=0):
        pass
    assert "finished runs were not forgotten" in caplog.text


@pytest.mark.parametrize("keep_for", [-1, "90", None, timedelta(days=-1)])
def test_a_time_that_cannot_be(path: Path, keep_for: float) -> None:
    """An impossible time is refused by name."""
    with pytest.raises(ConfigurationError, match="keep_for must be a number from 0"):
        SQLiteLedger(path, keep_for=keep_for)


async def test_an_issued_file_is_not_issued_again(
    emulator: Emulator, client: ThanxClient, path: Path
) -> None:
    """A run id that was forgotten is refused before anything is sent."""
    async with SQLiteLedger(path) as ledger:
        await (await recording(client, ledger).issue(guests(20), run_id="march")).wait()
    async with SQLiteLedger(path, keep_for=0) as ledger:
        with pytest.raises((LedgerError, BatchError), match="has forgotten its batches"):
            await recording(client, ledger).issue(guests(20), run_id="march")
    assert set(emulator.reward_counts().values()) == {1}


async def test_a_service_by_its_batcher(client: ThanxClient, path: Path) -> None:
    """The runs that `add` makes are known for what they are."""
    async with SQLiteLedger(path) as ledger:
        async with AsyncBatcher(client, **TARGET, ledger=ledger) as batcher:
            await (await batcher.add("jane@example.com")).wait()
        assert [row.finished + row.accepted for row in await ledger.progress()] == [1]
        change(path, "UPDATE batches SET state = 'finished', outcome = ?", DONE.packed())
    async with SQLiteLedger(path, keep_for=0) as ledger:
        assert await ledger.runs() == []


async def test_runs_are_counted_by_the_database(ledger: SQLiteLedger) -> None:
    """Its counts are those of the batches, for every state, and a job leads to its batch."""
    await sent(ledger, "march", 4, finished=2)
    await ledger.accept("march", 2, "job3")
    await ledger.finish("march", {1: BatchOutcome("revoked", 0)})
    await ledger.claim(attrs.evolve(RUN, run_id="april"))
    found = {row.run.run_id: row for row in await ledger.progress()}
    assert found["april"] == RunProgress(found["april"].run, 0, 0, 0, 0, 0)
    march = found["march"]
    assert march == RunProgress(march.run, in_doubt=1, accepted=1, finished=2, issued=2, to_take_back=2)
    assert march == RunProgress.of(march.run, await ledger.batches("march"))
    batch_of_job = await ledger.batch_of("job3")
    assert batch_of_job is not None
    assert (batch_of_job.number, batch_of_job.state) == (2, BatchState.ACCEPTED)
    assert await ledger.batch_of("nobody's") is None


async def read_all(ledger: SQLiteLedger) -> None:
    await ledger.batches("march")
    await ledger.runs()
    await ledger.claim(RUN)


FAILED = '{"state": "a", "issued": 1, "failures": {"x": [9]}}'


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("UPDATE batches SET state = 'lost'", "batch 0 of run 'march'"),
        ("UPDATE batches SET outcome = '{'", "batch 0"),
        ('UPDATE batches SET outcome = \'{"state": 1, "issued": 1, "failures": {}}\'', "batch 0"),
        ('UPDATE batches SET outcome = \'{"state": "a", "issued": -1, "failures": {}}\'', "batch 0"),
        ('UPDATE batches SET outcome = \'{"state": "a", "issued": 1, "failures": {"x": [9]}}\'', "batch 0"),
        ("UPDATE batches SET outcome = NULL", "batch 0"),
        ("UPDATE batches SET state = 'accepted', outcome = NULL, job_id = NULL", "batch 0"),
        ("UPDATE batches SET gaps = x'01'", "batch 0"),
        ("UPDATE batches SET count = 'many'", "batch 0"),
        ("UPDATE batches SET first = 'none'", "batch 0"),
        ("UPDATE batches SET recorded_at = 'once'", "batch 0"),
        ("UPDATE batches SET key = x'00'", "batch 0"),
        ("UPDATE runs SET batch_size = 'ten'", "run 'march'"),
        ("UPDATE runs SET base_url = x'ff'", "run 'march'"),
        ("UPDATE runs SET created_at = 'once'", "run 'march'"),
        ("UPDATE runs SET owner = 'me', owned_until = 9e99", "the lease of run 'march'"),
    ],
)
async def test_damaged_rows(path: Path, sql: str, what: str) -> None:
    """A row that cannot be is named as damage, not as an error of Python."""
    async with SQLiteLedger(path) as ledger:
        await sent(ledger, "march", 1, finished=1)
    change(path, sql)
    async with SQLiteLedger(path) as ledger:
        with pytest.raises(LedgerError, match=f"{what}.* is damaged; restore"):
            await read_all(ledger)


@pytest.mark.parametrize("place", ["here", -1, 2**40, 2**63 - 1])
async def test_a_damaged_place(path: Path, place: object) -> None:
    """A place of bytes that cannot be is named as damage when the ledger is opened."""
    async with SQLiteLedger(path) as ledger:
        await sent(ledger, "march", 1, finished=0)
    change(path, "UPDATE batches SET slot = ?", place)
    with pytest.raises(LedgerError, match="the place of a batch in doubt is damaged"):
        await SQLiteLedger(path).__aenter__()


@pytest.mark.parametrize("size", ["long", -1, 2**40, 2**63 - 1])
async def test_a_damaged_length(path: Path, size: object) -> None:
    """A length of bytes that cannot be is named as damage, where they are read and where they are wiped."""
    async with SQLiteLedger(path) as ledger:
        await sent(ledger, "march", 1, finished=0)
    change(path, "UPDATE batches SET size = ?", size)
    async with SQLiteLedger(path) as ledger:
        with pytest.raises(LedgerError, match="batch 0 of run 'march' is damaged"):
            await ledger.body("march", 0)
        await ledger.claim(RUN)
        with pytest.raises(LedgerError, match="the place of a batch is damaged"):
            await ledger.finish("march", {0: DONE})


async def test_ids_that_are_no_text(path: Path) -> None:
    """Half of a surrogate pair, which SQLite cannot hold, is a usage error."""
    async with SQLiteLedger(path) as ledger:
        for call in (ledger.run, ledger.batches, ledger.batch_of):
            with pytest.raises(ConfigurationError, match="not valid text"):
                await call("march\ud800")
