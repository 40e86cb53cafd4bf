"""The list of guests without a reward: what is in it, what it says, and which files it touches."""

import csv
import io
import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest.mock import ANY

import openpyxl
import pytest

from tests.helpers import LOST, OPTIONS, UNAUTHORIZED, counts, guests, written
from thanx_async import IssuancePlan
from thanx_async.cli import run
from thanx_async.cli._failures import FailureFile, cell
from thanx_async.emulator import Emulator

ODD = ["=unknown@example.com", "-unknown@example.com", "'unknown@example.com", "unknown@example.com"]


def table(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.reader(file))


def listed(path: Path) -> list[list[str]]:
    return table(path)[1:]


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
    reasons = [row[3] for row in listed(out)]
    assert [row[:2] for row in listed(out)] == [[str(place), row] for place, row in enumerate(rows[:read], 2)]
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
    assert [row[1:] for row in listed(second)] == [row[1:] for row in listed(first)]
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


SHEET = (
    "id;email;note\n1;a@x.com;first\n2; junk ;=SUM(A1)\n\n3;A@X.com;again\n"
    '4;unknown@x.com;"two\nlines"\n5;b@x.com;x;too many\n6;\u200bunknown6@x.com\u200b;\n'
)


def sheet(path: Path) -> str:
    path.write_text(SHEET)
    return str(path)


def test_rows_and_columns(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The list has the sheet's row numbers and columns, the fate and the reason, and is UTF-8 for Excel."""
    out = tmp_path / "out.csv"
    command = ["issue", sheet(tmp_path / "a.csv"), "--column", "email", *OPTIONS, "--failures", str(out)]
    assert run(command) == 1
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
    header, *rows = table(out)
    assert header == ["row", "id", "email", "note", "fate", "reason"]
    assert [row[:5] for row in rows] == [
        ["3", "2", "junk", "'=SUM(A1)", "rejected"],
        ["5", "3", "A@X.com", "again", "duplicate"],
        ["6", "4", "unknown@x.com", r"two\nlines", "failed"],
        ["7", "5", "b@x.com", "x", "rejected"],
        ["8", "6", "unknown6@x.com", "", "failed"],
    ]
    assert rows[3][6:] == ["too many"]
    printed = capsys.readouterr().out
    assert f"4 guests who got no reward are listed in {out}, and 1 row that repeats a guest" in printed


def test_a_mended_list(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same options read the list, by name or number of the column; a duplicate stays without a reward."""
    for place, column in enumerate(("email", "2")):
        file, out = sheet(tmp_path / f"{place}.csv"), tmp_path / f"out{place}.csv"
        assert run(["issue", file, "--column", column, *OPTIONS, "--failures", str(out)]) == 1
        mended = out.read_text(encoding="utf-8-sig").replace("junk", f"mended{place}@x.com")
        out.write_text(mended.replace("unknown@x.com", f"found{place}@x.com").replace(",too many", ""))
        capsys.readouterr()
        assert run(["issue", str(out), "--column", column, *OPTIONS]) == 1
        printed = capsys.readouterr().out
        assert "1 row was left out: the fate there is duplicate" in printed
        assert "blank row" not in printed
        assert served.reward_counts()["a@x.com"] == place + 1
        assert {f"mended{place}@x.com", f"found{place}@x.com", "b@x.com"} <= set(served.reward_counts())


def test_the_only_column_needs_no_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A list is read like the file that it comes from: what was added to one column makes it no table."""
    out = tmp_path / "out.csv"
    assert run(["plan", written(tmp_path / "a.csv", "email", "junk", "a@x.com"), "--failures", str(out)]) == 1
    assert table(out)[1][:3] == ["2", "junk", "rejected"]
    capsys.readouterr()
    assert run(["plan", str(out)]) == 1
    assert "1 read, 0 guests to reward" in capsys.readouterr().out


def test_the_list_of_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan lists what is rejected or a duplicate, and sends nothing."""
    out = tmp_path / "out.csv"
    assert run(["plan", sheet(tmp_path / "a.csv"), "--column", "email", "--failures", str(out)]) == 1
    assert [(row[0], row[4]) for row in listed(out)] == [
        ("3", "rejected"),
        ("5", "duplicate"),
        ("7", "rejected"),
    ]
    assert f"3 rows are listed in {out}" in capsys.readouterr().out


def test_a_file_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns are never those of another row: without the file as it was, there are positions and values."""
    out, file = tmp_path / "out.csv", tmp_path / "a.csv"
    command = ["plan", sheet(file), "--column", "email", "--failures", str(out)]
    write = FailureFile.write_plan

    def change(self: FailureFile, plan: IssuancePlan) -> str:
        file.write_text("id,email\n" + SHEET)
        return write(self, plan)

    monkeypatch.setattr(FailureFile, "write_plan", change)
    assert run(command) == 1
    assert table(out)[:2] == [["position", "value", "fate", "reason"], ["1", "junk ", "rejected", ANY]]
    assert f"without their columns: {file} has changed since it was read" in capsys.readouterr().out


def test_a_file_that_changes_while_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that were written by then are replaced."""
    out, file = tmp_path / "out.csv", tmp_path / "a.csv"
    stamps = iter([(1,), (1,), (2,)])
    monkeypatch.setattr("thanx_async.cli._reading.stamp", lambda _: next(stamps))
    monkeypatch.setattr("thanx_async.cli._original.stamp", lambda _: next(stamps))
    assert run(["plan", sheet(file), "--column", "email", "--failures", str(out)]) == 1
    assert [row[:2] for row in table(out)] == [
        ["position", "value"],
        ["1", "junk "],
        ["2", "a@x.com"],
        ["4", "5, b@x.com, x, too many"],
    ]
    assert "has changed since it was read" in capsys.readouterr().out


def test_a_pipe_has_no_second_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests from standard input are listed by their positions and values."""
    out = tmp_path / "out.csv"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(SHEET.encode())))
    assert run(["plan", "-", "--format", "csv", "--column", "email", "--failures", str(out)]) == 1
    assert table(out)[1][:3] == ["1", "junk ", "rejected"]


def test_a_workbook_is_listed(tmp_path: Path) -> None:
    """The rows of a sheet are those that the user sees, also below blank ones."""
    book = openpyxl.Workbook()
    filled = book.active
    assert filled is not None
    for cells in ((None, None), ("id", "email"), (1, "a@x.com"), (None, None), (2.5, "junk")):
        filled.append(cells)
    file, out = tmp_path / "a.xlsx", tmp_path / "out.csv"
    book.save(file)
    assert run(["plan", str(file), "--column", "email", "--failures", str(out)]) == 1
    assert [row[:4] for row in table(out)] == [
        ["row", "id", "email", "fate"],
        ["5", "2.5", "junk", "rejected"],
    ]
