"""Files as spreadsheets, shops, CRMs and data frames write them."""

import csv
import datetime
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import attrs
import openpyxl
import pytest
import xlwt
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import OPTIONS, counts, written
from thanx_async.cli import run
from thanx_async.cli._opening import HowToRead
from thanx_async.cli._reading import GuestFile
from thanx_async.emulator import Emulator

JANE, JOE = "jane@example.com", "joe@example.com"
SHOPIFY = [
    ["First Name", "Last Name", "Email", "Accepts Email Marketing", "Phone", "Note", "Tags"],
    ["Jane", "Doe", JANE, "yes", "'+14155551234", "likes tea\nand, well, cake", "vip, new"],
    ["Joe", "Smith, Jr.", JOE, "no", "", "", ""],
]
HUBSPOT = [
    ["Record ID", "First Name", "Email", "Create Date", "Associated Company"],
    ["151", "Jane", JANE, "2025-06-01 10:30", "Doe; Sons"],
    ["152", "Joe", JOE, "2025-06-02 11:00", ""],
]
MAILCHIMP = [
    ["Email Address", "First Name", "MEMBER_RATING", "OPTIN_TIME", "LEID", "TAGS"],
    [JANE.upper(), "Jane", "2", "2025-06-01 10:30:00", "448", '"VIP"'],
    [JOE, "Joe", "2", "2025-06-01 10:31:00", "449", ""],
]
OUTLOOK = [
    ["First Name", "E-mail Address", "E-mail Type", "Home Address"],
    ["Jane", f"Jane Doe <{JANE}>", "SMTP", "1 Main St\nSpringfield"],
    ["Joe", f"mailto:{JOE}", "SMTP", ""],
]
TABLES = [(SHOPIFY, "Email"), (HUBSPOT, "email"), (MAILCHIMP, "Email Address"), (OUTLOOK, "e-mail address")]


def table(rows: list[list[str]], delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(rows)  # type: ignore[arg-type]  # an int
    return text.getvalue()


def plan(path: Path, *options: str) -> int:
    return run(["plan", str(path), *options])


def guests_in(path: Path, how: HowToRead) -> list[str]:
    """The items, read at once."""
    file = GuestFile(str(path), how)
    items = list(file._first)
    while part := file._slice():
        items += part
    file.close()
    return [str(item) for item in items]


@pytest.mark.parametrize(("rows", "column"), TABLES)
@pytest.mark.parametrize(
    ("name", "before", "delimiter", "encoding", "quoting"),
    [
        ("excel.csv", "", ";", "utf-8-sig", csv.QUOTE_MINIMAL),
        ("excel-sep.csv", "sep=;\r\n", ";", "utf-8-sig", csv.QUOTE_MINIMAL),
        ("unicode.txt", "", "\t", "utf-16", csv.QUOTE_MINIMAL),
        ("sheets.csv", "", ",", "utf-8", csv.QUOTE_MINIMAL),
        ("sheets.tsv", "", "\t", "utf-8", csv.QUOTE_MINIMAL),
        ("numbers.csv", "\r\n;;;;\r\n", ";", "utf-8", csv.QUOTE_MINIMAL),
        ("warehouse.csv", "", "|", "utf-8", csv.QUOTE_ALL),
        ("utf32.csv", "", ",", "utf-32", csv.QUOTE_ALL),
    ],
)
def test_an_export(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[list[str]],
    column: str,
    name: str,
    before: str,
    delimiter: str,
    encoding: str,
    quoting: int,
) -> None:
    """Every program's guests are read, whatever is between the cells, from a file or a pipe."""
    file = tmp_path / name
    file.write_bytes((before + table(rows, delimiter, quoting)).encode(encoding))
    assert plan(file, "--column", column) == 0
    printed = capsys.readouterr().out
    assert "2 read, 2 guests" in printed
    assert "Reading column " in printed
    sys_stdin = io.TextIOWrapper(io.BytesIO(file.read_bytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", sys_stdin)
        assert plan(Path("-"), "--column", column) == 0
    assert "2 read, 2 guests" in capsys.readouterr().out


@pytest.mark.parametrize(
    "header", ['"name", "email"', "email", '"first\nname","email"', "\ufeffemail;\u200bname "]
)
def test_odd_headers(tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str) -> None:
    """A blank before a quote, a line end within a name and marks that nobody sees change no column."""
    columns = header.count(",") + header.count(";") + 1
    mark = ";" if ";" in header else ","
    row = mark.join([JANE] * columns)
    file = tmp_path / "a.csv"
    file.write_text(f"{header}\n{row}\n", newline="")
    assert plan(file, "--column", " EMAIL ") == 0
    assert "1 read, 1 guest to" in capsys.readouterr().out


def test_a_declared_encoding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--encoding reads what has no byte order mark; without it the file is refused, or its name stays odd."""
    file = tmp_path / "a.csv"
    file.write_bytes(f"Größe;email\n1;{JANE}\n".encode("cp1252"))
    assert plan(file, "--column", "größe", "--encoding", "cp1252") == 1
    assert "Reading column 'Größe'" in capsys.readouterr().out
    file.write_bytes(f"email\n{JANE}\n".encode("utf-16-le"))
    assert plan(file) == 2
    assert "give --encoding utf-16-le" in capsys.readouterr().err
    assert plan(file, "--encoding", "utf-16-le") == 0
    assert plan(file, "--encoding", "utf-x") == 2
    assert "there is no encoding 'utf-x'" in capsys.readouterr().err
    assert plan(file, "--encoding", "base64") == 2
    file.write_bytes(b"%PDF-1.7")
    assert plan(file, "--encoding", "cp1252") == 2


def test_a_declared_delimiter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--delimiter outranks what the header looks like."""
    file = written(tmp_path / "a.csv", "email^a,b,c", f"{JANE}^1,2,3")
    assert run(["plan", file, "--column", "email", "--delimiter", "^"]) == 0
    assert run(["plan", file, "--column", "email", "--delimiter", "^^"]) == 2
    assert "--delimiter must be one character" in capsys.readouterr().err
    tabs = written(tmp_path / "b.csv", "a,b\temail", f"1\t{JANE}")
    assert run(["plan", tabs, "--column", "email", "--delimiter", "tab"]) == 0


def test_a_delimiter_that_is_frequent_in_a_name(tmp_path: Path) -> None:
    """The wanted column tells which of two delimiters it is."""
    file = written(tmp_path / "a.csv", "name (last, first, middle);email", f"Doe, Jane, X;{JANE}")
    assert run(["plan", file, "--column", "email"]) == 0


def test_rows_with_too_many_cells(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that a comma has shifted is rejected; empty cells at its end do no harm."""
    rows = ["name,manager,email", "Smith, Jr.,boss@corp.com,jane@x.com", f"Joe,boss@corp.com,{JOE},,"]
    file, out = written(tmp_path / "a.csv", *rows), tmp_path / "failures.csv"
    assert run(["issue", file, "--column", "email", *OPTIONS, "--failures", str(out)]) == 1
    assert served.reward_counts() == {JOE: 1}
    assert "1 rejected: the row has more cells than the header" in capsys.readouterr().out
    assert "jane@x.com" in out.read_text()


@pytest.mark.parametrize(
    ("lines", "phrase"),
    [
        (["phone,name", '+14155551234,"A', "+1 415\u2013555\u20131235,B"], "a quote in line 2 of the CSV"),
        (["phone,name", '+14155551234,"A', "(415) 555.1235,B", '+14155551236,"C'], "a quote in line 2"),
        (
            ["name,email", f"Jane,{JANE}", f'"Joe,{JOE}', "junk,junk"],
            "a quote in line 3 of the CSV is not closed",
        ),
        (["sep=,", "name,email", f'"Joe,{JOE}', "junk,junk"], "a quote in line 3 of the CSV is not closed"),
    ],
)
def test_a_swallowed_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], phrase: str
) -> None:
    """A quote that takes other rows into its cell is an error with its line, valid guests or not."""
    assert run(["plan", written(tmp_path / "a.csv", *lines), "--column", "1"]) == 2
    assert phrase in capsys.readouterr().err


def test_rows_of_several_lines_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Even a note that holds no guest is told, since it may be rows that were swallowed."""
    file = written(tmp_path / "a.csv", "email,note", f'{JANE},"on', "2025-06-15 10:30", 'we met"', f"{JOE},")
    assert run(["plan", file, "--column", "email"]) == 0
    printed = capsys.readouterr().out
    assert "2 read, 2 guests" in printed
    assert "1 row of the CSV has several lines within quotes, first in lines 2 to 4" in printed


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", ["", "email,name", f"{JANE},", ",", "", f"{JOE},", ""]),
        ("a.txt", ["", JANE, "   ", JOE, ""]),
        ("a.jsonl", ["", f'"{JANE}"', "  ", f'"{JOE}"', ""]),
    ],
)
def test_blank_rows(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, lines: list[str]
) -> None:
    """They are no guests, and are counted."""
    options = ["--column", "email"] if name == "a.csv" else []
    assert run(["issue", written(tmp_path / name, *lines), *options, *OPTIONS]) == 0
    printed = capsys.readouterr().out
    assert counts(printed)["issued"] == 2
    assert "3 blank rows were skipped" in printed


def test_rows_are_counted_like_a_spreadsheet(tmp_path: Path) -> None:
    """A position is found in the file, with its header and blank rows."""
    file = GuestFile(written(tmp_path / "a.csv", "", "email", "a@x.com", "", "", "b@x.com"), HowToRead())
    while file._slice():
        pass
    file.close()
    assert [file.row(0), file.row(1)] == [3, 6]


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        (b"%PDF-1.7", "is a PDF"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "is compressed by gzip"),
        (b"SQLite format 3\0", "is a SQLite database"),
        (b"PAR1\x15\x04\x15", "is a Parquet file"),
        (b"BZh91AY&SY", "is compressed by bzip2"),
        (b"{\\rtf1", "is a document in RTF"),
        (b"<!DOCTYPE html>\n<html>", "is a web page (HTML)"),
        (b"  <table><tr><td>a@x.com", "is a web page (HTML)"),
        (b'<?xml version="1.0"?><Workbook>', "is XML"),
        (b'[{"email": "a@x.com"}]', "is a JSON array"),
        (b'{"email": "a@x.com"}\n', "is JSON: give --format jsonl"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100, "is an old Office document"),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"),
            "is protected by a password",
        ),
        (b"PK\x03\x04nothing", "is a damaged zip archive"),
        (b"BEGIN:VCARD\nEMAIL:a@x.com", "is a vCard file"),
        (b"a\0b\0\0c", "has NUL bytes"),
    ],
)
@pytest.mark.parametrize("name", ["guests.csv", "guests.xlsx", "guests"])
def test_other_kinds_of_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, phrase: str, name: str
) -> None:
    """They are named by what they are, whatever they are called."""
    (tmp_path / name).write_bytes(content)
    assert plan(tmp_path / name) == 2
    assert f"{name} {phrase}" in capsys.readouterr().err


@pytest.mark.parametrize("header", ["ORCID,email", "PAR1,email", "<header@x.com>,email", "BZh1,email"])
def test_text_that_begins_like_another_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str
) -> None:
    """It is read as text."""
    assert run(["plan", written(tmp_path / "a.csv", header, f"1,{JANE}"), "--column", "email"]) in {0, 2}
    assert "a.csv is " not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("parts", "phrase"),
    [
        (["Index/Document.iwa"], "is an Apple Numbers document"),
        (["word/document.xml"], "is a Word document"),
        (["guests.csv"], "is a zip archive: unpack it first"),
    ],
)
def test_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str], parts: list[str], phrase: str) -> None:
    """What is no workbook is told by what it contains."""
    with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
        for part in parts:
            archive.writestr(part, "x")
    assert plan(tmp_path / "a.csv") == 2
    assert phrase in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "email\n"),
        ("a.csv", "email\n\n,\n"),
        ("a.txt", ""),
        ("a.txt", "\n \n"),
        ("a.jsonl", "\n"),
    ],
)
def test_nothing_read(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    """An input without guests is an error, and locks no file."""
    file = tmp_path / name
    file.write_text(content)
    assert run(["issue", str(file), *OPTIONS]) == 2
    assert f"nothing was read from {file}" in capsys.readouterr().err
    file.write_text(f"email\n{JANE}\n" if name == "a.csv" else f'"{JANE}"\n' if "json" in name else JANE)
    assert run(["issue", str(file), *OPTIONS]) == 0
    assert served.reward_counts() == {JANE: 1}


def test_an_empty_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A command whose output is piped here has failed, which is told."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(["issue", "-", "--emulator"]) == 2
    assert "nothing was read from standard input" in capsys.readouterr().err


def test_a_wrong_column_locks_no_file(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of which nothing was sent is never complete."""
    file = written(tmp_path / "a.csv", "name,email", f"Jane,{JANE}")
    assert run(["issue", file, "--column", "name", *OPTIONS]) == 1
    assert run(["ledger", "runs"]) == 0
    assert "complete" not in capsys.readouterr().out
    assert run(["issue", file, "--column", "email", *OPTIONS]) == 0
    assert served.reward_counts() == {JANE: 1}


Cell = str | float | datetime.datetime | datetime.time | None


def excel(path: Path, rows: list[list[Cell]], *others: str, top: int = 1, left: int = 1) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Guests"
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            sheet.cell(top + number, left + column, cell)
    for name in others:
        book.create_sheet(name)
    book.save(path)
    return path


PEOPLE: list[list[Cell]] = [
    ["When", "Phone", "Email"],
    [datetime.datetime(2025, 6, 1), 14155551234, JANE],
    [datetime.datetime(2025, 6, 1, 10, 30), 14155551235.0, None],
    [None, None, None],
    [datetime.time(10, 30), "+44 20 7946 0958", f"  {JOE}"],
]


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv", "a"])
def test_an_excel_workbook(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """It is told by its content, and cells are read as the sheet shows them."""
    file = excel(tmp_path / name, PEOPLE, "Sheet2", top=3, left=2)
    assert guests_in(file, HowToRead(column=("Phone",))) == ["14155551234", "14155551235", "+44 20 7946 0958"]
    when = ["2025-06-01", "2025-06-01 10:30:00", "10:30:00"]
    assert guests_in(file, HowToRead(column=("2",))) == when
    assert plan(file, "--column", "email") == 1
    printed = capsys.readouterr().out
    assert "3 read, 2 guests" in printed
    assert "Reading column 'Email' in sheet 'Guests'" in printed
    assert "1 blank row was skipped" in printed
    assert plan(file, "--column", "email", "--column", "phone", "--country", "US") == 0
    assert plan(file, "--column", "email", "--delimiter", ";") == 2


def test_sheets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of several sheets with cells one must be named, by name or number."""
    book = openpyxl.Workbook()
    for name, guest in (("Old", "old@example.com"), ("New List", JANE)):
        sheet = book.create_sheet(name)
        sheet.append(["email"])
        sheet.append([guest])
    book.save(tmp_path / "a.xlsx")
    file = tmp_path / "a.xlsx"
    assert plan(file) == 2
    assert "say with --sheet which sheet to read: Old, New List" in capsys.readouterr().err
    assert plan(file, "--sheet", "Newer") == 2
    assert "there is no sheet 'Newer'; the workbook has: Sheet, Old, New List" in capsys.readouterr().err
    for sheet_name in ("New List", "new list ", "3"):
        assert guests_in(file, HowToRead(sheet=sheet_name)) == [JANE]
    assert run(["plan", written(tmp_path / "a.csv", "email", JANE), "--sheet", "1"]) == 2
    excel(file, [])
    assert plan(file) == 2
    assert "the workbook is empty" in capsys.readouterr().err


def old_excel(path: Path) -> None:
    book = xlwt.Workbook()
    sheet = book.add_sheet("Guests")
    for row, value in enumerate(["phone", 14155551234.0]):
        sheet.write(row, 0, value)
    book.save(str(path))


def open_document(path: Path) -> None:
    urn = "urn:oasis:names:tc:opendocument:xmlns"
    cells = ["value-type='string'><text:p>phone", "value-type='float' office:value='14155551234'><text:p>"]
    rows = [
        f"<table:table-row><table:table-cell office:{cell}</text:p></table:table-cell></table:table-row>"
        for cell in cells
    ]
    spaces = f"xmlns:office='{urn}:office:1.0' xmlns:table='{urn}:table:1.0' xmlns:text='{urn}:text:1.0'"
    sheet = f"<table:table table:name='Guests'>{''.join(rows)}</table:table>"
    body = f"<office:body><office:spreadsheet>{sheet}</office:spreadsheet></office:body>"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("content.xml", f"<office:document-content {spaces}>{body}</office:document-content>")
        archive.writestr("META-INF/manifest.xml", f"<m:manifest xmlns:m='{urn}:manifest:1.0'/>")


@pytest.mark.parametrize("write", [old_excel, open_document])
def test_other_workbooks(tmp_path: Path, write: Callable[[Path], None]) -> None:
    """Old Excel files and OpenDocument are read like new ones, also from a pipe."""
    write(tmp_path / "a.dat")
    assert guests_in(tmp_path / "a.dat", HowToRead()) == ["14155551234"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "a.dat").read_bytes())))
        assert guests_in(Path("-"), HowToRead(country="US")) == ["+14155551234"]


def test_a_workbook_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    assert plan(excel(tmp_path / "a.xlsx", PEOPLE)) == 2
    assert (
        "is an Excel workbook, for which an extra is needed: run pip install 'thanx-async[excel]'"
        in capsys.readouterr().err
    )


def test_national_numbers(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --country they are guests; without it the reason says what to do."""
    numbers = ["(415) 555-1234", "4155551235", "14155551236.0", "+1 415 555 1237", "12345", JANE]
    file = written(tmp_path / "a.txt", *numbers)
    assert run(["plan", file]) == 1
    assert "no + and country code, such as +14155551234: give --country" in capsys.readouterr().out
    assert run(["plan", file, "--country", "UK"]) == 2
    assert "--country must be the two letters of a country" in capsys.readouterr().err
    assert run(["issue", file, "--country", "us", *OPTIONS]) == 1
    assert served.reward_counts() == {JANE: 1} | {f"+1415555123{digit}": 1 for digit in (4, 5, 6, 7)}
    assert "1 rejected: not a valid phone number in US (position 4)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_the_first_column_that_holds_a_guest(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """An empty or invalid cell falls to the next column; the reason is that of the first that is filled."""
    rows = [(JANE, "+14155551234"), ("", "+14155551235"), ("none", "+14155551236"), ("none", ""), ("", "12")]
    if name == "a.csv":
        file = written(tmp_path / name, "email,phone", *(",".join(row) for row in rows))
    else:
        file = written(
            tmp_path / name, *(f'{{"email": "{mail}", "phone": "{phone}"}}' for mail, phone in rows)
        )
    assert run(["issue", file, "--column", "email", "--column", "phone", *OPTIONS]) == 1
    assert served.reward_counts() == {JANE: 1, "+14155551235": 1, "+14155551236": 1}
    printed = capsys.readouterr().out
    assert (
        "1 rejected: neither an e-mail address (no @) nor a phone number (has letters) (position 3)"
        in printed
    )
    assert "1 rejected: the phone number has no + and country code" in printed


def test_columns_by_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number is a place unless a column is called so; case counts only where names differ in it."""
    file = written(tmp_path / "a.csv", "3,email,Email", f"no,{JANE},no")
    assert run(["plan", file, "--column", "2"]) == 0
    assert run(["plan", file, "--column", "email"]) == 0
    assert run(["plan", file, "--column", "3"]) == 1
    assert run(["plan", file, "--column", "EMAIL"]) == 2
    assert "more than one column 'EMAIL'" in capsys.readouterr().err
    assert run(["plan", file, "--column", "4"]) == 2
    assert run(["plan", file, "--column", " "]) == 2


def test_first_a_few_then_all(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--limit and the same command without it are one run: the first guests get no second reward."""
    names = [f"g{number}@example.com" for number in range(100)]
    file = written(tmp_path / "all.csv", "email", *names)
    command = ["issue", file, *OPTIONS]
    assert run([*command, "--limit", "10"]) == 0
    printed = capsys.readouterr().out
    assert counts(printed)["issued"] == 10
    assert "the same command without it goes on with the rest" in printed
    assert set(served.reward_counts()) == set(names[:10])
    assert run([*command, "--limit", "10"]) == 0
    assert run([*command, "--limit", "25"]) == 0
    assert run(command) == 0
    assert counts(capsys.readouterr().out)["issued"] == 100
    assert served.reward_counts() == dict.fromkeys(names, 1)
    assert run(command) == 2
    assert "is already complete: 100 issued" in capsys.readouterr().err


def test_a_limit_in_the_middle_of_a_run(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Small batches before and after the limit stay as they were cut, and a changed file is noticed."""
    names = [f"g{number}@example.com" for number in range(30)]
    file = written(tmp_path / "all.txt", *names)
    command = ["issue", file, *OPTIONS, "--batch-size", "8"]
    assert run([*command, "--limit", "12"]) == 0
    assert run([*command, "--limit", "5"]) == 2
    assert "fewer items were read than before" in capsys.readouterr().err
    written(tmp_path / "all.txt", "other@example.com", *names)
    assert run(command) in {2, 3}
    written(tmp_path / "all.txt", *names)
    assert run([*command, "--limit", "20"]) == 0
    assert run(command) == 0
    assert served.reward_counts() == dict.fromkeys(names, 1)


def test_rows_after_the_limit_are_not_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is told of skipped rows and guests left out ends at the limit."""
    file = written(tmp_path / "a.txt", JANE, "", JOE, "", "al@example.com", "", "x@example.com", JANE, "")
    out = written(tmp_path / "b.txt", JANE)
    assert run(["plan", file, "--limit", "2", "--exclude", out]) == 0
    printed = capsys.readouterr().out
    assert "2 read, 2 guests" in printed
    assert "1 left out" in printed
    assert "2 blank rows were skipped" in printed


def test_a_limit_that_would_issue_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What can't be continued takes no limit."""
    file = written(tmp_path / "a.txt", JANE)
    assert run(["issue", file, *OPTIONS, "--limit", "1", "--no-ledger"]) == 2
    assert "--limit needs a ledger" in capsys.readouterr().err
    assert run(["issue", "-", *OPTIONS, "--limit", "1"]) == 2
    assert "--limit needs a --run-id" in capsys.readouterr().err
    assert run(["plan", file, "--limit", "0"]) == 2
    assert "--limit must be a whole number from 1" in capsys.readouterr().err


def test_guests_who_are_left_out(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guests of another file are left out however they are written there, and are counted."""
    file = written(tmp_path / "all.csv", "name,email", f"Jane,{JANE}", f"Joe,{JOE}", "Al,al@example.com")
    out = written(tmp_path / "out.csv", "id,contact", f"1,Jane <{JANE.upper()}>", "2,+14155551234")
    command = ["issue", file, "--column", "email", *OPTIONS, "--exclude"]
    assert run([*command, out, "--failures", out]) == 2
    assert "is the file of guests to leave out" in capsys.readouterr().err
    assert run([*command, out]) == 0
    printed = capsys.readouterr().out
    assert counts(printed)["issued"] == 2
    assert f"1 left out: it is in {out}" in printed
    assert served.reward_counts() == {JOE: 1, "al@example.com": 1}
    assert run([*command, written(tmp_path / "none.csv", "id", "7")]) == 2
    assert "holds no guest whom to leave out" in capsys.readouterr().err


def test_all_are_left_out(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is left to issue to, which is no error, and does not make the run complete."""
    file, out = written(tmp_path / "a.txt", JANE, JOE), written(tmp_path / "b.txt", JOE, JANE)
    assert run(["issue", file, *OPTIONS, "--exclude", out]) == 0
    assert "2 left out: they are in" in capsys.readouterr().out
    assert run(["issue", file, *OPTIONS, "--exclude", written(tmp_path / "b.txt", JOE)]) == 0
    assert served.reward_counts() == {JANE: 1}


def test_a_test_list_is_left_out_of_the_whole_list(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --exclude a second reward for guests of another file is told before it is issued."""
    names = [f"g{number}@example.com" for number in range(20)]
    ten, every = (
        written(tmp_path / "ten.csv", "email", *names[:10]),
        written(tmp_path / "a.csv", "email", *names),
    )
    assert run(["issue", ten, *OPTIONS]) == 0
    assert "--exclude" not in capsys.readouterr().err
    assert run(["issue", every, *OPTIONS, "--exclude", ten]) == 0
    assert served.reward_counts() == dict.fromkeys(names, 1)
    assert "Guests of both get" not in capsys.readouterr().err
    assert run(["issue", written(tmp_path / "b.csv", "email", names[0]), *OPTIONS]) == 0
    message = capsys.readouterr().err
    assert "2 other runs, the last one a.csv-" in message
    assert "have issued this reward to 20 guests" in message
    assert "Guests of both get another one; --exclude FILE leaves them out" in message


CELLS = st.text("aZ9é€中 '\",;|^\t\n", max_size=6).map(str.strip)


@given(
    rows=st.lists(st.tuples(st.integers(0, 99), CELLS, CELLS), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;\t|^"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\r\n", "\n"]),
)
def test_whatever_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, str, str]],
    delimiter: str,
    encoding: str,
    quoting: int,
    end: str,
) -> None:
    """Any table that `csv` writes is read back; only odd delimiters and old encodings must be told."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]  # an int
    writer.writerow(["note, or more", "e-mail", "city"])
    guests = [f"guest{number}@example.com" for number, _, _ in rows]
    writer.writerows((note, guest, city) for guest, (_, note, city) in zip(guests, rows, strict=True))
    file = tmp_path_factory.getbasetemp() / "table.csv"
    file.write_bytes(text.getvalue().encode(encoding, "replace"))
    declared = encoding if encoding in {"cp1252", "latin-1"} else None
    how = HowToRead(encoding=declared, delimiter=delimiter if delimiter == "^" else None)
    assert guests_in(file, attrs.evolve(how, column=("E-Mail",))) == guests
    cities = [row[2].encode(encoding, "replace").decode(encoding) for row in rows]
    assert guests_in(file, attrs.evolve(how, column=("city",))) == cities
