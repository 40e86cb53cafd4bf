"""Decodes parsed JSON into models, leaving out optional fields that do not fit, and masks personal data."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar, get_origin

import attrs
import cattrs
import cattrs.gen
from attrs import NOTHING

from thanx_async._core.columns import GrowingNumbered
from thanx_async._core.escaping import printable
from thanx_async.models import NO_FAILURES, IssuanceFailures

T = TypeVar("T")

MISFITS = cattrs.BaseValidationError, KeyError, TypeError, ValueError, OverflowError, RecursionError
"""The exceptions that decoders raise for values that do not fit."""

_LONGEST_TEXT = 1_000
_NO_REASON = "no reason given"
_INDEX_LIMIT = 2**63
"""Indices take eight bytes. One beyond that is -1, which is no identifier's index either."""
_AT = r"(?:@|%40|&#0*64;|&#[xX]0*40;|&commat;)"
_SEPARATOR = r"[ ().\-/\u00a0\u2010-\u2015\u202f]"
_GUEST = re.compile(
    rf"[^\s\"'<>:;,(@]{{1,100}}{_AT}[^\s\"'<>:;,)]{{1,255}}|\+?\d(?:{_SEPARATOR}{{0,3}}\d){{6,20}}"
)


def masked(text: str) -> str:
    """The first 1,000 characters, to be shown.

    Anything that looks like an email address or a phone number is masked, and control characters are escaped.
    """
    return printable(_GUEST.sub("[masked]", text[:_LONGEST_TEXT]))


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(datetime, _moment)
    converter.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    converter.register_structure_hook(IssuanceFailures, lambda value, _: _failures(value))
    converter.register_structure_hook(int, partial(_number, kind=int))
    converter.register_structure_hook(float, partial(_number, kind=float))
    converter.register_structure_hook_factory(attrs.has, lambda kind: _Lenient(converter, kind))
    return converter


class _Lenient:
    """Decodes one class. A field with a default is left out if its value does not fit.

    Rejecting the whole answer for such a field would lose the rest of the answer.
    """

    def __init__(self, converter: cattrs.Converter, kind: type[attrs.AttrsInstance]) -> None:
        attrs.resolve_types(kind)
        self._strict = cattrs.gen.make_dict_structure_fn(kind, converter, _cattrs_detailed_validation=False)
        self._converter = converter
        self._kind = kind
        self._fields = {field.name: field for field in attrs.fields(kind)}

    def __call__(self, value: dict[str, object], _: object) -> object:
        if not isinstance(value, dict):
            raise TypeError
        try:
            return self._strict(value, self._kind)
        except MISFITS:
            fitting: dict[str, object] = {}
            for name in self._fields.keys() & value.keys():
                self._fit(name, value[name], fitting)
            return self._kind(**fitting)

    def _fit(self, name: str, value: object, fitting: dict[str, object]) -> None:
        field = self._fields[name]
        try:
            fitting[name] = self._converter.structure(value, field.type or object)
        except MISFITS:
            if field.default is NOTHING:
                raise


def _failures(value: object) -> IssuanceFailures:
    """The failures of a job. Up to 10,000 rows repeat a few texts, so each text is masked and stored once."""
    if not isinstance(value, list | None):
        raise TypeError
    if not value:
        return NO_FAILURES
    texts: dict[str, str] = {}
    failures: GrowingNumbered[tuple[str, str]] = GrowingNumbered()
    for row in value:
        if not isinstance(row, dict) or type(index := row.get("identifier_index")) is not int:
            continue  # the counts show that a failure is missing
        kind, error = row.get("identifier_type"), row.get("error")
        if not isinstance(kind, str) or not isinstance(error, str):
            kind = kind if isinstance(kind, str) else ""
            error = error if isinstance(error, str) else _NO_REASON
        for text in {kind, error}.difference(texts):
            texts[text] = masked(text)
        failures.append(index if -_INDEX_LIMIT <= index < _INDEX_LIMIT else -1, (texts[kind], texts[error]))
    return IssuanceFailures(failures.view())


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
    """A decoder for answers that hold a model under ``name``."""

    def decoder(payload: object) -> T:
        if not isinstance(payload, dict):
            raise TypeError
        value = payload[name]
        if get_origin(kind) and not isinstance(value, list):  # a string would pass as a list of its letters
            raise TypeError
        return _CONVERTER.structure(value, kind)

    return decoder
