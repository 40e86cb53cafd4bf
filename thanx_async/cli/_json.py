"""Guests in JSON lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import NoReturn

import orjson

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._columns import Fix, first_guest
from thanx_async.cli._items import BLANK, Unread, holds_guest, names

_HEAD = 100
_NO_JSON = (orjson.JSONDecodeError, UnicodeEncodeError)
_NO_UTF8 = re.compile(r"[\udc80-\udcff]")
_PAIR = re.compile(r'\[\s*"')
_MEMBER = re.compile(r',?\s*"[^"]*"\s*:')
_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "an array", dict: "an object"}


def json_items(text: Iterator[str], columns: Sequence[str], fix: Fix | None) -> Iterator[object]:
    """The guest of each line; `BLANK` for blank lines, and `Unread` for lines without a guest.

    Args:
        columns: the keys; the first one that holds a guest counts.
        fix: is applied to each text that is read.

    Raises:
        ConfigurationError: the first lines show that the file is something else, or lacks the keys.
    """
    lines = list(islice(text, _HEAD))
    items = [item for item in map(_parsed, lines) if item is not None]
    full = list(filter(None, map(str.strip, lines)))
    if full and full[0].startswith("[") and not (_PAIR.match(full[0]) and any(map(_is_pair, items))):
        raise ConfigurationError(
            "the file is one JSON array; write each guest on its own line (jq -c '.[]' does it)"
        )
    if len(full) > 1 and full[0].startswith("{") and _MEMBER.match(full[1]):
        raise ConfigurationError(
            "the first JSON object spans several lines; write one object per line (jq -c . does it)"
        )
    objects = [item for item in items if isinstance(item, dict) and item]
    if objects and not any(key in item for item in objects for key in columns or ["value"]):
        _refuse_keys(list(objects[0]), columns)
    return (json_item(line, columns, fix) for line in chain(lines, text))


def json_item(line: str, columns: Sequence[str], fix: Fix | None) -> object:
    """The guest of a line."""
    if not line.strip():
        return BLANK
    try:
        item: object = orjson.loads(line)
    except _NO_JSON:
        what = "UTF-8" if _NO_UTF8.search(line) else "valid JSON"
        return Unread(line, f"the line is not {what}")
    if len(columns) < 2 or not isinstance(item, dict):
        return _fixed(_held(line, item, columns[0] if columns else None), fix)
    filled = [column for column in columns if item.get(column) is not None]
    return first_guest([_held(line, item, column) for column in filled or columns[:1]], fix)


def _fixed(held: object, fix: Fix | None) -> object:
    return fix(held) if fix and isinstance(held, str) else held


def json_id(line: str, key: str) -> str:
    """The text or number at a key, "" if there is none."""
    item = _parsed(line)
    found = item.get(key) if isinstance(item, dict) else None
    return str(found) if isinstance(found, str | int) else ""


def _parsed(line: str) -> object:
    with suppress(*_NO_JSON):
        return orjson.loads(line)
    return None


def _refuse_keys(keys: list[str], columns: Sequence[str]) -> NoReturn:
    if any(map(holds_guest, keys)):
        raise ConfigurationError(
            "the keys of the first JSON object are guests, not names: write each guest on its own line"
        )
    if not columns:
        raise ConfigurationError(f"say with --column which key holds the guest: {names(keys)}")
    raise ConfigurationError(f"there is no key {columns[0]!r}; the keys of the first object: {names(keys)}")


def _is_pair(item: object) -> bool:
    return isinstance(item, list) and item[:1] in (["email"], ["phone"])


def _held(line: str, item: object, column: str | None) -> object:
    held = item.get(column) if column and isinstance(item, dict) else item
    if isinstance(held, str):
        return held
    if isinstance(held, dict):
        value = held.get("value")
    else:
        value = held[-1] if isinstance(held, list) and len(held) == 2 else None
    return held if isinstance(value, str) else Unread(line, _reason(item, column or "value"))


def _reason(item: object, key: str) -> str:
    where = "the line"
    if isinstance(item, dict):
        if key not in item:
            return f"there is no key {key!r}"
        where, item = f"the key {key!r}", item[key]
    return f"{where} is null" if item is None else f"{where} is {_KINDS[type(item)]}, not text"
