"""Phone numbers as they are dialed within a country."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from thanx_async._core import checks
from thanx_async._core.extras import missing
from thanx_async.identifiers._parsing import bare, is_dialled, is_followed

if TYPE_CHECKING:
    import phonenumbers

_FLOAT = re.compile(r"(\d+)\.0+")
_DIGITS = re.compile(r"\d")


def phone_normalizer(country: str) -> Callable[[str], str]:
    """A function that gives phone numbers of a country their ``+`` and country code.

    Map it over a source of guests::

        batcher.issue(map(phone_normalizer("US"), rows))  # "(415) 555-1234" becomes "+14155551234"

    It also takes the numbers of a float column, such as ``14155551234.0``. It returns everything else as it
    is: e-mail addresses, numbers with a ``+``, and what is not a valid number of the country, which is then
    rejected with its position.

    Args:
        country: where the numbers are dialed, as a code of two letters (ISO 3166-1).

    Raises:
        ConfigurationError: the country is unknown.
        MissingExtraError: the package phonenumbers is not installed.
    """
    try:
        import phonenumbers
    except ImportError as error:
        raise missing(error, "cli") from error
    region = checks.text("country", country).strip().upper()
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise checks.wrong("country", f"must be the two letters of a country, such as US, not {country!r}")

    def normalize(text: str) -> str:
        is_text: bool = isinstance(text, str)  # what is none is rejected later, with its position
        return _international(text, region) if is_text and _is_national(text) else text

    return normalize


def _is_national(text: str) -> bool:
    return (
        "+" not in text
        and is_dialled(bare(text))
        and not is_followed(_without_fraction(bare(text)))
        and _DIGITS.search(text) is not None
    )


def _international(text: str, region: str) -> str:
    import phonenumbers

    number = _parsed(_without_fraction(bare(text)), region)
    if number is None or number.extension or not phonenumbers.is_valid_number(number):
        return text
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _parsed(text: str, region: str) -> phonenumbers.PhoneNumber | None:
    import phonenumbers

    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None


def _without_fraction(text: str) -> str:
    """The digits of a number that a spreadsheet or data frame kept as a float."""
    number = _FLOAT.fullmatch(text)
    return number[1] if number else text
