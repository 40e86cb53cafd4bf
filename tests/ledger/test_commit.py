"""Commits that fail where nobody can tell whether they have reached the disk."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers import TARGET, guests, issuing, recording
from tests.ledger.test_store import BODY, RUN, batch
from thanx_async import AsyncBatcher, BatchError, LedgerError, SQLiteLedger, ThanxClient
from thanx_async.emulator import Emulator

pytestmark = pytest.mark.realtime


class Disk:
    """A connection on a disk that fails at the end of commits: when they are written, or before that."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.code = ""
        self.written = True

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, sql: str, *values: object) -> object:
        if sql != "COMMIT" or not self.code:
            return self._connection.execute(sql, *values)  # type: ignore[arg-type]  # passed through
        code, self.code = self.code, ""
        if code != "SQLITE_BUSY":
            self._connection.execute("COMMIT" if self.written else "ROLLBACK")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = code
        raise error

    def close(self) -> None:
        self._connection.close()


def on_bad_disk(ledger: SQLiteLedger) -> Disk:
    store = ledger._store
    assert store is not None
    disk = Disk(store._db)
    store._db = store.runs._db = disk  # type: ignore[assignment]  # as far as it is used
    return disk


@pytest.mark.parametrize("code", ["SQLITE_IOERR_FSYNC", "SQLITE_FULL"])
async def test_a_commit_that_fails_is_in_doubt(ledger: SQLiteLedger, code: str) -> None:
    """The error says that the batch may be recorded, and with which key it may be sent."""
    disk = on_bad_disk(ledger)
    await ledger.claim(RUN)
    disk.code = code
    with pytest.raises(LedgerError) as caught:
        await ledger.record(batch(), BODY)
    assert (caught.value.in_doubt, caught.value.idempotency_key) == (True, "key-0")
    assert "key-0" in caught.value.__notes__[0]


async def test_a_commit_that_was_not_begun_is_certain(ledger: SQLiteLedger) -> None:
    """Where the file stays locked the batch is certainly not recorded, and the error says so."""
    disk = on_bad_disk(ledger)
    await ledger.claim(RUN)
    disk.code = "SQLITE_BUSY"
    with pytest.raises(LedgerError, match="locked") as caught:
        await ledger.record(batch(), BODY)
    assert not caught.value.in_doubt
    assert await ledger.batches("march") == []


@pytest.mark.parametrize("written", [True, False])
async def test_add_is_told(emulator: Emulator, client: ThanxClient, path: Path, *, written: bool) -> None:
    """A guest whose batch may be in the ledger is in doubt, and repeating it with the key is no second
    reward, whatever the next process finds."""
    async with SQLiteLedger(path) as ledger, AsyncBatcher(client, **TARGET, ledger=ledger) as batcher:
        disk = on_bad_disk(ledger)
        await batcher.add("first@example.com")
        disk.code, disk.written = "SQLITE_IOERR_FSYNC", written
        with pytest.raises(LedgerError) as caught:
            await batcher.add("jane@example.com")
        assert caught.value.in_doubt
        assert len(issuing(emulator)) == 1
    key = caught.value.idempotency_key
    async with SQLiteLedger(path) as ledger, AsyncBatcher(client, **TARGET, ledger=ledger) as batcher:
        await batcher.recover()
    await client.issue_rewards(**TARGET, identifiers=["jane@example.com"], idempotency_key=key)
    assert set(emulator.reward_counts().values()) == {1}


async def test_issue_is_told(emulator: Emulator, client: ThanxClient, ledger: SQLiteLedger) -> None:
    """A batch of a run that may be in the ledger is in doubt, not unsent; the same run goes on with it."""
    disk = on_bad_disk(ledger)

    async def source() -> AsyncIterator[str]:
        for number, guest in enumerate(guests(30)):
            if number == 20:
                disk.code = "SQLITE_IOERR_FSYNC"
            yield guest

    batcher = recording(client, ledger, max_concurrency=1)
    with pytest.raises(BatchError) as caught:
        await batcher.issue(source(), run_id="march")
    run = caught.value.run
    assert sum(row.count for row in run.in_doubt) == 10
    await batcher.issue(guests(30), run_id="march")
    assert set(emulator.reward_counts().values()) == {1}
    assert len(emulator.reward_counts()) == 30


async def test_a_ledger_of_ones_own(client: ThanxClient, ledger: SQLiteLedger) -> None:
    """An error of another kind, of a ledger of the user's own, leaves the batch in doubt as well."""

    async def broken(*_: object) -> object:
        raise ConnectionResetError

    ledger.record = broken  # type: ignore[method-assign,assignment]  # a store that breaks
    async with AsyncBatcher(client, **TARGET, ledger=ledger) as batcher:
        with pytest.raises(Exception, match="could not be sent") as caught:
            await asyncio.wait_for(batcher.add("jane@example.com"), 10)
    assert getattr(caught.value, "in_doubt", False)
