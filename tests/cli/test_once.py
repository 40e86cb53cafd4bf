"""``issue --once``: a guest of several files, months and interrupted runs gets one reward."""

import asyncio
import re
import signal
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest

from tests.helpers import (
    HANGS,
    LOST,
    OPTIONS,
    UNAUTHORIZED,
    USUAL,
    counts,
    environment,
    guests,
    until,
    written,
)
from thanx_async.cli import run
from thanx_async.emulator import Emulator, Faults, JobSpeed
from thanx_async.postgres import copy_outbox, init

pytestmark = pytest.mark.realtime


@pytest.fixture(params=["file", "database"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger of each kind."""
    if request.param == "file":
        return str(tmp_path / "ledger.sqlite")
    dsn: str = request.getfixturevalue("dsn")
    asyncio.run(init(dsn))
    return dsn


class Files:
    """Commands that issue files, and what they print."""

    def __init__(self, folder: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.options = [*OPTIONS, "--once", "--ledger", place, "--batch-size", "10"]
        self.capsys = capsys

    def command(self, name: str, lines: list[str] | None = None) -> list[str]:
        path = self.folder / name
        if lines is not None:
            written(path, *lines)
        return ["issue", str(path), *self.options]

    def issue(self, name: str, lines: list[str] | None = None, *more: str) -> tuple[int, str]:
        status = run([*self.command(name, lines), *more])
        printed = self.capsys.readouterr()
        return status, printed.out + printed.err


@pytest.fixture
def files(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]) -> Files:
    return Files(tmp_path, place, capsys)


def test_overlapping_files(served: Emulator, files: Files) -> None:
    """A guest of two files gets one reward, as does one of a file that is issued again with more guests."""
    assert files.issue("a.txt", guests(25))[0] == 0
    status, text = files.issue("b.txt", ["junk", *guests(30, 15), "Guest20@example.com"])
    assert (status, counts(text)["issued"], counts(text)["rejected"]) == (1, 20, 1)
    assert "11 had one before, and were left out" in text
    status, text = files.issue("a.txt", guests(50))
    assert (status, counts(text)["issued"]) == (0, 5)
    assert "45 had one before, and were left out" in text
    status, text = files.issue("a.txt")
    assert (status, counts(text)["issued"]) == (0, 0)
    assert "50 had one before, and were left out" in text
    assert served.reward_counts() == dict.fromkeys(guests(50), 1)


def test_the_place_of_a_row(served: Emulator, files: Files) -> None:
    """Where a run stops, rows of guests who were left out count as rows of the file."""
    files.issue("a.txt", guests(5))
    served.script(UNAUTHORIZED)
    status, text = files.issue("b.txt", [*guests(15), *guests(3000, 100)])
    assert status == 3
    read, row = re.findall(r"([\d,]+) read from the input|read up to row ([\d,]+)", text)
    assert int(row[1].replace(",", "")) == int(read[0].replace(",", "")) + 5


def test_who_failed_is_tried_again(served: Emulator, files: Files) -> None:
    """A guest who failed is issued to by the next run, however it comes about, and by it only."""
    failing = ["unknown1@example.com", "unknown2@example.com"]
    for name in ("a.txt", "a.txt", "b.txt"):
        status, text = files.issue(name, [*guests(5), *failing])
        assert (status, counts(text)["failed"]) == (1, 2)
    assert "5 had one before" in text
    assert served.reward_counts() == dict.fromkeys(guests(5), 1)


def test_another_file_before_the_rest(served: Emulator, files: Files) -> None:
    """Guests whom a stopped run has not sent are issued to by another one, and by the first one no more."""
    served.script(USUAL, *[UNAUTHORIZED] * 10)
    status, text = files.issue("a.txt", guests(35))
    assert (status, counts(text)["unsent"]) == (3, 25)
    served._script.clear()
    status, text = files.issue("b.txt", guests(30))
    assert (status, counts(text)["issued"]) == (3, 20)
    assert "10 left out: run a.txt-" in text
    assert "has them, and has not ended" in text
    status, text = files.issue("a.txt")
    assert (status, counts(text)["issued"]) == (0, 15)
    assert "20 had one before" in text
    assert "Continuing run a.txt-" in text
    assert served.reward_counts() == dict.fromkeys(guests(35), 1)


def test_a_doubt(served: Emulator, files: Files) -> None:
    """Guests in doubt are left out by others, and get their one reward by the same command."""
    served.script(LOST, *[UNAUTHORIZED] * 10)
    assert files.issue("a.txt", guests(5))[0] == 3
    served._script.clear()
    status, text = files.issue("b.txt", guests(8))
    assert (status, counts(text)["issued"]) == (3, 3)
    assert files.issue("a.txt")[0] == 0
    assert "8 had one before" in files.issue("b.txt")[1]
    assert served.reward_counts() == dict.fromkeys(guests(8), 1)


def test_a_changed_file(served: Emulator, files: Files) -> None:
    """New guests in the file of a stopped run do not pass for those of its batches."""
    served.script(USUAL, *[UNAUTHORIZED] * 10)
    assert files.issue("a.txt", guests(15))[0] == 3
    served._script.clear()
    status, text = files.issue("a.txt", guests(20, 100))
    assert status == 2
    assert "has changed" in text
    status, text = files.issue("a.txt", guests(20, 100), "--run-id", "new")
    assert (status, counts(text)["issued"]) == (0, 20)
    assert files.issue("a.txt", guests(15))[0] == 0
    assert served.reward_counts() == dict.fromkeys([*guests(15), *guests(20, 100)], 1)


def test_a_revoked_run(served: Emulator, files: Files, place: str) -> None:
    """Guests whose rewards were taken back can get one again."""
    assert files.issue("a.txt", guests(5), "--run-id", "first")[0] == 0
    assert run(["revoke", "first", "--yes", "--ledger", place]) == 0
    status, text = files.issue("b.txt", guests(5))
    assert (status, counts(text)["issued"]) == (0, 5)


def test_the_first_guests(served: Emulator, files: Files) -> None:
    """A limit counts those who are issued to, and the same command without it goes on with the rest."""
    files.issue("a.txt", guests(5))
    status, text = files.issue("b.txt", guests(20), "--limit", "10")
    assert (status, counts(text)["issued"]) == (0, 10)
    status, text = files.issue("b.txt")
    assert (status, counts(text)["issued"]) == (0, 15)
    assert served.reward_counts() == dict.fromkeys(guests(20), 1)


def test_runs_of_the_other_kind(served: Emulator, files: Files) -> None:
    """Before it sends, a run tells whom it does not remember, and a run goes on as it began."""
    without = [word for word in files.command("a.txt", guests(5)) if word != "--once"]
    assert run([*without, "--run-id", "first"]) == 0
    status, text = files.issue("b.txt", guests(5, 10), "--run-id", "second")
    assert status == 0
    assert "Runs without --once have issued this reward to 5 guests, who are not remembered" in text
    for name, command in (("first", files.command("a.txt")), ("second", without)):
        assert run([*command, "--run-id", name]) == 2
    assert "began with --once: continue it with it" in files.capsys.readouterr().err
    assert run([*without, "--run-id", "third"]) == 0
    err = files.capsys.readouterr().err
    assert "2 other runs, the last one second of " in err
    assert "have issued this reward to 10 guests" in err
    assert run(["issue", without[1], *OPTIONS, "--once", "--no-ledger"]) == 2
    assert "--once needs a ledger" in files.capsys.readouterr().err


def start(name: str, folder: Path, place: str, url: str) -> subprocess.Popen[bytes]:
    """A process that issues a file."""
    command = ["issue", str(folder / name), *OPTIONS, "--once", "--ledger", place, "--batch-size", "10"]
    return subprocess.Popen(
        [sys.executable, "-m", "thanx_async", *command],
        env=environment(url, XDG_STATE_HOME=str(folder)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def ended(*processes: subprocess.Popen[bytes]) -> list[int]:
    """The exit statuses of processes."""
    return [await asyncio.to_thread(process.wait, HANGS) for process in processes]


async def test_kills(tmp_path: Path, place: str) -> None:
    """Runs that are killed in the middle, with another file beside them, give everybody one reward."""
    written(tmp_path / "a.txt", *guests(300))
    written(tmp_path / "b.txt", *guests(400, 150))
    async with Emulator(limits=[], speed=JobSpeed(1e6, 0.01), faults=Faults(delay=0.05)) as emulator:

        async def run_both(requests: float) -> list[int]:
            both = [start(name, tmp_path, place, emulator.url) for name in ("a.txt", "b.txt")]
            wanted = len(emulator.requests) + requests

            def is_due() -> bool:
                return len(emulator.requests) >= wanted or all(one.poll() is not None for one in both)

            await until(is_due)
            for process in both:
                process.send_signal(signal.SIGKILL)
            return await ended(*both)

        for number in range(1, 5):
            await run_both(6 * number)
        await run_both(inf)
        for name in ("a.txt", "b.txt", "a.txt"):
            statuses = await ended(start(name, tmp_path, place, emulator.url))
        assert statuses == [0]
        assert emulator.reward_counts() == dict.fromkeys(guests(550), 1)


async def test_a_moved_file(tmp_path: Path, dsn: str) -> None:
    """A ledger that is moved to PostgreSQL takes along who has a reward."""
    written(tmp_path / "a.txt", *guests(15))
    written(tmp_path / "b.txt", *guests(20))
    await init(dsn)
    async with Emulator(limits=[], speed=JobSpeed(1e6, 0.01)) as emulator:
        file = str(tmp_path / "ledger.sqlite")
        assert await ended(start("a.txt", tmp_path, file, emulator.url)) == [0]
        await copy_outbox(file, dsn)
        assert await ended(start("b.txt", tmp_path, dsn, emulator.url)) == [0]
        assert emulator.reward_counts() == dict.fromkeys(guests(20), 1)
