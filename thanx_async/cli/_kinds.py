"""Tells kinds of files by their first bytes, whatever they are called."""

from __future__ import annotations

import codecs
import io
import re
import zipfile
from enum import StrEnum

FIRST = 512
"""How many bytes are looked at."""

_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_UNZIP = "unpack it first"
_SAVE = "save it as CSV or as an Excel workbook"
_FIRST_BYTES = {
    rb"%PDF": ("a PDF", "export the list as CSV"),
    rb"\x1f\x8b": ("compressed by gzip", "pipe it: gunzip -c FILE | thanx-async ... -"),
    rb"BZh[1-9]1AY": ("compressed by bzip2", _UNZIP),
    rb"\xfd7zXZ\0": ("compressed by xz", _UNZIP),
    rb"\x28\xb5\x2f\xfd": ("compressed by zstd", _UNZIP),
    rb"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNZIP),
    rb"Rar!\x1a\x07": ("a RAR archive", _UNZIP),
    rb"PK\x05\x06": ("an empty zip archive", _UNZIP),
    rb"SQLite format 3\0": ("a SQLite database", "export the table as CSV"),
    rb"PAR1[^ -~]": ("a Parquet file", "export it as CSV"),
    rb"ORC[^ -~]": ("an ORC file", "export it as CSV"),
    rb"Obj\x01": ("an Avro file", "export it as CSV"),
    rb"{\\rtf": ("a document in RTF", _SAVE),
    rb"BEGIN:VCARD": ("a vCard file of contacts", "export the contacts as CSV"),
}
_HTML = re.compile(rb"\s*<(?:!doctype|(?:html|head|body|table|meta)[\s>])", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml")
_JSON = re.compile(rb"\s*(?:\[\s*[\[{\"]|\{\s*\")")
_ARRAY = re.compile(rb"\s*\[")
_BOMS = {  # UTF-32 first: the mark of UTF-16 is how its own begins
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


class Workbook(StrEnum):
    """What a file that can hold sheets turns out to be."""

    EXCEL = "an Excel workbook"
    ODS = "an OpenDocument spreadsheet"


def encoding_of(first: bytes) -> str | None:
    """The encoding that a byte order mark names."""
    return next((name for mark, name in _BOMS.items() if first.startswith(mark)), None)


def may_be_workbook(first: bytes) -> bool:
    """Whether the whole file has to be looked at."""
    return first.startswith((_ZIP, _OLE))


def foreign(first: bytes, *, is_json: bool, is_declared: bool = False) -> str:
    """What a file is that can't be read as text, and what to do; "" for text.

    Args:
        first: its first bytes.
        is_json: it should have JSON lines.
        is_declared: its encoding is known, so that it may have NUL bytes.
    """
    for mark, (what, remedy) in _FIRST_BYTES.items():
        if re.match(mark, first):
            return f"is {what}: {remedy}"
    if _HTML.match(first):
        return f"is a web page (HTML), whatever its name is: open it in a spreadsheet, and {_SAVE}"
    if _XML.match(first):
        return f"is XML: open it in a spreadsheet, and {_SAVE}"
    if b"\0" in first and not is_declared:
        return f"has NUL bytes: {_nul_remedy(first)}"
    if not is_json and _JSON.match(first):
        if _ARRAY.match(first):
            return "is a JSON array: write each guest on its own line (jq -c '.[]' does it)"
        return "is JSON: give --format jsonl"
    return ""


def _nul_remedy(first: bytes) -> str:
    """Text of mostly ASCII in UTF-16 has a NUL in every other byte, and in UTF-32 in three of four."""
    for place, order in ((1, "le"), (0, "be")):
        if first[place::2].count(0) > len(first) // 3 and not first[1 - place :: 2].count(0):
            return f"it may be in UTF-16 without a byte order mark; then give --encoding utf-16-{order}"
    return "it is not text, or in an encoding that --encoding must name"


def workbook_kind(data: bytes) -> Workbook | str:
    """The kind of a zip archive or of an old Office file; if it has no sheets, what it is instead."""
    if data.startswith(_OLE):
        if _wide("EncryptedPackage") in data:
            return f"is protected by a password: {_SAVE} without one"
        has_sheets = _wide("Workbook") in data or _wide("Book") in data
        return Workbook.EXCEL if has_sheets else f"is an old Office document, not a workbook: {_SAVE}"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            parts = set(archive.namelist())
            kind = archive.read("mimetype")[:100] if "mimetype" in parts else b""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
        return "is a damaged zip archive or workbook: export it again"
    if parts & {"xl/workbook.xml", "xl/workbook.bin"}:
        return Workbook.EXCEL
    if b"opendocument.spreadsheet" in kind:
        return Workbook.ODS
    if any(part.endswith(".iwa") for part in parts) or "Index.zip" in parts:
        return "is an Apple Numbers document: choose File > Export To > CSV in Numbers"
    if "word/document.xml" in parts:
        return f"is a Word document: {_SAVE}"
    return f"is a zip archive: {_UNZIP}"


def _wide(text: str) -> bytes:
    return text.encode("utf-16-le")
