"""Models out of parsed JSON. What Thanx may add is ignored, and what does not fit is an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar, get_origin

import cattrs

from thanx_async.models import IssuanceFailure

T = TypeVar("T")

_Failures = tuple[IssuanceFailure, ...]

_GUEST = re.compile(r"[^\s\"'<>:;,(][^\s\"<>:;,(]*@[^\s\"'<>:;,)]+|\+?\d[\d ().-]{5,}\d")


def masked(text: str) -> str:
    """The text without whatever looks like an e-mail address or a phone number."""
    return _GUEST.sub("[masked]", text)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(datetime, _moment)
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    converter.register_structure_hook_func(lambda kind: kind == _Failures, lambda value, _: _failures(value))
    converter.register_structure_hook(int, partial(_number, kind=int))
    converter.register_structure_hook(float, partial(_number, kind=float))
    return converter


def _failures(value: object) -> _Failures:
    """A job may have 10,000 of them, which repeat a few texts: kept once, and without guests in them."""
    if not isinstance(value, list | None):
        raise TypeError
    texts: dict[str, str] = {}
    failures = []
    for row in value or ():
        index, kind, error = row["identifier_index"], row["identifier_type"], row["error"]
        if type(index) is not int or not isinstance(kind, str) or not isinstance(error, str):
            raise TypeError
        for text in {kind, error}.difference(texts):
            texts[text] = masked(text)
        failures.append(IssuanceFailure(index, texts[kind], texts[error]))
    return tuple(failures)


def _text(value: object, _: type) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object, _: type, kind: type[float]) -> float:
    """A number. Null is 0, because Thanx may send it for a count that is not known yet."""
    if value is None:
        return kind(0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return kind(value)


def _moment(value: object, _: type) -> datetime:
    if not isinstance(value, str):
        raise TypeError
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_CONVERTER = _converter()


def enveloped(kind: type[T], name: str) -> Callable[[object], T]:
    """The decoder for an answer with a model under ``name``."""

    def decoder(payload: object) -> T:
        if not isinstance(payload, dict):
            raise TypeError
        value = payload[name]
        if get_origin(kind) and not isinstance(value, list):  # a string would pass as a list of its letters
            raise TypeError
        return _CONVERTER.structure(value, kind)

    return decoder
