"""What the command line says of guests' files that are not as they should be."""

import csv
from pathlib import Path

import pytest

from tests.helpers import OPTIONS, written
from thanx_async.cli import run
from thanx_async.cli._opening import HowToRead
from thanx_async.cli._reading import GuestFile
from thanx_async.emulator import Emulator

GOOD = '{"email": "good@example.com", "name": "Jane"}'


def plan(path: Path, *lines: str, column: str | None = None) -> int:
    return run(["plan", written(path, *lines), *(["--column", column] if column else [])])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"email":', "the line is not valid JSON"),
        ('{"email":"c@x.com"', "the line is not valid JSON"),
        ("c@x.com", "the line is not valid JSON"),
        ('{"mail": "c@x.com"}', "there is no key 'email'"),
        ("{}", "there is no key 'email'"),
        ('{"email": null}', "the key 'email' is null"),
        ('{"email": ""}', "empty"),
        ('{"email": 14155551234}', "the key 'email' is a number, not text"),
        ('{"email": true}', "the key 'email' is true or false, not text"),
        ('{"email": ["c@x.com"]}', "the key 'email' is an array, not text"),
        ('{"email": {"type": "email", "value": 2}}', "the key 'email' is an object, not text"),
        ('{"email": {"type": "fax", "value": "c@x.com"}}', 'the type must be "email" or "phone"'),
        ("null", "the line is null"),
        ('["email", null]', "the line is an array, not text"),
    ],
)
def test_a_line_that_is_no_guest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    """The reason tells what is wrong with the line, and nobody else is lost."""
    assert plan(tmp_path / "a.jsonl", GOOD, line, '{"email": "d@x.com"}', column="email") == 1
    printed = capsys.readouterr().out
    assert "3 read, 2 guests" in printed
    assert f"1 rejected: {reason} (position 1)" in printed
    assert "c@x.com" not in printed


def test_lines_without_a_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --column the key is named as well."""
    lines = ['{"type": "email", "value": "a@x.com"}', '{"type": "email"}', '{"type": "email", "value": null}']
    assert plan(tmp_path / "a.jsonl", *lines) == 1
    printed = capsys.readouterr().out
    assert "1 rejected: there is no key 'value' (position 1)" in printed
    assert "1 rejected: the key 'value' is null (position 2)" in printed


def test_a_line_that_is_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not called broken JSON."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD.encode() + b'\n{"email": "caf\xe9@example.com"}\n')
    assert run(["plan", str(file), "--column", "email"]) == 1
    assert "1 rejected: the line is not UTF-8 (position 1)" in capsys.readouterr().out


@pytest.mark.parametrize("broken", [[], ['{"email":']])
def test_the_first_object_lacks_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: list[str]
) -> None:
    """It is refused with the keys there are, also where lines come first that are no JSON."""
    file = tmp_path / "a.jsonl"
    assert plan(file, *broken, GOOD, column="Email") == 2
    assert "there is no key 'Email'; the keys of the first object: email, name" in capsys.readouterr().err
    assert plan(file, *broken, GOOD) == 2
    assert "say with --column which key holds the guest: email, name" in capsys.readouterr().err
    assert plan(file, *broken, GOOD, column="email") == (1 if broken else 0)
    assert f"{len(broken) + 1} read, 1 guest to" in capsys.readouterr().out


def test_the_first_objects_may_lack_the_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who exports without empty keys may begin with a guest who has no address."""
    assert plan(tmp_path / "a.jsonl", '{"id": 1}', '{"id": 2, "email": "a@x.com"}', column="email") == 1
    assert "1 rejected: there is no key 'email' (position 0)" in capsys.readouterr().out


def test_an_array_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An array over several lines is refused as a whole, though its last line looks like a pair."""
    lines = ["[", '  ["email", "a@x.com"],', '  ["email", "b@x.com"]', "]"]
    assert plan(tmp_path / "a.json", *lines) == 2
    assert "the file is one JSON array" in capsys.readouterr().err


def test_a_broken_pair_is_no_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A first line that is cut off is rejected like any other."""
    assert plan(tmp_path / "a.jsonl", '["email", "a@x.com"', '["email", "b@x.com"]') == 1
    assert "1 rejected: the line is not valid JSON (position 0)" in capsys.readouterr().out


def test_keys_that_are_guests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are not shown."""
    assert plan(tmp_path / "a.jsonl", '{"jane@example.com": 1}', column="email") == 2
    message = capsys.readouterr().err
    assert "are guests, not names" in message
    assert "jane" not in message


def test_only_broken_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are rejected, however many there are before the end or the first that is JSON."""
    assert plan(tmp_path / "a.jsonl", '{"email":') == 1
    assert "1 rejected: the line is not valid JSON (position 0)" in capsys.readouterr().out
    assert plan(tmp_path / "a.jsonl", *['{"email":'] * 150, '"a@example.com"') == 1
    printed = capsys.readouterr().out
    assert "151 read, 1 guest to" in printed
    assert "150 rejected: the line is not valid JSON" in printed


@pytest.mark.parametrize(
    "lines",
    [
        ["{", '  "email": "jane@example.com",', '  "name": "Jane"', "}"],
        ["", '{ "email": "jane@example.com"', ', "name": "Jane"', "}"],
    ],
)
@pytest.mark.parametrize("column", [None, "email"])
def test_an_object_over_several_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], column: str | None
) -> None:
    """It is refused, with what would be right."""
    assert plan(tmp_path / "a.json", *lines, column=column) == 2
    message = capsys.readouterr().err
    assert "spans several lines; write one object per line" in message
    assert "jane" not in message


def test_the_failures_show_the_line(served: Emulator, tmp_path: Path) -> None:
    """What held no guest is listed as it stands in the file, up to 320 characters."""
    lines = ['{"email": null, "id": 7}', '{"email": {"type": "email", "value": 2}}', '{"id": 8}', "{" * 400]
    file, out = written(tmp_path / "a.jsonl", GOOD, *lines, '{"email": "junk"}'), tmp_path / "failures.csv"
    assert run(["issue", file, "--column", "email", "--failures", str(out), *OPTIONS]) == 1
    rows = list(csv.reader(out.read_text().splitlines()))[1:]
    assert [row[1] for row in rows] == [*lines[:3], "{" * 320, "junk"]
    assert served.reward_counts() == {"good@example.com": 1}


def test_columns_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first message says to rename one; columns without a name are no such case."""
    file = tmp_path / "a.csv"
    assert plan(file, "email,id,email", "a@x.com,1,b@x.com") == 2
    assert (
        "which column to read: email, id, email; more than one is called email: rename all but one"
        in capsys.readouterr().err
    )
    assert plan(file, "email,id,email", column="email") == 2
    assert "there is more than one column 'email': rename all but one of them" in capsys.readouterr().err
    assert plan(file, "email,id,email", "a@x.com,1,b@x.com", column="id") == 1
    assert plan(file, "email,,", "a@x.com,,") == 2
    assert "rename" not in capsys.readouterr().err


async def test_lines_keep_their_places(tmp_path: Path) -> None:
    """What was read ahead comes first, once, and in order."""
    names = [f"g{number}@example.com" for number in range(5_000)]
    file = written(tmp_path / "a.jsonl", "{", *(f'{{"email": "{name}"}}' for name in names))
    guests = GuestFile(file, HowToRead(column=("email",)))
    try:
        assert [str(guest) async for guest in guests] == ["{", *names]
    finally:
        guests.close()
