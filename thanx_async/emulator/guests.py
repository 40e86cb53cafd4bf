"""The identifiers of one request: their checks, and the rule for guests who get no reward."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import attrs

from thanx_async.emulator.answers import Refused

FailureRule = Callable[[str, str], str | None]
"""Takes an identifier's type and value; returns the reason why it fails, or None."""

_LARGEST = 10_000
_EMAIL = r"[^@\s]++@[^@\s.]++\.[^@\s]++"
_PHONE = r"\+[1-9][0-9]{6,14}+"
_ONE = {"email": re.compile(_EMAIL), "phone": re.compile(_PHONE)}
_ALL = {"email": re.compile(rf"(?:{_EMAIL}\n)*+"), "phone": re.compile(rf"(?:{_PHONE}\n)*+")}


def unknown_guests(kind: str, value: str) -> str | None:
    """The default rule: ``unknown...@...`` and ``+1999...`` belong to no guest."""
    unknown = value.startswith("+1999") if kind == "phone" else value.startswith("unknown")
    return "User not found" if unknown else None


@attrs.frozen
class Failure:
    """A guest who gets no reward, and why."""

    index: int
    kind: str
    value: str
    reason: str


@attrs.frozen
class Guests:
    """The identifiers of a request in order, as two columns."""

    kinds: list[str]
    values: list[str]

    @classmethod
    def parse(cls, rows: object) -> Guests:
        if not isinstance(rows, list) or not 1 <= len(rows) <= _LARGEST:
            raise Refused(400, f"identifiers must be an array of 1 to {_LARGEST:,}")
        try:
            guests = cls([row["type"] for row in rows], [row["value"] for row in rows])
            plain = set(guests.kinds) <= _ALL.keys() and all(map(guests.matches, _ALL))
        except (KeyError, TypeError):
            plain = False
        if not plain:
            for index, row in enumerate(rows):
                _check(index, row)
        return guests

    def matches(self, kind: str) -> bool:
        """Whether all values of one type are valid, by one match over all of them."""
        values = [value for own, value in zip(self.kinds, self.values, strict=True) if own == kind]
        lines = "\n".join([*values, ""])
        return lines.count("\n") == len(values) and _ALL[kind].fullmatch(lines) is not None

    def failures(self, rule: FailureRule) -> list[Failure]:
        if rule is unknown_guests and not self._may_be_unknown():
            return []
        return [
            Failure(index, kind, value, reason)
            for index, (kind, value) in enumerate(zip(self.kinds, self.values, strict=True))
            if (reason := rule(kind, value))
        ]

    def _may_be_unknown(self) -> bool:
        lines = "\n".join(["", *self.values])
        return "\nunknown" in lines or "\n+1999" in lines


def rewarded(values: Sequence[str], failures: Sequence[Failure]) -> list[str]:
    """The values, without the failures."""
    failed = {failure.index for failure in failures}
    return [value for index, value in enumerate(values) if index not in failed]


def _check(index: int, row: object) -> None:
    match row:
        case {"type": "email" | "phone" as kind, "value": str(value)}:
            if not _ONE[kind].fullmatch(value):
                what = "an e-mail address" if kind == "email" else "an E.164 phone number"
                raise Refused(400, f"identifiers[{index}] is not {what}", f"USER_{kind.upper()}_INVALID")
        case _:
            raise Refused(400, f"identifiers[{index}] needs a type (email, phone) and a value")
