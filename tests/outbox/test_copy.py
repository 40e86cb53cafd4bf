"""Outboxes that move from a file to PostgreSQL."""

import sqlite3
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from tests.helpers import TARGET, Target, guests, issuing, until
from tests.ledger.test_store import BODY, RUN, batch
from tests.outbox.test_conformance import drain, draining, states
from thanx_async import ConfigurationError, LedgerError, SQLiteLedger, SQLiteOutbox, ThanxClient
from thanx_async._batches import batch_key
from thanx_async._core.postgres import Database
from thanx_async.emulator import Emulator, Faults
from thanx_async.errors import LeaseError
from thanx_async.ledger import BatchOutcome, Trust
from thanx_async.postgres import Copied, PostgresLedger, PostgresOutbox, copy_outbox, init

pytestmark = pytest.mark.realtime


@pytest.fixture
async def database_dsn(dsn: str) -> str:
    """The DSN of a database with empty tables."""
    await init(dsn)
    return dsn


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


def in_file(path: Path, emulator: Emulator) -> SQLiteOutbox:
    return SQLiteOutbox(path, **TARGET, client_id="c", base_url=emulator.url)


def in_database(dsn: str, emulator: Emulator, target: Target = TARGET) -> PostgresOutbox:
    return PostgresOutbox(dsn, **target, client_id="c", base_url=emulator.url)


OTHER = Target(campaign_id="camp_def456", merchant_id=TARGET["merchant_id"], variant_id="var_treat2")
IDS = ("failed", "issued", "doubtful", "cancelled", "waiting")
"""One guest in each state, with the state as the id."""


@pytest.fixture
async def filled(path: Path, emulator: Emulator, client: ThanxClient) -> str:
    """A file with guests in each state, and a run that is not complete. Returns the key of the doubt."""
    async with in_file(path, emulator) as outbox:
        await outbox.put("unknown@example.com", id="failed")
        await outbox.put("issued@example.com", id="issued")
        await drain(outbox, client)
        await outbox.put("doubtful@example.com", id="doubtful")
        emulator.faults = Faults(answer_lost=1)
        async with draining(outbox, client):
            await until(lambda: len(issuing(emulator)) == 2)
        emulator.faults = Faults()
        await outbox.put("cancelled@example.com", id="cancelled")
        await outbox.cancel("cancelled")
        await outbox.put("waiting@example.com", id="waiting")
        assert await states(outbox, *IDS) == ["failed", "issued", "in_doubt", "cancelled", "waiting"]
        key = (await outbox.outcome("doubtful", timeout=0)).idempotency_key
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(RUN)
        for number in range(3):
            await ledger.record(batch(number), BODY)
        await ledger.accept("march", 0, "job0")
        await ledger.accept("march", 1, "job1")
        await ledger.finish("march", {1: BatchOutcome("revoked", 0, ((0, "a\0b"),))})
    assert key
    return key


async def test_everything_moves(
    filled: str, path: Path, database_dsn: str, emulator: Emulator, client: ThanxClient
) -> None:
    """Every id, batch, key and body is the same afterwards, beside outboxes that the database has already."""
    async with SQLiteLedger(path) as ledger:
        before = await ledger.batches("march")
        march = await ledger.run("march")
    async with in_database(database_dsn, emulator, OTHER) as other:
        await other.put_many((guest, guest) for guest in guests(30))
        await drain(other, client)
        assert await copy_outbox(path, database_dsn) == Copied(runs=2, batches=5, guests=5, waiting=1)
        assert set(await states(other, *guests(30))) == {"issued"}
    async with PostgresLedger(database_dsn) as moved:
        assert await moved.batches("march") == before
        assert await moved.run("march") == march
        assert await moved.body("march", 2) == BODY
        [row] = [row for row in await moved.progress() if row.run.run_id == "march"]
        assert (row.in_doubt, row.accepted, row.finished, row.to_take_back) == (1, 1, 1, 1)
    async with in_database(database_dsn, emulator) as outbox:
        assert await states(outbox, *IDS) == ["failed", "issued", "in_doubt", "cancelled", "waiting"]
        assert (await outbox.outcome("failed")).reason
        assert not await outbox.put("issued@example.com", id="issued")
        assert await outbox.put("new@example.com", id="new")
        await drain(outbox, client)
        assert await states(outbox, "doubtful", "waiting", "new") == ["issued"] * 3
        assert (await outbox.outcome("doubtful")).idempotency_key == filled
        assert (await outbox.outcome("waiting")).idempotency_key == batch_key(outbox.lane.run.run_id, 2)
    names = ["issued@example.com", "doubtful@example.com", "waiting@example.com", "new@example.com"]
    assert emulator.reward_counts() == dict.fromkeys([*guests(30), *names], 1)


async def test_the_file_is_not_used_any_more(
    path: Path, database_dsn: str, emulator: Emulator, client: ThanxClient
) -> None:
    """A process that has the file open, or opens it, or puts in a transaction of its own, is told."""
    async with in_file(path, emulator) as outbox:
        await outbox.put("jane@example.com", id="1")
        await copy_outbox(path, database_dsn)
        with pytest.raises(LedgerError, match="was moved to PostgreSQL"):
            await outbox.put("john@example.com", id="2")
        with pytest.raises(LedgerError, match="was moved to PostgreSQL"):
            await outbox.cancel("1")
        with pytest.raises(LedgerError, match="was moved to PostgreSQL"):
            await drain(outbox, client)
        with closing(sqlite3.connect(path)) as own, pytest.raises(LedgerError, match="moved to PostgreSQL"):
            await outbox.put("john@example.com", id="2", using=own)
    for again in (in_file(path, emulator), SQLiteLedger(path)):
        with pytest.raises(LedgerError, match=r"moved to PostgreSQL at 127\.0\.0\.1:.*: use it there"):
            await again.__aenter__()
    assert emulator.requests == []


async def test_a_file_that_is_worked_on(path: Path, database_dsn: str, emulator: Emulator) -> None:
    """Nothing is copied while a process works on a run, and that process goes on."""
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(RUN)
        with pytest.raises(LeaseError, match=r"'march' is being worked on by process .*; stop that process"):
            await copy_outbox(path, database_dsn)
        await ledger.record(batch(), BODY)
    assert (await copy_outbox(path, database_dsn)).batches == 1


async def test_what_is_there_already(path: Path, database_dsn: str, emulator: Emulator) -> None:
    """An outbox for the same target is not mixed with the file's, since an id could be put into both."""
    async with in_file(path, emulator) as outbox, in_database(database_dsn, emulator) as other:
        await outbox.put("jane@example.com", id="1")
        await other.put("jane@example.com", id="1")
        with pytest.raises(
            LedgerError, match=r"has an outbox for .*camp_abc123.* already: nothing was copied"
        ):
            await copy_outbox(path, database_dsn)
        assert await outbox.put("john@example.com", id="2")
    async with SQLiteLedger(other_file := path.with_name("other.sqlite")) as ledger:
        await ledger.claim(RUN)
    async with PostgresLedger(database_dsn) as theirs:
        await theirs.claim(attrs.evolve(RUN, campaign_id="another"))
    with pytest.raises(LedgerError, match="has run 'march' already"):
        await copy_outbox(other_file, database_dsn)


async def test_a_copy_that_fails(path: Path, dsn: str, emulator: Emulator) -> None:
    """If nothing was copied, the file is used on."""
    async with in_file(path, emulator) as outbox:
        await outbox.put("jane@example.com", id="1")
        with pytest.raises(LedgerError, match=r"tables of the ledger are missing; run `await .*init"):
            await copy_outbox(path, dsn)
        await init(dsn)
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("UPDATE guests SET put_at = 'x'")
            with pytest.raises(LedgerError, match=r"outbox\.sqlite cannot be used: a row is damaged"):
                await copy_outbox(path, dsn)
            db.execute("UPDATE guests SET put_at = 1")
        assert await outbox.put("john@example.com", id="2")
    assert (await copy_outbox(path, dsn)).waiting == 2


@pytest.mark.parametrize("arrived", [True, False])
async def test_an_interrupted_copy(
    filled: str,
    path: Path,
    database_dsn: str,
    emulator: Emulator,
    client: ThanxClient,
    monkeypatch: pytest.MonkeyPatch,
    *,
    arrived: bool,
) -> None:
    """If the answer to the commit is lost, neither place is used until the call is repeated."""

    async def lost(self: Database, raw: object) -> None:
        if arrived:
            await usual(self, raw)
        error = LedgerError("the answer is lost")
        error.in_doubt = True
        raise error

    usual = Database._commit
    checked: list[object] = []

    async def second(self: Database, raw: object) -> None:
        checked.append(raw)
        await (usual if len(checked) == 1 else lost)(self, raw)

    with monkeypatch.context() as patch:
        patch.setattr(Database, "_commit", second)
        with pytest.raises(LedgerError, match="the answer is lost"):
            await copy_outbox(path, database_dsn)
    with pytest.raises(LedgerError, match="moved to PostgreSQL"):
        await in_file(path, emulator).__aenter__()
    for _ in range(2):
        assert await copy_outbox(path, database_dsn) == Copied(runs=2, batches=5, guests=5, waiting=1)
    async with in_database(database_dsn, emulator) as outbox:
        await drain(outbox, client)
        assert await states(outbox, *IDS) == ["failed", "issued", "issued", "cancelled", "issued"]
    assert set(emulator.reward_counts().values()) == {1}


async def test_wrong_use(tmp_path: Path, dsn: str) -> None:
    """A file that does not exist is not made, and a bad DSN is refused before anything is done."""
    with pytest.raises(LedgerError, match=r"there is no outbox .*none\.sqlite"):
        await copy_outbox(tmp_path / "none.sqlite", dsn)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError, match="dsn must be a URL"):
        await copy_outbox(tmp_path / "none.sqlite", "mysql://u@h/d")


async def test_the_trust_in_events_moves(
    path: Path, database_dsn: str, emulator: Emulator, client: ThanxClient
) -> None:
    """What is known of a credential's events is added to what the database knows."""
    async with in_file(path, emulator) as outbox:
        await outbox.ledger.exchange_trust("https://a", "c", Trust(3, 1, broken=True))
    async with PostgresLedger(database_dsn) as ledger:
        await ledger.exchange_trust("https://a", "c", Trust(1, 1))
        await copy_outbox(path, database_dsn)
        assert await ledger.exchange_trust("https://a", "c", Trust()) == Trust(4, 2, broken=True)
