import asyncio
import os
import resource
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanx_async import ConfigurationError, LedgerError, SQLiteLedger
from thanx_async._batches import Positions
from thanx_async.batching._chunker import Chunker
from thanx_async.ledger import BatchOutcome, BatchRecord, RunRecord, digest_of
from thanx_async.ledger import _sqlite_schema as schema
from thanx_async.ledger._sqlite_bodies import STRIDE

pytestmark = pytest.mark.realtime
RUN = RunRecord("march", "http://127.0.0.1", "c", "camp", "merch", "var", 10, deduplicate=True)
BODY = b'{"identifiers": ["guest@example.com"]}'


def cut(items: list[object]) -> Positions:
    chunker = Chunker()
    return (chunker.feed(items) + chunker.flush())[0].positions


def batch(number: int = 0, body: bytes = BODY) -> BatchRecord:
    positions = cut(["junk", "a@b.co", "junk", "junk", "c@d.co", "e@f.co"])
    return BatchRecord(RUN.run_id, number, f"key-{number}", positions, digest_of(body))


def bodies(path: Path) -> bytes:
    return path.with_name(path.name + "-bodies").read_bytes()


async def only(ledger: SQLiteLedger) -> BatchRecord:
    [found] = await ledger.batches(RUN.run_id)
    return found


async def record(ledger: SQLiteLedger, count: int) -> None:
    """Claim the run, and record so many batches of it."""
    await ledger.claim(RUN)
    for number in range(count):
        await ledger.record(batch(number), BODY)


async def test_guests_are_forgotten(ledger: SQLiteLedger, path: Path) -> None:
    """The bytes are wiped as soon as the batch is no longer in doubt, and nobody but the owner could read."""
    await record(ledger, 3)
    assert bodies(path).count(BODY) == 3
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert {file.name for file in path.parent.iterdir()} == {
        path.name + suffix for suffix in ("", "-wal", "-shm", "-bodies")
    }
    await ledger.accept("march", 0, "job1")
    await ledger.withdraw("march", 1)
    await ledger.record(batch(3), BODY)
    assert bodies(path).count(BODY) == 2
    await ledger.finish("march", {2: BatchOutcome("refused", 0), 3: BatchOutcome("refused", 0)})
    await ledger.release("march")
    assert b"guest@example" not in b"".join(file.read_bytes() for file in path.parent.iterdir())


@pytest.mark.parametrize("body", [BODY[:-9], BODY + b"more"])
async def test_nothing_of_a_body_outlasts_the_one_that_takes_its_place(
    ledger: SQLiteLedger, path: Path, body: bytes
) -> None:
    """A freed slot is used again without being wiped first; other freed slots are wiped at the same time."""
    await record(ledger, 2)
    for number in range(2):
        await ledger.accept("march", number, f"job{number}")
    await ledger.record(batch(2, body), body)
    assert bodies(path).replace(b"\0", b"") == body
    assert await ledger.body("march", 2) == body


async def test_nothing_outlasts_a_place_that_changes_hands(ledger: SQLiteLedger, path: Path) -> None:
    """A body that one process has freed and not wiped yet is gone once another uses its place."""
    long = b"x" * 1000
    async with SQLiteLedger(path) as other:
        await ledger.claim(RUN)
        await ledger.record(batch(0, long), long)
        await ledger.accept("march", 0, "job1")
        assert long in bodies(path)
        await other.claim(attrs.evolve(RUN, run_id="april"))
        await other.record(attrs.evolve(batch(0), run_id="april"), BODY)
        assert bodies(path).replace(b"\0", b"") == BODY


async def test_nothing_outlasts_a_place_that_was_used_meanwhile(ledger: SQLiteLedger, path: Path) -> None:
    """A place that one process has freed, and another has used since for more, is wiped as a whole."""
    april = attrs.evolve(RUN, run_id="april")
    long = b"x" * 1000
    async with SQLiteLedger(path) as other:
        await ledger.claim(RUN)
        await ledger.record(batch(0), BODY)
        await ledger.accept("march", 0, "job1")
        await other.claim(april)
        await other.record(attrs.evolve(batch(0, long), run_id="april"), long)
        await other.accept("april", 0, "job2")
        await ledger.record(batch(1), BODY)
        assert bodies(path).replace(b"\0", b"") == BODY
        await ledger.accept("march", 1, "job3")
        await ledger.release("march")
        await other.release("april")
        assert bodies(path).replace(b"\0", b"") == b""


async def test_what_was_wiped_in_part_is_wiped(path: Path) -> None:
    """A process that is killed at wiping leaves zeros and then guests."""
    async with SQLiteLedger(path) as ledger:
        await record(ledger, 2)
        await ledger.accept("march", 0, "job1")
    with path.with_name(path.name + "-bodies").open("r+b") as file:
        file.write(b"\0" * 10 + BODY)
    async with SQLiteLedger(path):
        assert bodies(path).count(BODY) == 1


async def test_what_a_killed_process_left_is_wiped(path: Path) -> None:
    """Bytes in slots that no batch in doubt uses are gone after the next opening."""
    async with SQLiteLedger(path) as ledger:
        await record(ledger, 3)
        await ledger.accept("march", 0, "job1")
        await ledger.accept("march", 2, "job3")
        left = bodies(path)
        assert left.count(BODY) == 3
    path.with_name(path.name + "-bodies").write_bytes(left)
    async with SQLiteLedger(path) as ledger:
        assert bodies(path).count(BODY) == 1
        assert await ledger.body("march", 1) == BODY
        with pytest.raises(LedgerError, match="batch 0 of run 'march' are not in"):
            await ledger.body("march", 0)
        path.with_name(path.name + "-bodies").write_bytes(b"")
        with pytest.raises(LedgerError, match="settle the batch by hand"):
            await ledger.body("march", 1)
        with pytest.raises(LedgerError, match="more than"):
            await ledger.record(batch(9), bytes(STRIDE + 1))


@given(st.lists(st.sampled_from(["a", "junk"]), min_size=1, max_size=200))
def test_positions_survive_packing(kinds: list[str]) -> None:
    """The places of a batch's guests are the same after being written down and read, whatever was dropped."""
    items = [f"g{place}@example.com" if kind == "a" else kind for place, kind in enumerate(kinds)]
    if "a" in kinds:
        positions = cut(list(items))
        again = Positions.unpacked(positions.first, len(positions), positions.packed())
        assert list(again) == list(positions) == [place for place, kind in enumerate(kinds) if kind == "a"]


@given(st.dictionaries(st.integers(0, 9_999), st.text(max_size=5)), st.integers(0, 10_000))
def test_outcomes_survive_packing(failures: dict[int, str], issued: int) -> None:
    """Failures keep their place and reason."""
    outcome = BatchOutcome("completed", issued, tuple(sorted(failures.items())))
    assert BatchOutcome.unpacked(outcome.packed()) == outcome


def spoiled(path: Path, kind: str) -> None:
    """Put something that is no usable ledger at a path."""
    if kind == "folder":
        path.mkdir()
        return
    if kind == "text":
        path.write_text("guest@example.com\n" * 1000)
        return
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    if kind == "newer":
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("kind", "phrase"),
    [
        ("folder", "cannot be used: Is a directory"),
        ("text", "not a ledger but some other file"),
        ("foreign", "not a ledger but some other database"),
        ("newer", "written by a newer thanx_async"),
    ],
)
async def test_other_files_are_left_alone(path: Path, kind: str, phrase: str) -> None:
    """What is no ledger, or one from the future, is refused by name and stays as it is."""
    spoiled(path, kind)
    before = b"" if kind == "folder" else path.read_bytes()
    with pytest.raises(LedgerError, match=phrase) as caught:
        async with SQLiteLedger(path):
            pass
    assert str(path) in str(caught.value)
    assert before == (b"" if kind == "folder" else path.read_bytes())


async def test_a_damaged_ledger(path: Path) -> None:
    """Damage in the middle of the file is said to be damage."""
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(RUN)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="damaged"):
        async with SQLiteLedger(path) as ledger:
            await ledger.runs()


@pytest.mark.parametrize("place", ["/proc/ledger.sqlite", "/nowhere/at/all/ledger.sqlite"])
async def test_a_place_that_cannot_be_written(place: str) -> None:
    """A folder that does not exist or takes no files is reported with the path."""
    with pytest.raises(LedgerError, match=f"the ledger {place} cannot be used"):
        async with SQLiteLedger(place):
            pass


async def test_a_ledger_that_became_read_only(ledger: SQLiteLedger) -> None:
    """A write that is not allowed says so, reading still works, and nothing is half done."""
    await ledger.claim(RUN)
    store = ledger._store
    assert store is not None
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerError, match="it is read-only"):
        await ledger.record(batch(), BODY)
    assert await ledger.batches("march") == []
    store._db.execute("PRAGMA query_only = OFF")
    await ledger.record(batch(), BODY)


async def test_a_full_disk(ledger: SQLiteLedger) -> None:
    """Where the table cannot grow any more the record fails as a whole; with space again it works."""
    await ledger.claim(RUN)
    store = ledger._store
    assert store is not None
    store._db.execute("PRAGMA max_page_count = 1")
    gaps = cut([item for number in range(9_000) for item in (f"g{number}@example.com", "junk")])
    large = attrs.evolve(batch(), positions=gaps)
    with pytest.raises(LedgerError, match="the disk is full"):
        await ledger.record(large, BODY)
    assert await ledger.batches("march") == []
    store._db.execute("PRAGMA max_page_count = 100000")
    assert await ledger.record(large, BODY) == await only(ledger)


async def test_no_space_for_the_bytes(ledger: SQLiteLedger) -> None:
    """Bytes that cannot be written leave no record."""
    await ledger.claim(RUN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(LedgerError, match="File too large"):
            await ledger.record(batch(), bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert await ledger.batches("march") == []


async def test_a_locked_ledger(ledger: SQLiteLedger, path: Path) -> None:
    """A lock that another process does not give back is waited for, and then named."""
    await ledger.claim(RUN)
    store = ledger._store
    assert store is not None
    store._db.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="another process has locked it"):
        await ledger.record(batch(), BODY)
    other.execute("ROLLBACK")
    other.close()
    await ledger.record(batch(), BODY)


async def test_a_run_that_could_not_be_given_back(ledger: SQLiteLedger, path: Path) -> None:
    """A run whose release could not be written stands in nobody's way, as soon as the file can be written."""
    await ledger.claim(RUN)
    store = ledger._store
    assert store is not None
    store._db.execute("PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        for again in (True, False):
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="another process has locked it"):
                await ledger.release("march")
            other.execute("ROLLBACK")
            if again:
                await ledger.claim(RUN)
                await ledger.record(batch(), BODY)
    async with SQLiteLedger(path) as next_process:
        with pytest.raises(LedgerError, match="is being worked on"):
            await next_process.claim(RUN)
        await ledger._worker.do(store.runs.renew_all)  # as it is done every minute
        await next_process.claim(RUN)


async def test_an_older_ledger_is_migrated(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of an older version gets what is new, keeps what it holds, and only once."""
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(RUN)
        await ledger.record(batch(), BODY)
        first = await ledger.batches("march")
    steps = ["ALTER TABLE runs ADD COLUMN note TEXT; UPDATE runs SET note = 'old'", "CREATE TABLE more (x)"]
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, *steps])
    for _ in range(2):
        async with SQLiteLedger(path) as ledger:
            assert await ledger.batches("march") == first
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT note FROM runs").fetchall() == [("old",)]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    connection.close()


async def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration is done as a whole or not at all."""
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(RUN)
    steps = ["ALTER TABLE runs ADD COLUMN note TEXT; UPDATE nowhere SET x = 1"]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, *steps])
        with pytest.raises(LedgerError, match="no such table"):
            await SQLiteLedger(path).__aenter__()
    async with SQLiteLedger(path) as ledger:
        assert await ledger.run("march") is not None


async def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    """A path that the system allows is a path, whatever its bytes are."""
    path = tmp_path / os.fsdecode(b"caf\xe9.sqlite")
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(RUN)
    assert path.exists()


async def test_wrong_use(path: Path) -> None:
    """A ledger must be opened, and an impossible time is refused."""
    ledger = SQLiteLedger(path)
    assert "not open" in repr(ledger)
    with pytest.raises(ConfigurationError, match="async with SQLiteLedger"):
        await ledger.runs()
    with pytest.raises(ConfigurationError, match="replay_within must be a number from 0, not -"):
        SQLiteLedger(path, replay_within=-1)


async def test_a_release_without_wiping(ledger: SQLiteLedger, path: Path) -> None:
    """Where bytes cannot be wiped the run is given back all the same, not kept for ever."""
    await ledger.claim(RUN)
    await ledger.record(batch(), BODY)
    await ledger.accept("march", 0, "job1")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("ALTER TABLE batches RENAME TO hidden")
        with pytest.raises(LedgerError):
            await ledger.release("march")
        db.execute("ALTER TABLE hidden RENAME TO batches")
    await ledger.claim(RUN)


def test_a_ledger_outlives_its_loop(path: Path) -> None:
    """It can be closed on another loop than it was opened on, whether that one is closed or not."""
    ledger = SQLiteLedger(path)

    async def claim() -> None:
        await ledger.__aenter__()
        await ledger.claim(RUN)

    async def close() -> None:
        await ledger.__aexit__(None, None, None)

    asyncio.run(claim())
    asyncio.run(close())
    with asyncio.Runner() as runner:
        runner.run(claim())
        with ThreadPoolExecutor() as pool:
            pool.submit(asyncio.run, close()).result()
    asyncio.run(claim())
    asyncio.run(close())


async def test_a_cancelled_opening_leaves_nothing_open(path: Path) -> None:
    """Who is cancelled while opening has no ledger, and no file is left open."""

    async def enter() -> None:
        async with SQLiteLedger(path):
            await asyncio.sleep(60)

    task = asyncio.create_task(enter())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not path.with_name(path.name + "-wal").exists()


_OPENING = """
import asyncio, sys
from thanx_async import SQLiteLedger
from thanx_async.ledger import RunRecord

async def main():
    async with SQLiteLedger(sys.argv[1]) as ledger:
        for number in range(20):
            run = RunRecord(f"{sys.argv[2]}-{number}", "u", "c", "x", "m", "v", 10, True)
            await ledger.claim(run)

asyncio.run(main())
"""


@pytest.mark.slow
async def test_several_processes_share_it(path: Path) -> None:
    """Processes that make and fill the same new ledger at the same time do not disturb each other."""
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _OPENING, str(path), str(number), stderr=subprocess.PIPE
        )
        for number in range(4)
    ]
    ends = [await process.communicate() for process in running]
    assert [error for _, error in ends] == [b""] * 4
    async with SQLiteLedger(path) as ledger:
        assert len(await ledger.runs()) == 80
