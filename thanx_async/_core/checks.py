"""Checks of arguments: each error names the argument, and says what it must be."""

from __future__ import annotations

import os
from math import inf
from pathlib import Path
from typing import TypeGuard
from urllib.parse import quote

from thanx_async._core.errors import ConfigurationError
from thanx_async._core.messages import Message, Name


def text(name: str, value: object) -> str:
    """Text that is not empty."""
    if not isinstance(value, str):
        raise wrong(name, f"must be text, not {type(value).__name__}")
    if not value:
        raise wrong(name, "is empty")
    return value


def segment(name: str, value: object) -> str:
    """Text as one segment of a URL's path."""
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
    """A number within bounds, infinite only where it may be ``endless``."""
    fits = _is_number(value) and least <= value <= most and (endless or value != inf)
    if not fits or (whole and not isinstance(value, int)):
        bounds = ("" if least == -inf else f" from {least:,}") + ("" if most == inf else f" to {most:,}")
        raise wrong(name, f"must be a {'whole ' * whole}number{bounds}, not {_shown(value)}")


def flags(**values: object) -> None:
    """Truth values; a text such as "no" would be taken for true."""
    for name, value in values.items():
        kind(name, isinstance(value, bool), "True or False", value)


def timeout(value: object) -> None:
    """Seconds, or None; also what is left of a time that is over."""
    if value is not None:
        number("timeout", value, -inf, endless=True)


def path(name: str, value: object) -> Path:
    """A path of a file."""
    if not isinstance(value, os.PathLike):
        return Path(text(name, value))
    return Path(value)


def has(name: str, value: object, what: str, *attributes: str) -> None:
    """Anything that has what is used of it."""
    kind(name, all(hasattr(value, attribute) for attribute in attributes), what, value)


def kind(name: str, right: bool, what: str, value: object) -> None:
    """What was found right or wrong, and what it must be."""
    if not right:
        raise wrong(name, f"must be {what}, not {_shown(value)}")


def unpicklable(what: str, instead: str) -> ConfigurationError:
    """The error that an object cannot be pickled or copied, with what to do instead."""
    return ConfigurationError(f"{what} cannot be pickled or copied: {instead}")


def wrong(name: str, problem: str) -> ConfigurationError:
    """The error that an argument has a problem, which is said in the words that follow its name."""
    return ConfigurationError(Message(Name(name), f" {problem}"), argument=name)


def _shown(value: object) -> str:
    """Numbers as they are, and of all else the type: texts may be guests or secrets."""
    return f"{value:,}" if _is_number(value) else type(value).__name__


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
