"""The list of guests without a reward: what is in it, what it says, and which files it touches."""

import csv
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.helpers import LOST, OPTIONS, UNAUTHORIZED, counts, guests, written
from thanx_async.cli import run
from thanx_async.cli._failures import cell
from thanx_async.emulator import Emulator

ODD = ["=unknown@example.com", "-unknown@example.com", "'unknown@example.com", "unknown@example.com"]


def listed(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.parametrize("options", [[], ["--no-ledger"]])
def test_who_was_not_sent_is_listed(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    """A stopped run lists everybody without a reward, says how far it has read, and how to go on."""
    rows = ["junk", *(f"unknown{number}@example.com" for number in range(5)), *guests(5_000)]
    out = tmp_path / "failures.csv"
    command = ["issue", written(tmp_path / "a.csv", "email", *rows), *OPTIONS, *options, "--run-id", "march"]
    guard = ["--canary", "5", "--max-failure-rate", "0.1"]
    assert run([*command, *guard, "--failures", str(out)]) == 3
    printed = capsys.readouterr()
    fates = counts(printed.out)
    read = sum(fates.values())
    assert 6 < read < len(rows)
    reasons = [row[2] for row in listed(out)]
    assert [row[:2] for row in listed(out)] == [[str(place), row] for place, row in enumerate(rows[:read])]
    assert reasons[1:] == ["User not found"] * 5 + ["not sent"] * (read - 6)
    assert (
        f"{read:,} guests who got no reward are listed in {out}: 5 failed, 1 rejected, {read - 6:,} unsent\n"
        f"read up to row {read:,} of {tmp_path / 'a.csv'}, not counting the header; nothing after it"
    ) in printed.out
    assert "to continue, give the same command and guests with --run-id march" in printed.err
    assert f"do not issue {out} as well" in printed.err
    assert ("idempotency keys" in printed.err) == bool(options)


def test_who_may_get_a_reward_is_not_listed(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list says how many are in doubt and leaves them out; nothing is said of a file that was read."""
    out = tmp_path / "failures.csv"
    served.script(LOST, UNAUTHORIZED)
    command = ["issue", written(tmp_path / "a.txt", "junk", *guests(5)), *OPTIONS, "--failures", str(out)]
    assert run(command) == 3
    printed = capsys.readouterr().out
    assert [row[1] for row in listed(out)] == ["junk"]
    assert "listed in" in printed
    assert "; 5 in doubt or unfinished are not, since they may get one" in printed
    assert run(command) == 1
    assert "read up to row" not in printed + capsys.readouterr().out


def test_formulas(served: Emulator, tmp_path: Path) -> None:
    """No cell is a formula or has control characters, and the list, read again, holds the same guests."""
    raw = ["=cmd|' /C calc'!A0", "@SUM(1)", "+1415", " =1", "'=1", "j\x1b[2Jane@example.com", "\uff1d1@x.com"]
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    source = written(tmp_path / "a.txt", *raw, *[f"'{value}" for value in ODD], "+1 (999) 555-1234")
    served.script(UNAUTHORIZED)
    assert run(["issue", source, *OPTIONS, "--no-ledger", "--failures", str(first)]) == 3
    assert len(listed(first)) == len(raw) + len(ODD) + 1
    assert "\x1b" not in first.read_text()
    cells = [cell for row in listed(first) for cell in row]
    assert not any(cell.lstrip().startswith(tuple("=+-@\uff1d")) for cell in cells)
    again = ["issue", str(first), "--column", "value", *OPTIONS, "--no-ledger", "--failures", str(second)]
    served.script(UNAUTHORIZED)
    assert run(again) == 3
    assert listed(second) == listed(first)
    assert run(again) == 1
    assert served.reward_counts() == dict.fromkeys(ODD[:3], 1)
    assert [row[1] for row in listed(second)[-2:]] == [ODD[3], "'+19995551234"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "  =", "\uff0b", "\t=", "\r", "\n="])
def test_cells(start: str) -> None:
    """A cell never begins with what starts a formula, and stays readable."""
    assert cell(f"{start}x")[0] in "'\\"
    assert cell("x=1") == "x=1"


def fifo(path: Path) -> None:
    os.mkfifo(path)


def foreign(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("make", [fifo, foreign])
def test_only_own_files_are_made_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    """Neither a pipe or device nor another user's file has its mode changed; both are written."""
    path = tmp_path / "failures.csv"
    make(path)
    path.chmod(0o666)
    texts: list[str] = []
    reader = threading.Thread(target=lambda: texts.append(path.read_text()))
    if make is fifo:
        reader.start()
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert run(["issue", written(tmp_path / "a.txt", "junk"), "--emulator", "--failures", str(path)]) == 1
    if make is fifo:
        reader.join()
    else:
        texts.append(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert "junk" in texts[0]


def test_a_database_is_not_overwritten(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Path
) -> None:
    """Neither a database, nor a link to the ledger, nor a file of the command line's own is emptied."""
    other, ledger = tmp_path / "other.sqlite", tmp_path / "runs.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (x)")
    before = other.read_bytes()
    (tmp_path / "link").symlink_to(ledger)
    command = ["issue", written(tmp_path / "a.txt", "a@x.com"), *OPTIONS, "--ledger", str(ledger)]
    for path, what in (
        (other, "is a database"),
        (tmp_path / "link", "is the ledger's"),
        (state / "limits.csv", "is in the directory of the rate limits and recorded runs"),
    ):
        assert run([*command, "--failures", str(path)]) == 2
        assert f"{path} {what}; give --failures another file" in capsys.readouterr().err
    assert other.read_bytes() == before
    assert served.jobs_accepted == 0


def test_a_linked_state_directory_keeps_its_mode(served: Emulator, tmp_path: Path, state: Path) -> None:
    """A directory that the state directory links to is used as it is."""
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    state.parent.mkdir()
    state.symlink_to(shared)
    assert run(["scopes"]) == 0
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755
    (limits,) = shared.glob("*.sqlite3")
    assert stat.S_IMODE(limits.stat().st_mode) == 0o600
