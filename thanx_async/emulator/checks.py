"""Checks of settings: each error names the setting, and says what it must be."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from math import inf
from types import NoneType
from typing import TypeGuard

MOST = 10**9
_TAG = re.compile("[a-z0-9]{0,20}")


class Setting(str):
    """The name of a setting, as a part of the message of a `SettingError`."""

    __slots__ = ()


class SettingError(ValueError):
    """A setting of the emulator is wrong. The message names it, and says what it must be.

    Args:
        parts: the message, in which each name of a setting is a `Setting`.
    """

    def __init__(self, *parts: str) -> None:
        super().__init__(*parts)

    def __str__(self) -> str:
        return "".join(self.args)

    @property
    def argument(self) -> str:
        """The setting at fault, such as ``Faults.burst`` or ``Emulator.limits[0]``."""
        return next(str(part) for part in self.args if isinstance(part, Setting))

    def renamed(self, name_of: Callable[[str], str]) -> str:
        """The message with other names for the settings."""
        return "".join(name_of(part) if isinstance(part, Setting) else part for part in self.args)


def rate(name: str, value: object) -> None:
    """A share of all."""
    kind(name, _number(value) and 0 <= value <= 1, "a rate from 0 to 1", value)


def seconds(name: str, value: object) -> None:
    """A duration that the clock can add."""
    kind(name, _number(value) and 0 <= value <= MOST, f"from 0 to {MOST:,} s", value)


def positive(name: str, value: object) -> None:
    """A divisor."""
    kind(name, _number(value) and 0 < value < inf, "a finite number above 0", value)


def whole(name: str, value: object, least: int | None = 0, most: int = MOST) -> None:
    """A count; any whole number if ``least`` is None."""
    right = _number(value) and isinstance(value, int) and (least is None or least <= value <= most)
    kind(name, right, "a whole number" + ("" if least is None else f" from {least} to {most:,}"), value)


def text(name: str, value: object) -> None:
    """Text that isn't empty."""
    kind(name, isinstance(value, str), "text", value)
    if not value:
        raise SettingError(Setting(name), " is empty")


def tag(name: str, value: object) -> None:
    """A part of an id."""
    right = isinstance(value, str) and _TAG.fullmatch(value) is not None
    kind(name, right, "up to 20 lower-case letters and digits", value)


def texts(name: str, value: object) -> None:
    """A set of texts."""
    right = isinstance(value, AbstractSet) and all(isinstance(item, str) for item in value)
    kind(name, right, "a set of texts", value)


def instance(name: str, value: object, *kinds: type) -> None:
    """An instance of one of these types."""
    names = ["None" if own is NoneType else own.__name__ for own in kinds]
    kind(name, isinstance(value, kinds), " or ".join(names), value)


def kind(name: str, right: bool, what: str, value: object) -> None:
    """Raise unless the value is ``right``; ``what`` says what it must be."""
    if not right:
        shown = str(value) if value is None or _number(value) else type(value).__name__
        raise SettingError(Setting(name), f" must be {what}, not {shown}")


def _number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
