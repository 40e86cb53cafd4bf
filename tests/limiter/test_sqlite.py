"""The limiter over a file: shared, kept across restarts, never in the way."""

import asyncio
import gc
import logging
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest

from tests.helpers import on_virtual_time, until
from tests.limiter.sending import check, course, looking, send, stored
from tests.limiter.stores import SHORT, virtual
from thanx_async import (
    THANX_RATE_LIMITS,
    ConfigurationError,
    Lane,
    LocalRateLimiter,
    RateLimit,
    SQLiteRateLimiter,
    ThanxClient,
)
from thanx_async.emulator import Counter, Emulator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.sqlite3"


@pytest.mark.realtime
@pytest.mark.parametrize("kept", [True, False])
def test_on_uvloop(path: Path, *, kept: bool) -> None:
    """The limits hold on uvloop too, whose clock stands still within a turn, over two limiters of a file."""
    uvloop = pytest.importorskip("uvloop")
    limits = [RateLimit(10, 0.2), RateLimit(15, 0.6)]
    requests = [(0.01 * (number % 3), "answer", [*Lane][number % 3]) for number in range(20)]

    async def main() -> None:
        limiters = [SQLiteRateLimiter(path, limits) for _ in range(2)] if kept else [LocalRateLimiter(limits)]
        check(await course(limiters, requests, clock=time.monotonic), limits, slack=0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold the file's lock, as another process may."""
    with looking(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


async def in_transaction() -> None:
    """Until a thread is at the file, where it waits for the lock."""

    def waits() -> bool:
        return any(frame.f_code.co_name == "transaction" for frame in sys._current_frames().values())

    await until(waits)


@pytest.mark.realtime
async def test_cancelled_during_the_transaction(path: Path) -> None:
    """A booking that was made while its caller was cancelled is given back, and the cancellation goes on."""
    limiter = SQLiteRateLimiter(path, SHORT)
    await limiter.refresh()
    sent: list[float] = []
    async with locked(path):
        task = asyncio.create_task(send(limiter, sent))
        await in_transaction()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    await asyncio.wait([task])
    assert task.cancelled()
    assert sent == []
    state = stored(path)
    assert (state.tokens, state.flights, state.tickets) == (1, {}, [])
    assert state.windows[0].total == 0


@pytest.mark.realtime
async def test_cancelled_while_recording(path: Path) -> None:
    """A cancellation that comes while an answer is recorded does not lose the record."""
    limiter = SQLiteRateLimiter(path, SHORT)
    began, ended = asyncio.Event(), asyncio.Event()

    async def request() -> None:
        async with limiter.slot() as slot:
            began.set()
            await ended.wait()
            slot.answered(200, {})

    task = asyncio.create_task(request())
    await began.wait()
    async with locked(path):
        ended.set()
        await in_transaction()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    await asyncio.wait([task])
    assert task.cancelled()
    assert stored(path).windows[0].total == 1
    assert stored(path).flights == {}


@pytest.mark.realtime
async def test_a_file_that_stays_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that never lets go of the file is a clear error, not a hang."""
    monkeypatch.setattr("thanx_async._core.sqlite.BUSY", 0.1)
    limiter = SQLiteRateLimiter(path)
    await limiter.refresh()
    async with locked(path):
        with pytest.raises(ConfigurationError, match=r"limits\.sqlite3: another process has locked it"):
            await send(limiter, [])


async def test_an_answer_is_not_lost_with_the_file(
    wall: SimpleNamespace, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When the file breaks under a request, its answer is kept, and the next request fails."""
    limiter = SQLiteRateLimiter(path, SHORT)
    sent: list[float] = []
    with caplog.at_level(logging.WARNING, logger="thanx_async"):
        async with limiter.slot(), limiter.slot():
            with looking(path) as connection:
                connection.execute("DROP TABLE limiter")
    (record,) = caplog.records
    assert "could not be recorded" in record.getMessage()
    with pytest.raises(ConfigurationError, match="no such table"):
        await send(limiter, sent)
    assert sent == []


def test_only_the_owner_may_read(path: Path) -> None:
    """The file and what SQLite puts beside it are closed to others, whatever the umask and the mode were."""
    path.touch(0o666)
    path.chmod(0o666)

    async def main() -> None:
        limiter = SQLiteRateLimiter(path)
        await send(limiter, [])
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert "limits.sqlite3-wal" in modes
        assert {*modes.values()} == {0o600}

    before = os.umask(0)
    try:
        asyncio.run(main())
    finally:
        os.umask(before)


def test_the_file_closes_itself(path: Path) -> None:
    """A limiter that is no longer used leaves no open file and no journal."""

    async def main() -> None:
        limiter = SQLiteRateLimiter(path)
        await send(limiter, [])
        assert {file.name for file in path.parent.iterdir()} > {path.name}

    asyncio.run(main())
    let_go(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def let_go(path: Path) -> None:
    """Wait until nobody has the file open: a worker thread may hold its last task for a moment."""
    while path.with_name(f"{path.name}-wal").exists():
        gc.collect()


def foreign(path: Path) -> None:
    with looking(path) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")


def marked(path: Path) -> None:
    with looking(path) as connection:
        connection.execute("PRAGMA application_id = 77")


def newer(path: Path) -> None:
    asyncio.run(send(SQLiteRateLimiter(path), []))
    let_go(path)
    with looking(path) as connection:
        connection.execute("PRAGMA user_version = 2")


def damaged(path: Path) -> None:
    asyncio.run(send(SQLiteRateLimiter(path), []))
    let_go(path)
    with looking(path) as connection:
        connection.execute("UPDATE limiter SET state = '{\"clock\": []}'")


def absurd(path: Path) -> None:
    damaged(path)
    with looking(path) as connection:
        connection.execute("UPDATE limiter SET state = '{\"clock\": 1e300}'")


def spoil(**changes: object) -> Callable[[Path], None]:
    """A state that was used, with some of its parts replaced."""

    def spoiled(path: Path) -> None:
        asyncio.run(send(SQLiteRateLimiter(path), []))
        let_go(path)
        with looking(path) as connection:
            state = orjson.loads(connection.execute("SELECT state FROM limiter").fetchone()[0])
            connection.execute("UPDATE limiter SET state = ?", (orjson.dumps(state | changes),))

    return spoiled


def emptied(path: Path) -> None:
    asyncio.run(send(SQLiteRateLimiter(path), []))
    let_go(path)
    with looking(path) as connection:
        connection.execute("DELETE FROM limiter")


def listed(path: Path) -> None:
    damaged(path)
    with looking(path) as connection:
        connection.execute("UPDATE limiter SET state = '[]'")


REFUSAL = {"count": 1, "outage": False, "failures": 1, "until": 9e10, "probe": None, "resumed": None}


def no_database(path: Path) -> None:
    path.write_text("a letter to grandmother\n" * 100)


def torn(path: Path) -> None:
    asyncio.run(send(SQLiteRateLimiter(path), []))
    let_go(path)
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 9000)


@pytest.mark.parametrize(
    ("make", "phrase"),
    [
        (foreign, "it is a database of another application; give another path"),
        (marked, "it is a database of another application; give another path"),
        (newer, r"a newer thanx_async wrote it \(version 2\); update thanx_async"),
        (damaged, "its content is damaged; move it away"),
        (absurd, "its content is damaged"),
        (emptied, "its content is damaged"),
        (spoil(last=9e10), "its content is damaged"),
        (spoil(refusal=REFUSAL), "its content is damaged"),
        (spoil(windows=[{"seconds": 0, "buckets": [], "total": 0}]), "its content is damaged"),
        (spoil(windows=[{"seconds": 1, "buckets": [], "total": 5}]), "its content is damaged"),
        (spoil(windows=[{"seconds": 1, "buckets": [[9, 1], [8, 1]], "total": 2}]), "its content is damaged"),
        (spoil(flights={"7": {"token": 8, "sent": 0, "lease": 0}}), "its content is damaged"),
        (spoil(trust=7), "its content is damaged"),
        (spoil(tokens=1e308), "its content is damaged"),
        (spoil(refusal=REFUSAL | {"until": None, "probe": 2**60}), "its content is damaged"),
        (listed, "its content is damaged"),
        (spoil(margin=-1), "its content is damaged"),
        (spoil(tickets=[{"owner": "o", "polls": False, "wake": -5}]), "its content is damaged"),
        (no_database, "file is not a database; move it away, and it is made anew"),
        (torn, "malformed; move it away"),
        (Path.mkdir, "Is a directory; give a path that can be written"),
    ],
)
def test_files_that_are_not_its_own(make: Callable[[Path], None], phrase: str, path: Path) -> None:
    """Another file is a clear error that names it, before anything is sent, and it stays as it is."""
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    sent: list[float] = []
    with pytest.raises(ConfigurationError, match=rf"cannot use {path}: .*{phrase}"):
        asyncio.run(send(SQLiteRateLimiter(path), sent))
    assert sent == []
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_no_such_directory(tmp_path: Path) -> None:
    """A directory is not made up."""
    with pytest.raises(
        ConfigurationError, match="No such file or directory; give a path that can be written"
    ):
        asyncio.run(SQLiteRateLimiter(tmp_path / "nowhere" / "limits.sqlite3").refresh())


def test_a_file_that_cannot_be_written(path: Path) -> None:
    """A file that is read-only for this user is an error as well."""
    asyncio.run(send(SQLiteRateLimiter(path), []))
    let_go(path)
    path.chmod(0o444)
    user = os.geteuid()
    if user == 0:
        for directory in (path.parent, path.parent.parent, path.parent.parent.parent):
            directory.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match="Permission denied; give a path that can be written"):
            asyncio.run(send(SQLiteRateLimiter(path), []))
    finally:
        os.seteuid(user)


WORKER = """
import asyncio, sys
from thanx_async import RateLimit, SQLiteRateLimiter, ThanxClient

async def main(url, path, each):
    limits = [RateLimit(20, 1), RateLimit(60, 3)]
    async with ThanxClient("id", "token", base_url=url, limiter=SQLiteRateLimiter(path, limits)) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        async def work():
            for _ in range(int(each)):
                await client.get_scopes()
        await asyncio.gather(*(work() for _ in range(3)))

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def workers(count: int, *arguments: object) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Processes that are ready to send as much as they may."""
    running: list[asyncio.subprocess.Process] = []
    try:
        while len(running) < count:
            command = [sys.executable, "-c", WORKER, *map(str, arguments)]
            running += [await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)]
        for process in running:
            assert process.stdout
            assert await process.stdout.readline() == b"ready\n"
        for process in running:
            assert process.stdin
            process.stdin.write(b"go\n")
        yield running
    finally:
        for process in running:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.mark.realtime
@pytest.mark.slow
async def test_three_processes(path: Path) -> None:
    """Processes with one file keep the limits together, and all of them get on."""
    limits = [(20, 1.0), (60, 3.0)]
    async with Emulator(limits=limits, counter=Counter.SLIDING_LOG) as emulator:
        async with workers(3, emulator.url, path, 8) as running:
            assert [await process.wait() for process in running] == [0, 0, 0]
        assert emulator.refused == 0
        assert len(emulator.requests) == 3 * 3 * 8


@pytest.mark.realtime
@pytest.mark.slow
async def test_killed_processes(path: Path) -> None:
    """Processes that are killed at any moment leave a file that the others go on with; nothing is refused."""
    async with Emulator(limits=[(20, 1.0), (60, 3.0)], counter=Counter.SLIDING_LOG) as emulator:
        limits = [RateLimit(20, 1), RateLimit(60, 3)]
        limiter = SQLiteRateLimiter(path, limits)
        async with ThanxClient("id", "token", base_url=emulator.url, limiter=limiter) as client:
            for number in range(2):
                async with workers(2, emulator.url, path, 1000) as running:
                    seen = len(emulator.requests)
                    while len(emulator.requests) < seen + 5 + number:
                        await client.get_scopes()
                    for process in running:
                        process.send_signal(signal.SIGKILL)
                        await process.wait()
            for _ in range(5):
                await client.get_scopes()
        assert emulator.refused == 0
    assert stored(path).tokens >= len(emulator.requests)


def test_a_path_means_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that SQLite takes for something else are files too, and stay where they were named."""
    monkeypatch.chdir(tmp_path)
    limiter = SQLiteRateLimiter(":memory:")
    monkeypatch.chdir("/")
    asyncio.run(send(limiter, []))
    assert stored(tmp_path / ":memory:").tokens == 1


def test_the_repr_shows_file_and_state(path: Path) -> None:
    """What is spent of each limit is visible, without a loop as well."""
    limiter = SQLiteRateLimiter(path, THANX_RATE_LIMITS)
    assert repr(limiter) == (
        f"<SQLiteRateLimiter {path}: 0 of 5 in 1 s, 0 of 2,000 in 900 s; 0 waiting, 0 refused>"
    )


@pytest.mark.parametrize("lane", Lane)
def test_a_request_that_is_cancelled_at_once_leaves_no_ticket(path: Path, lane: Lane) -> None:
    """Nobody waits for the turn of a request that is gone, whoever else of its process was just admitted."""
    limits = [RateLimit(1, 0.5)]

    async def main() -> None:
        limiters = [SQLiteRateLimiter(path, limits) for _ in range(3)]
        others = [(0.0, fate, Lane.ISSUE) for fate in ("answer", "answer", "cancel")]
        requests = [(0.0, "answer", lane), *others]
        await course(limiters, requests)
        assert stored(path).tickets == []

    with virtual():
        on_virtual_time(main)
