"""Parses and normalizes identifiers: one at a time, and thousands by one match."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from urllib.parse import unquote

import attrs

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, InvalidIdentifierError
from thanx_async.models import IdentifierType

MAX_BATCH = 10_000
"""The most identifiers in one request. Source: Issue Rewards reference page."""

_ATOM = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_EMAIL = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}++(?:\.{_ATOM}++)*+@(?:{_LABEL}\.)+(?!\d+\Z){_LABEL}")
MAX_EMAIL = 254
# Countries whose national numbers are dialed with a 0 that is no part of the number abroad.
_TRUNK_COUNTRIES = (
    "27|31|32|33|353|358|40|41|43|44|46|49|60|61|62|63|64|66|81|82|84|90|91|92|94|972|971|966|20"
)
_TRUNK = re.compile(rf"\+(?:{_TRUNK_COUNTRIES})0")
_PHONE_DIGITS = rf"\+(?:1[0-9]{{10}}+|(?!(?:{_TRUNK_COUNTRIES})0)[2-9][0-9]{{7,14}}+)"
_PHONE = re.compile(_PHONE_DIGITS)
_ODD_SPACE = re.compile(r"[^\S \u00a0\u2000-\u200a\u202f]")
_SPREADSHEET_TEXT = "'"
# What address books and web pages leave around a value, and nobody sees: soft hyphen, zero width, direction.
_INVISIBLE = r"\u00ad\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff"
_EDGES = re.compile(rf"\A[\s{_INVISIBLE}]+|[\s{_INVISIBLE}]+\Z")
_FORMULA_TEXT = re.compile(r'="([^"]*)"')
_NAMED = re.compile(r"([^<>]*)<([^<>]*)>")
_SEPARATOR = r"\s().\-/\u00a0\u2010-\u2015\u202f"
_SEPARATORS = re.compile(rf"[{_SEPARATOR}]+")
_DIALLED = re.compile(rf"[{_SEPARATOR}+0-9]*")
_TRUNK_ZERO = re.compile(r"\(\s*0\s*\)")
# Lines of normalized values. The addresses are a subset of _EMAIL that is quick to match: the bounds keep
# them within its lengths, 64 characters before the @ and 254 in all.
_PLAIN_FIRST = _ATOM.replace("'", "")  # which before an address is a spreadsheet's mark of text
_PLAIN_LABEL = r"[a-z0-9][a-z0-9-]{0,40}+(?<!-)\."
_PLAIN_LOCAL = rf"{_PLAIN_FIRST}{_ATOM}{{0,31}}+(?:\.{_ATOM}{{1,15}}+){{0,2}}+"
_PLAIN_EMAIL = rf"{_PLAIN_LOCAL}@{_PLAIN_LABEL}(?:{_PLAIN_LABEL}){{0,2}}+[a-z]{{1,40}}+"
# The phone numbers are a subset of _PHONE: those without a 0 where a trunk prefix could be.
_PLAIN_PHONE = r"\+(?:1[0-9]{10}+|[2-9][0-9][1-9](?!(?<=353|358|966|971|972)0)[0-9]{5,12}+)"
_PLAIN_LINES = re.compile(rf"(?:{_PLAIN_PHONE}\n|{_PLAIN_EMAIL}\n)*+")


@attrs.frozen
class Identifier:
    """An identifier of a guest: an e-mail address, or a phone number in E.164 format."""

    type: IdentifierType
    value: str = attrs.field(repr=False)

    @classmethod
    def parse(cls, item: object) -> Identifier:
        """Parse and normalize an identifier.

        Accepts an e-mail address or phone number as text, a pair ``("email", "...")``, a mapping
        ``{"type": ..., "value": ...}``, or an `Identifier`. E-mail addresses are trimmed and lowercased.
        Phone numbers must begin with ``+`` and the country code (see `phone_normalizer`); their separators
        are removed. Invisible marks around a value, ``Jane <jane@example.com>``, ``mailto:`` and ``tel:`` are
        removed as well.

        Raises:
            InvalidIdentifierError: the item is not an identifier; the reason does not repeat the value.
        """
        value = normalise(item)
        return cls(type_of(value), value)


def type_of(value: str) -> IdentifierType:
    """The type of a normalized value: only an e-mail address has an ``@``."""
    return IdentifierType.EMAIL if "@" in value else IdentifierType.PHONE


def is_single(item: object) -> bool:
    """Whether an argument for several guests looks like a single one."""
    match item:
        case str() | bytes() | Identifier() | {"value": _} | (("email" | "phone"), str()):
            return True
    return False


def normalise(item: object) -> str:
    """The normalized value of an item that `Identifier.parse` accepts."""
    if isinstance(item, str):
        return _from_text(str.__str__(item))
    kind, value = _typed(item)
    if not isinstance(value, str):
        raise InvalidIdentifierError(f"the value must be text, not {_kind(value)}")
    value = str.__str__(value)
    match kind:
        case IdentifierType.EMAIL:
            return _email(value)
        case IdentifierType.PHONE:
            return _phone(value)
    raise InvalidIdentifierError('the type must be "email" or "phone"')


def normalise_all(items: Sequence[object]) -> tuple[list[str], dict[int, str]]:
    """The normalized value of each item, ``""`` for an invalid one; and the reasons, by index.

    On the fast path one match over all items recognizes that they are normalized already.
    """
    texts: list[str] = list(items)  # type: ignore[arg-type]  # joining fails for other types
    try:
        joined = _lines(texts)
    except TypeError:
        return _normalise_each(items)
    if [*map(type, texts)].count(str) != len(texts):  # a subclass may compare, hash or lower as it likes
        return _normalise_each(items)
    if joined.count("\n") == len(texts) and _PLAIN_LINES.fullmatch(joined):
        return texts, {}
    texts = [text.strip() for text in texts]
    joined = _lines(texts)
    if joined.count("\n") != len(texts) or not joined.isascii():
        return _normalise_each(items)
    joined = joined.lower()
    texts = joined[:-1].split("\n")
    return _normalise_odd(items, texts, joined)


def _lines(texts: list[str]) -> str:
    return "\n".join(texts) + "\n"


def _normalise_odd(
    items: Sequence[object], texts: list[str], joined: str
) -> tuple[list[str], dict[int, str]]:
    """Match runs of plain texts together, and each item that ends a run on its own."""
    values: list[str] = []
    refused: dict[int, str] = {}
    end = 0
    while run := _PLAIN_LINES.match(joined, end):
        values += texts[len(values) : len(values) + joined.count("\n", end, run.end())]
        odd = len(values)
        if odd == len(texts):
            break
        values.append(_normalise_one(items[odd], odd, refused))
        end = run.end() + len(texts[odd]) + 1
    return values, refused


def _normalise_each(items: Sequence[object]) -> tuple[list[str], dict[int, str]]:
    refused: dict[int, str] = {}
    return [_normalise_one(item, index, refused) for index, item in enumerate(items)], refused


def _normalise_one(item: object, index: int, refused: dict[int, str]) -> str:
    try:
        return normalise(item)
    except InvalidIdentifierError as error:
        refused[index] = error.reason
    except Exception as error:  # noqa: BLE001 - of a stranger's object
        refused[index] = f"cannot be read ({type(error).__name__})"
    return ""


def checked_values(identifiers: object) -> list[str]:
    """The normalized identifiers of one request.

    Raises:
        InvalidIdentifierError: an item is invalid; the message has its position.
        ConfigurationError: there are no items, too many, or the argument isn't an iterable of them.
    """
    if not isinstance(identifiers, Iterable) or is_single(identifiers):
        raise checks.wrong(
            "identifiers", f"must be several, such as a list, not {type(identifiers).__name__}"
        )
    items = list(islice(identifiers, MAX_BATCH + 1))
    if not items:
        raise checks.wrong("identifiers", "is empty: a request needs at least one")
    if len(items) > MAX_BATCH:
        raise ConfigurationError(
            f"more than {MAX_BATCH:,} identifiers, which one request may not hold: use AsyncBatcher",
            argument="identifiers",
        )
    values, refused = normalise_all(items)
    if refused:
        position, reason = next(iter(refused.items()))
        raise InvalidIdentifierError(f"identifiers[{position}]: {reason}")
    return values


def raw_value(item: object) -> str:
    """The text of an invalid item for the report, at most 320 characters."""
    try:
        _, value = _typed(item)
    except InvalidIdentifierError:
        value = item
    except Exception:  # noqa: BLE001 - of a stranger's object
        return f"<{type(item).__name__}>"
    try:
        return str(value)[:320]
    except Exception:  # noqa: BLE001 - likewise
        return f"<{type(value).__name__}>"


def _typed(item: object) -> tuple[object, object]:
    match item:
        case Identifier(kind, value):
            return kind, value
        case Mapping():
            return item.get("type"), item.get("value")
        case (kind, value):
            return kind, value
    raise InvalidIdentifierError(
        f"expected text, a (type, value) pair or a mapping with type and value, not {_kind(item)}"
    )


def _kind(item: object) -> str:
    return "nothing (None)" if item is None else type(item).__name__


def _from_text(text: str) -> str:
    if "@" in text:
        return _email(text)
    if not is_dialled(text) and any(character.isalpha() for character in text):
        scheme, _, number = bare(text).partition(":")
        if scheme.lower() == "tel":
            return _from_text(number)
        raise InvalidIdentifierError("neither an e-mail address (no @) nor a phone number (has letters)")
    return _phone(text)


def is_dialled(text: str) -> bool:
    """Whether a text has only digits, ``+`` and the separators of phone numbers."""
    return _DIALLED.fullmatch(text) is not None


def bare(text: str) -> str:
    """The text without white space, invisible marks and a spreadsheet's marks of text around it."""
    text = _EDGES.sub("", text)
    if formula := _FORMULA_TEXT.fullmatch(text):
        text = formula[1]
    return _EDGES.sub("", text.removeprefix(_SPREADSHEET_TEXT))


def _email(text: str) -> str:
    value = _lowered(text.strip().removeprefix(_SPREADSHEET_TEXT))
    if not _is_email(value):
        value = _lowered(_unwrapped(text))
        if not _is_email(value):
            raise InvalidIdentifierError(_email_fault(value))
    return value


def _lowered(text: str) -> str:
    return text.lower() if text.isascii() else text  # the KELVIN SIGN would become a k


def _is_email(value: str) -> bool:
    return len(value) <= MAX_EMAIL and _EMAIL.fullmatch(value) is not None


def _unwrapped(text: str) -> str:
    """The address in ``Jane <jane@example.com>``, unless the name is another one, and after ``mailto:``."""
    text = bare(text)
    if named := _NAMED.fullmatch(text):
        name, address = (bare(part) for part in named.groups())
        if "@" not in name or name.strip("\"'").lower() == address.lower():
            text = address
    if text[:7].lower() == "mailto:":
        text = unquote(text[7:].partition("?")[0])
    return bare(text)


def _email_fault(value: str) -> str:
    if not value:
        return "empty"
    if not value.isascii():
        return "the e-mail address has characters outside ASCII"
    if len(value) > MAX_EMAIL:
        return f"the e-mail address is longer than {MAX_EMAIL} characters"
    local, at, domain = value.rpartition("@")
    if not at:
        return "the e-mail address has no @"
    if not local or not domain:
        return "the e-mail address has nothing " + ("before" if not local else "after") + " the @"
    if any(character.isspace() for character in value):
        return "the e-mail address has white space inside"
    if "." not in domain:
        return "the e-mail address has no top-level domain"
    return "not a valid e-mail address"


def _phone(text: str) -> str:
    try:
        return _dialled(text)
    except InvalidIdentifierError:
        if (inner := bare(text)) == text:
            raise
    return _dialled(inner)


def _dialled(text: str) -> str:
    if not text.strip():
        raise InvalidIdentifierError("empty")
    if _TRUNK_ZERO.search(text):
        raise InvalidIdentifierError('the phone number has a trunk prefix "(0)", which E.164 leaves out')
    text = text.strip().removeprefix(_SPREADSHEET_TEXT)
    if is_followed(text):
        raise InvalidIdentifierError("the phone number is followed by something else")
    value = _SEPARATORS.sub("", text)
    if _PHONE.fullmatch(value):
        return value
    raise InvalidIdentifierError(_phone_fault(value))


def is_followed(text: str) -> bool:
    """Whether something that is no part of a phone number may follow it, such as ``.0`` or another cell."""
    return text[:-1].rstrip().endswith((".", "/")) or (
        not text.isprintable() and _ODD_SPACE.search(text) is not None
    )


def _phone_fault(value: str) -> str:
    digits = value.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()):
        return "the phone number has characters that are neither digits nor separators"
    if not value.startswith("+"):
        return "the phone number has no + and country code, such as +14155551234"
    if digits.startswith("0"):
        return "the phone number's country code begins with 0"
    if digits.startswith("1"):
        return "a phone number with the country code 1 must have 10 more digits"
    if _TRUNK.match(value):
        return "the phone number has a 0 after the country code, which E.164 leaves out"
    return "the phone number must have 8 to 15 digits after the +"
