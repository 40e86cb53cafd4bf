"""The commands as a user types them, against an emulator in another thread."""

import csv
import io
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers import MERCHANT, OPTIONS, counts, guests, written
from thanx_async import __main__ as entry
from thanx_async.cli import COMMANDS, run
from thanx_async.emulator import Emulator, Faults


def test_a_csv_without_a_header_loses_nobody(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its first guest is not taken for the name of a column, nor shown."""
    for lines in (
        ["jane@example.com", "joe@example.com"],
        ["jane@example.com,Jane", "joe@example.com,Joe"],
        ["Jane,(415) 555-1234"],
    ):
        file = written(tmp_path / "guests.csv", *lines)
        assert run(["issue", file, *OPTIONS]) == 2
        message = capsys.readouterr().err
        assert "the first line of the CSV holds a guest" in message
        assert "jane" not in message.lower()
    assert served.jobs_accepted == 0


@pytest.mark.parametrize("separator", [";", "\t"])
def test_what_spreadsheets_write(tmp_path: Path, capsys: pytest.CaptureFixture[str], separator: str) -> None:
    """Columns may be separated by semicolons or tabs; UTF-16 is read by its byte order mark."""
    rows = ["name;e-mail, or phone;city", '"Doe, Jane";jane@example.com;Rome', "Joe;joe@example.com;Bern"]
    file = written(tmp_path / "a.csv", *(row.replace(";", separator) for row in rows))
    if separator == ";":
        assert run(["plan", file, "--column", "city"]) == 1
        assert "2 read, 0 guests" in capsys.readouterr().out
    assert run(["plan", file, "--column", "e-mail, or phone"]) == 0
    assert "2 read, 2 guests" in capsys.readouterr().out
    Path(file).write_text("email\njane@example.com\n", encoding="utf-16")
    assert run(["plan", file]) == 0
    assert "1 read, 1 guest to" in capsys.readouterr().out


@pytest.mark.parametrize("text", ['["a@example.com", "b@example.com", "c@example.com"]', "[\n", '[{"a": 1}]'])
def test_a_json_array(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """One array is not a guest on each line, which is said; a pair is a guest."""
    assert run(["plan", written(tmp_path / "a.json", text)]) == 2
    assert "the file is one JSON array" in capsys.readouterr().err
    assert run(["plan", written(tmp_path / "a.json", '["email", "a@example.com"]')]) == 0


@pytest.mark.parametrize("last", ['"Bob', '"Bob"'])
def test_a_quote_that_swallows_guests(tmp_path: Path, capsys: pytest.CaptureFixture[str], last: str) -> None:
    """A quote that ends rows later, or never, is told with its lines; a note of several lines is fine."""
    rows = [f"{guest},Name" for guest in guests(20)]
    rows[3] = f'{guests(20)[3]},"Bob'
    rows[9] = f"{guests(20)[9]},{last}"
    assert run(["plan", written(tmp_path / "a.csv", "email,name", *rows), "--column", "email"]) == 2
    assert "a quote in line 5 of the CSV ends in line" in capsys.readouterr().err
    rows[3:10] = [f'{guests(20)[3]},"a note', "of several, or more,", 'lines"']
    assert run(["plan", written(tmp_path / "a.csv", "", "email,name", *rows), "--column", "email"]) == 0
    assert "14 read, 14 guests" in capsys.readouterr().out


def test_a_quote_that_is_not_closed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the line, and there is no traceback."""
    file = written(tmp_path / "guests.csv", "email", '"jane@example.com', *["joe@example.com"] * 10_000)
    assert run(["plan", file]) == 2
    assert "is a quote not closed?" in capsys.readouterr().err


def test_a_list_of_failures_is_not_lost(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stays where nothing is done anew, and never takes the place of the input."""
    file, out = written(tmp_path / "guests.txt", "jane@example.com", "junk"), tmp_path / "failures.csv"
    command = ["issue", file, "--ledger", str(tmp_path / "ledger"), *OPTIONS, "--failures"]
    assert run([*command, str(out)]) == 1
    listed = out.read_text()
    assert "junk" in listed
    assert run([*command, str(out)]) == 2
    assert out.read_text() == listed
    assert run([*command, file, "--run-id", "another"]) == 2
    assert Path(file).read_text() == "jane@example.com\njunk\n"
    assert "is the file that the guests are read from" in capsys.readouterr().err


def test_a_csv_file(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers, the positions and the list of failures are exact."""
    lines = [f"{number},{guest}" for number, guest in enumerate(guests(25_000))]
    for place in range(50):
        lines[100 + 499 * place] = f"{place},not a guest"
        lines[200 + 499 * place] = f"{place},guest{place}@example.com"
        lines[300 + 499 * place] = f"{place},unknown{place}@example.com"
    file, out = written(tmp_path / "guests.csv", "id,email", *lines), tmp_path / "failures.csv"
    out.touch(0o644)
    status = run(["issue", file, "--column", "email", "--failures", str(out), *OPTIONS])
    printed = capsys.readouterr()
    assert status == 1, printed.err
    assert counts(printed.out) == {
        "issued": 24_850,
        "failed": 50,
        "rejected": 50,
        "duplicates": 50,
        "unsent": 0,
        "in doubt": 0,
        "unfinished": 0,
    }
    assert "50 rejected: " in printed.out
    assert "(positions 100, 599, 1098, 1597, 2096, ...)" in printed.out
    assert "not a guest" not in printed.out + printed.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    rows = list(csv.reader(out.read_text(encoding="utf-8-sig").splitlines()))
    assert rows[0] == ["row", "id", "email", "fate", "reason"]
    expected = {102 + 499 * place: ("not a guest", "rejected") for place in range(50)}
    expected |= {202 + 499 * place: (f"guest{place}@example.com", "duplicate") for place in range(50)}
    expected |= {302 + 499 * place: (f"unknown{place}@example.com", "failed") for place in range(50)}
    assert {int(row): (email, fate) for row, _, email, fate, _ in rows[1:]} == expected
    assert [int(row[0]) for row in rows[1:]] == sorted(expected)


@pytest.mark.parametrize(
    ("name", "lines", "options"),
    [
        ("guests.txt", guests(3), []),
        ("guests.csv", ["email", *guests(3)], []),
        ("guests.dat", ["email", *guests(3)], ["--format", "csv"]),
        ("guests.jsonl", [f'{{"who": "{guest}"}}' for guest in guests(3)], ["--column", "who"]),
        ("guests.ndjson", [f'"{guest}"' for guest in guests(3)], []),
        ("guests.csv", ['"e-mail"', *[f'"{guest}"' for guest in guests(3)]], ["--column", "e-mail"]),
    ],
)
def test_formats(
    served: Emulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    lines: list[str],
    options: list[str],
) -> None:
    """Every documented format is read."""
    assert run(["issue", written(tmp_path / name, *lines), *options, *OPTIONS]) == 0
    assert counts(capsys.readouterr().out)["issued"] == 3


def test_broken_lines_are_rejected(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Short rows, bytes that are no UTF-8 and lines that are no JSON are rejected one by one."""
    table = tmp_path / "guests.csv"
    table.write_bytes(b"id,email\n1\n2,caf\xe9@example.com\n3,a@example.com\n")
    assert run(["issue", str(table), "--column", "email", *OPTIONS]) == 1
    assert counts(capsys.readouterr().out)["rejected"] == 2
    rows = written(tmp_path / "guests.jsonl", "{", '{"email": "b@example.com"}', '{"other": 1}')
    assert run(["issue", rows, "--column", "email", *OPTIONS]) == 1
    assert counts(capsys.readouterr().out)["rejected"] == 2
    assert served.reward_counts() == {"a@example.com": 1, "b@example.com": 1}


def test_standard_input(
    served: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dash reads standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a@example.com\r\n+14155551234\r\n")))
    assert run(["issue", "-", *OPTIONS]) == 0
    assert counts(capsys.readouterr().out)["issued"] == 2


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        (["issue"], "FILE"),
        (["issue", "x.txt", "--nope"], "--nope"),
        (["issue", "x.txt"], "--campaign, --merchant, --variant missing"),
        (["issue", "nowhere.csv", *OPTIONS], "cannot read nowhere.csv: No such file"),
        (["issue", "empty.csv", *OPTIONS], "the CSV file is empty"),
        (["issue", "two.csv", *OPTIONS], "say with --column which column to read: id, email"),
        (["issue", "two.csv", "--column", "mail", *OPTIONS], "no column 'mail'; the header names: id, email"),
        (["issue", "plain.txt", "--column", "mail", *OPTIONS, "--format", "lines"], "--column goes with"),
        (
            ["issue", "plain.txt", *OPTIONS, "--batch-size", "0"],
            "--batch-size must be a whole number from 1 to",
        ),
        (
            ["issue", "plain.txt", *OPTIONS, "--max-rewards", "-1"],
            "--max-rewards must be a whole number from 0",
        ),
        (["issue", "plain.txt", *OPTIONS, "--canary", "3"], "--canary needs --max-failure-rate, such as 0.1"),
        (["issue", "plain.txt", *OPTIONS, "--max-failure-rate", "2"], "--max-failure-rate must be a number"),
        (
            ["issue", "plain.txt", *OPTIONS, "--run-id", "a\nb"],
            "--run-id has a character that cannot be shown",
        ),
        (
            ["issue", "plain.txt", *OPTIONS, "--max-rewards", "2.9"],
            "--max-rewards: '2.9' is not a whole number",
        ),
        (
            ["issue", "plain.txt", *OPTIONS, "--batch-size", "1.5"],
            "--batch-size: '1.5' is not a whole number",
        ),
        (["demo", "--guests", "10.7"], "--guests: '10.7' is not a whole number"),
        (["ledger", "settle", "march", "0.6", "--issued"], "'0.6' is not a whole number"),
        (["ledger", "runs", "--ledger", ""], "--ledger: the name is empty"),
        (
            ["ledger", "runs", "--ledger", "postgresql+asyncpg://u:pw@host/db"],
            "--ledger: it begins with postgresql+asyncpg://; give postgresql://..., or a file",
        ),
        (["outbox", "drain", "--store", "x.db", "--linger", "-1"], "--linger must be a number from 0"),
        (["outbox", "drain", "--store", "mysql://u:pw@host/db"], "it begins with mysql://"),
        (["issue", "plain.txt", *OPTIONS, "--failures", ""], "--failures: the name is empty"),
        (["job", "show", "", "--merchant", "m"], "job_id is empty"),
        (["issue", "plain.txt", *OPTIONS, "--failures", "no/where.csv"], "cannot write no/where.csv"),
        (["plan", "plain.txt", "--format", "xml"], "xml"),
        (["plan", ""], "FILE is empty"),
        (["plan", "Guard.csv"], "cannot read Guard.csv: No such file"),
        (["plan", "ids.csv"], "which column to read: email, campaign_id, merchant_id"),
        (["plan", "ids.csv", "--column", "variant_id"], "no column 'variant_id'"),
        (["issue", "plain.txt", *OPTIONS, "--run-id", ""], "--run-id is empty"),
        (
            ["job", "wait", "j", "--merchant", "m", "--timeout", "nan"],
            "--timeout must be more than 0 s, not nan",
        ),
        (["plan", "keys.jsonl"], "which key holds the guest: name, mail"),
        (["plan", "twice.csv", "--column", "email"], "more than one column 'email'"),
        (["ledger", "runs", "--ledger", "empty.csv"], "is an empty file, not a ledger"),
        (["demo", "--guests", "-3"], "--guests must be 0 or more, not -3"),
        (
            ["issue", "plain.txt", *OPTIONS, "--ledger", "x.db", "--failures", "x.db-wal"],
            "x.db-wal is the ledger's",
        ),
        (["emulator", "--limits", "five"], "--limits must look like"),
        (["nope"], "nope"),
    ],
)
def test_wrong_use(
    served: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    phrase: str,
) -> None:
    """A usage error ends with status 2 and a message that says what is wrong."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "empty.csv")
    written(tmp_path / "two.csv", "id,email")
    written(tmp_path / "twice.csv", "email,email")
    written(tmp_path / "ids.csv", "email,campaign_id,merchant_id")
    written(tmp_path / "keys.jsonl", '{"name": "Jane", "mail": "jane@example.com"}')
    written(tmp_path / "plain.txt", "a@example.com")
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert phrase in " ".join((printed.out + printed.err).replace("│", "").split())
    assert served.requests == []


def test_a_missing_credential_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The missing variable is named."""
    monkeypatch.delenv("THANX_CLIENT_ID", raising=False)
    assert run(["issue", written(tmp_path / "a.txt", "a@example.com"), *OPTIONS]) == 2
    assert "THANX_CLIENT_ID is not set" in capsys.readouterr().err


def test_a_wrong_campaign(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A campaign that does not exist stops the run, and everybody is unsent; long lists are cut."""
    options = ["--campaign", "nope", "--merchant", MERCHANT, "--variant", "var_treat1"]
    assert run(["issue", written(tmp_path / "a.txt", *guests(70)), *options, "--batch-size", "10"]) == 3
    printed = capsys.readouterr()
    assert "stopped: HTTP 404 RESOURCE_NOT_FOUND" in printed.err
    assert counts(printed.out)["unsent"] == 70
    assert "unsent: certainly not issued: positions 0 to 9, 10 guests" in printed.out
    assert "unsent: certainly not issued: 2 more batches, to position 69, 20 guests" in printed.out


@contextmanager
def interrupted_after(happened: Callable[[], bool]) -> Iterator[None]:
    """Press Ctrl-C once this has happened."""

    def press() -> None:
        while not happened() and not done.wait(0.01):
            pass
        if not done.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    done = threading.Event()
    finger = threading.Thread(target=press)
    finger.start()
    try:
        yield
    finally:
        done.set()
        finger.join()


def test_doubt_is_reported_with_its_key(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped while Thanx gives no answer, a run reports its batch in doubt; the same command settles it."""
    served.faults = Faults(html_502=1)
    command = ["issue", written(tmp_path / "a.txt", *guests(5)), *OPTIONS, "--run-id", "march"]
    with interrupted_after(lambda: len(served.requests) >= 2):
        assert run(command) == 3
    printed = capsys.readouterr()
    assert "stopped as asked" in printed.err
    assert counts(printed.out)["in doubt"] == 5
    assert served.requests[0].idempotency_key is not None
    assert served.requests[0].idempotency_key in printed.out
    served.faults = Faults()
    assert run(command) == 0


def test_odd_names(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The run of a file whose name cannot be shown has a name that can, and the same each time."""
    file = written(tmp_path / "gue\nsts.txt", "a@example.com")
    assert run(["issue", file, *OPTIONS]) == 0
    assert "Run gue_sts.txt-" in capsys.readouterr().out
    assert run(["issue", file, *OPTIONS]) == 2
    assert "run gue_sts.txt-" in capsys.readouterr().err


def test_a_list_of_failures_that_cannot_be_written(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The report is shown all the same, and the file is named."""
    file = written(tmp_path / "a.txt", "a@example.com", "junk")
    assert run(["issue", file, *OPTIONS, "--failures", "/dev/full"]) == 1
    printed = capsys.readouterr()
    assert counts(printed.out)["issued"] == 1
    assert "cannot write /dev/full: No space left on device; the report is still accurate" in printed.err


def test_a_plan(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan tells what would be sent, and sends nothing."""
    assert run(["plan", written(tmp_path / "a.txt", *guests(25), "junk"), "--batch-size", "10"]) == 1
    printed = capsys.readouterr().out
    assert "26 read, 25 guests to reward, in 3 requests" in printed
    assert "1 rejected, 0 duplicates" in printed
    assert "(position 25)" in printed
    assert served.requests == []


def test_jobs(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job is shown, waited for and revoked by its id."""
    run(["issue", written(tmp_path / "a.txt", *guests(5), "unknown@example.com"), *OPTIONS])
    capsys.readouterr()
    job = ["job000001", "--merchant", MERCHANT]
    assert run(["job", "show", *job]) == 0
    assert "job000001: completed, 6 of 6 processed\n  5 issued, 1 failed" in capsys.readouterr().out
    assert run(["job", "wait", *job, "--timeout", "5"]) == 1
    assert run(["job", "revoke", *job, "--yes"]) == 0
    assert served.reward_counts() == {}
    capsys.readouterr()
    assert run(["job", "show", "nope", "--merchant", MERCHANT]) == 3
    assert "HTTP 404" in capsys.readouterr().err


def test_lists(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be issued is listed with the ids that `issue` takes."""
    for command, row in (
        (["campaigns", "--merchant", MERCHANT], "camp_abc123  Campaign 123, ends 2035-01-01\n"),
        (["campaigns", "--merchant", MERCHANT], "  var_control1  Control (gives nothing)\n"),
        (["templates", "--merchant", MERCHANT], "tmpl002  Treat 2 (discount/amount)\n"),
        (["merchants"], f"{MERCHANT}  Seed Bakery\n"),
        (["scopes"], "rewards.issue\n"),
    ):
        assert run(command) == 0
        assert row in capsys.readouterr().out
    assert run(["campaigns", "--merchant", "nobody"]) == 3
    assert "merchant_id names no merchant" in capsys.readouterr().err


def test_the_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    """The demonstration needs nothing, and reports."""
    assert run(["demo", "--guests", "1000"]) == 0
    printed = capsys.readouterr().out
    assert "1,000 lines of input" in printed
    assert counts(printed) | {"issued": 0} == {
        "issued": 0,
        "failed": 2,
        "rejected": 2,
        "duplicates": 2,
        "unsent": 0,
        "in doubt": 0,
        "unfinished": 0,
    }


def test_help_and_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Help and version answer, also through the entry point."""
    monkeypatch.setattr(sys, "argv", ["thanx-async", "--help"])
    with pytest.raises(SystemExit) as caught:
        entry.main()
    assert caught.value.code == 0
    assert "Issue Thanx rewards in bulk" in capsys.readouterr().out


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_help_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command's own help shows the text that describes it in the list of commands."""
    _, text = COMMANDS[command]
    assert run([command, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert " ".join(text.split()) in shown


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its extra the command says how to install it."""
    monkeypatch.setitem(sys.modules, "thanx_async.cli", None)
    with pytest.raises(SystemExit, match=r"thanx-async\[cli\]"):
        entry.main()
