"""Only files of our own are touched, and nobody else can read them."""

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from tests.ledger.test_store import BODY, RUN, batch
from thanx_async import ConfigurationError, LedgerError, SQLiteLedger, SQLiteRateLimiter

pytestmark = pytest.mark.realtime
LOCKS = Path("/proc/locks")
LETTER = b"a letter to grandmother\n" * 100


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def link(letter: Path, bodies: Path) -> None:
    bodies.symlink_to(letter)


def hard_link(letter: Path, bodies: Path) -> None:
    bodies.hardlink_to(letter)


def copied(letter: Path, bodies: Path) -> None:
    shutil.copy(letter, bodies)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("put", "phrase"),
    [(link, "symbolic link"), (hard_link, "hard link"), (copied, "something else")],
)
async def test_a_file_of_that_name_is_left_alone(
    path: Path, put: object, phrase: str, *, known: bool
) -> None:
    """What stands where the bytes of batches belong and is not the ledger's is refused, and stays so."""
    letter, bodies = path.with_name("letter"), beside(path, "-bodies")
    letter.write_bytes(LETTER)
    letter.chmod(0o644)
    if known:
        async with SQLiteLedger(path) as ledger:
            await ledger.claim(RUN)
        bodies.unlink()
    assert callable(put)
    put(letter, bodies)
    with pytest.raises(LedgerError, match=f"-bodies.*{phrase}.*move it away"):
        await SQLiteLedger(path).__aenter__()
    assert letter.read_bytes() == bodies.read_bytes() == LETTER
    assert mode(letter) == 0o644
    bodies.unlink()
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(RUN)


async def test_copies_are_made_private(path: Path, tmp_path: Path) -> None:
    """A ledger that was copied while it was in use, readable for all, is so no longer once it is opened."""
    copies = tmp_path / "copies"
    copies.mkdir()
    async with SQLiteLedger(path) as ledger:
        await ledger.claim(RUN)
        await ledger.record(batch(), BODY)
        for file in path.parent.iterdir():
            if file.is_file():
                shutil.copy(file, copies)
    for file in copies.iterdir():
        file.chmod(0o644)
    async with SQLiteLedger(copies / path.name) as ledger:
        assert await ledger.body("march", 0) == BODY
        assert {mode(file) for file in copies.iterdir()} == {0o600}
        assert len(list(copies.iterdir())) == 4


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such files here")
async def test_what_is_no_regular_file(tmp_path: Path) -> None:
    """Devices and pipes are refused, by ledger and limiter, and keep their modes."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o644)
    before = mode(pipe), mode(Path("/dev/null"))
    for special in (pipe, Path("/dev/null")):
        with pytest.raises(LedgerError, match="Not a regular file"):
            await SQLiteLedger(special).__aenter__()
        with pytest.raises(ConfigurationError, match="Not a regular file"):
            await SQLiteRateLimiter(special).refresh()
    assert (mode(pipe), mode(Path("/dev/null"))) == before


async def test_a_foreign_database_keeps_its_mode(path: Path) -> None:
    """A file is made private only after it was found to be ours."""
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    path.chmod(0o644)
    with pytest.raises(LedgerError, match="some other database"):
        await SQLiteLedger(path).__aenter__()
    with pytest.raises(ConfigurationError, match="another application"):
        await SQLiteRateLimiter(path).refresh()
    assert mode(path) == 0o644
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.skipif(not LOCKS.exists(), reason="the system does not show its locks")
async def test_a_second_opening_keeps_the_locks_of_the_first(path: Path) -> None:
    """The system takes a process's locks on a file away with the first descriptor that it closes: opening
    the ledger once more must close none, or another process would take the log from under the first."""
    async with SQLiteLedger(path) as first, SQLiteLedger(path):
        await first.claim(RUN)
        inode = path.stat().st_ino
        assert any(f":{inode} " in line for line in LOCKS.read_text().splitlines())


async def test_files_beside_a_link_keep_their_mode(path: Path) -> None:
    """A ledger that is opened by a link has its files beside the real one; only these are made private."""
    path.touch()
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    others = [beside(link, suffix) for suffix in ("-wal", "-shm")]
    for other in others:
        other.write_bytes(LETTER)
        other.chmod(0o644)
    async with SQLiteLedger(link):
        assert [mode(other) for other in others] == [0o644, 0o644]
        assert mode(path) == mode(beside(path, "-wal")) == 0o600
    assert [other.read_bytes() for other in others] == [LETTER, LETTER]
