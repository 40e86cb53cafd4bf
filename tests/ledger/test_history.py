"""What a ledger forgets, what it never forgets, and how its runs are counted."""

import sqlite3
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from tests.helpers import TARGET
from tests.ledger.test_store import BODY, RUN, batch
from thanx_async import AsyncBatcher, ConfigurationError, LedgerError, SQLiteLedger, ThanxClient
from thanx_async._batches import SERVICE_RUNS
from thanx_async.ledger import BatchOutcome

pytestmark = pytest.mark.realtime
DONE = BatchOutcome("completed", 2, ((1, "User not found"),))
SERVICE = attrs.evolve(RUN, run_id=f"{SERVICE_RUNS}{'0' * 32}")


def change(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(sql, values)


async def sent(ledger: SQLiteLedger, run_id: str, batches: int, *, finished: int) -> None:
    """A run with so many batches, the first of which are finished, the others in doubt."""
    await ledger.claim(attrs.evolve(RUN, run_id=run_id))
    for number in range(batches):
        await ledger.record(attrs.evolve(batch(number), run_id=run_id), BODY)
        if number < finished:
            await ledger.accept(run_id, number, f"{run_id}-{number}")
    await ledger.finish(run_id, dict.fromkeys(range(finished), DONE))


async def test_forgetting_that_fails_is_no_harm(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing can be deleted the ledger works all the same, and says so in the log."""
    async with SQLiteLedger(path) as ledger:
        await sent(ledger, "march", 2, finished=2)
        await ledger.save_run(attrs.evolve(RUN, total=10, batches=2))
    change(path, "CREATE TRIGGER keep BEFORE DELETE ON batches BEGIN SELECT RAISE(ABORT, 'kept'); END")
    async with SQLiteLedger(path, keep_for=0):
        pass
    assert "finished runs were not forgotten" in caplog.text


async def test_a_service_by_its_batcher(client: ThanxClient, path: Path) -> None:
    """The runs that `add` makes are known for what they are."""
    async with SQLiteLedger(path) as ledger:
        async with AsyncBatcher(client, **TARGET, ledger=ledger) as batcher:
            await (await batcher.add("jane@example.com")).wait()
        assert [row.finished + row.accepted for row in await ledger.progress()] == [1]
        change(path, "UPDATE batches SET state = 'finished', outcome = ?", DONE.packed())
    async with SQLiteLedger(path, keep_for=0) as ledger:
        assert await ledger.runs() == []


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
