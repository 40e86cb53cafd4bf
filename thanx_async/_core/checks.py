"""Argument checks. Each raises a `ConfigurationError` that names the argument and says what it must be."""

from __future__ import annotations

import os
from functools import partial
from inspect import isasyncgenfunction, iscoroutinefunction
from math import inf
from pathlib import Path
from typing import TypeGuard
from urllib.parse import quote

from thanx_async._core.errors import ConfigurationError
from thanx_async._core.messages import Message, Name


def text(name: str, value: object, *, empty: bool = False) -> str:
    """A string that can be sent and stored unchanged, not empty unless ``empty``."""
    if not isinstance(value, str):
        raise wrong(name, f"must be text, not {type(value).__name__}")
    if not value and not empty:
        raise wrong(name, "is empty")
    if "\0" in value or not _is_unicode(value):
        raise wrong(name, "has a character that is not valid text: a NUL, or half of a surrogate pair")
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def segment(name: str, value: object) -> str:
    """A non-empty string, quoted as one segment of a URL path."""
    return quote(text(name, value), safe="")


def number(
    name: str,
    value: object,
    least: float,
    most: float = inf,
    *,
    whole: bool = False,
    endless: bool = False,
) -> None:
    """A number within bounds; infinity only if ``endless``."""
    fits = _is_number(value) and least <= value <= most and (endless or value != inf)
    if not fits or (whole and not isinstance(value, int)):
        bounds = ("" if least == -inf else f" from {least:,}") + ("" if most == inf else f" to {most:,}")
        raise wrong(name, f"must be a {'whole ' * whole}number{bounds}, not {_shown(value)}")


def flags(**values: object) -> None:
    """Booleans; a string such as "no" would count as true."""
    for name, value in values.items():
        kind(name, isinstance(value, bool), "True or False", value)


def timeout(value: object) -> None:
    """A timeout in seconds, or None; it may be negative, if computed from a deadline."""
    if value is not None:
        number("timeout", value, -inf, endless=True)


def path(name: str, value: object) -> Path:
    """A file path. Bytes that are not UTF-8 are allowed, in the form in which Python decodes them."""
    given = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(given, str) or not given:
        given = text(name, given)
    try:
        encoded = os.fsencode(given)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise wrong(name, "has a character that a path cannot contain")
    return Path(given)


def has(name: str, value: object, what: str, *attributes: str) -> None:
    """An object with these attributes; ``what`` describes it."""
    kind(name, all(hasattr(value, attribute) for attribute in attributes), what, value)


def kind(name: str, right: bool, what: str, value: object) -> None:
    """Raise an error unless ``right``; ``what`` says what the argument must be."""
    if not right:
        raise wrong(name, f"must be {what}, not {_shown(value)}")


def callback(name: str, value: object, what: str) -> None:
    """A function that is called and not awaited."""
    kind(name, callable(value), what, value)
    function = value
    while isinstance(function, partial):
        function = function.func
    calls = (function, getattr(function, "__call__", None))  # noqa: B004 - of an object, the method
    if any(iscoroutinefunction(call) or isasyncgenfunction(call) for call in calls):
        raise wrong(name, "must be a plain function: an async one would never be awaited")


def unpicklable(what: str, instead: str) -> ConfigurationError:
    """The error that an object cannot be pickled or copied, with what to do instead."""
    return ConfigurationError(f"{what} cannot be pickled or copied: {instead}")


def wrong(name: str, problem: str) -> ConfigurationError:
    """The error for an argument; ``problem`` follows the argument's name in the message."""
    return ConfigurationError(Message(Name(name), f" {problem}"), argument=name)


def _shown(value: object) -> str:
    """A number itself, otherwise only the type, since a string may be personal data or a secret."""
    return f"{value:,}" if _is_number(value) else type(value).__name__


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
