import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanx_async import (
    ConfigurationError,
    Identifier,
    IdentifierType,
    InvalidIdentifierError,
    phone_normalizer,
)
from thanx_async.batching._chunker import Chunker
from thanx_async.identifiers import normalise, normalise_all

EMAIL, PHONE = IdentifierType.EMAIL, IdentifierType.PHONE


@pytest.mark.parametrize(
    ("item", "kind", "value"),
    [
        ("  Jane@Example.COM\n", EMAIL, "jane@example.com"),
        ("+1 (415) 555-1234", PHONE, "+14155551234"),
        ("+49\u00a030\u2011901820", PHONE, "+4930901820"),
        (("email", "a+b@x.io"), EMAIL, "a+b@x.io"),
        (["phone", "+1.415.555.1234"], PHONE, "+14155551234"),
        ({"type": "phone", "value": "+14155551234"}, PHONE, "+14155551234"),
        (Identifier(EMAIL, "Jane@Example.com"), EMAIL, "jane@example.com"),
        ("a" * 64 + "@" + "b" * 63 + ".com", EMAIL, "a" * 64 + "@" + "b" * 63 + ".com"),
        ("a@b.xn--p1ai", EMAIL, "a@b.xn--p1ai"),
    ],
)
def test_parses(item: object, kind: IdentifierType, value: str) -> None:
    """Every accepted form ends in the same normalised identifier."""
    assert Identifier.parse(item) == Identifier(kind, value)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        (("email", " "), "empty"),
        ("jane", "neither an e-mail address"),
        ("4155551234", "no + and country code"),
        ("+0155551234", "country code begins with 0"),
        ("+1415", "10 more digits"),
        ("+4930", "8 to 15 digits"),
        ("+44 (0)20 7946 0958", "trunk prefix"),
        (("phone", "+1415555x234"), "neither digits nor separators"),
        ("a b@x.com", "white space"),
        ("jane@x", "no top-level domain"),
        ("@x.com", "nothing before the @"),
        ("jane@", "nothing after the @"),
        (("email", "jane.x.com"), "no @"),
        ("j\u00e4ne@x.com", "outside ASCII"),
        ("a..b@x.com", "not a valid e-mail address"),
        ("a@-x.com", "not a valid e-mail address"),
        ("a" * 65 + "@x.com", "not a valid e-mail address"),
        ("a@" + "b" * 64 + ".com", "not a valid e-mail address"),
        ("a@" + "b." * 130 + "com", "longer than 254"),
        (("fax", "x"), 'must be "email" or "phone"'),
        (("email", 7), "must be text, not int"),
        ({"type": "email"}, "nothing (None)"),
        (7, "not int"),
        (None, "nothing (None)"),
    ],
)
def test_refuses_with_a_reason(item: object, reason: str) -> None:
    """What is no identifier is refused with a reason that says what is wrong."""
    with pytest.raises(InvalidIdentifierError) as caught:
        Identifier.parse(item)
    assert reason in caught.value.reason


@given(st.text(max_size=40))
def test_normalising_is_stable_and_never_repeats_the_value(text: str) -> None:
    """A normalised value parses to itself; a reason does not hold a word of the input."""
    for item in (text, f"zqxj{text}", f"{text}zqxj"):
        try:
            parsed = Identifier.parse(item)
        except InvalidIdentifierError as error:
            assert "zqxj" not in error.reason  # noqa: PT017 - either way is checked
            continue
        assert Identifier.parse(parsed.value) == parsed
        assert parsed.value.isascii()
        assert not set(parsed.value) & set('"\\\n')


def test_a_value_is_not_shown() -> None:
    """Neither an identifier's representation nor that of what holds it says who the guest is."""
    shown = repr([Identifier(EMAIL, "jane@example.com"), Identifier.parse("+14155551234")])
    assert "jane" not in shown
    assert "555" not in shown


class Text(str):
    """A text that is not quite one."""

    __slots__ = ()


TEXTS = st.one_of(
    st.text("ab1.@-+_ \n\u0130\u212a", max_size=12),
    st.from_regex(r"\A[a-z0-9.+-]{1,70}@([a-z0-9-]{1,70}\.){1,5}[a-z0-9]{1,70}\Z"),
    st.from_regex(r"\A\s?\+[0-9 ()-]{6,17}\s?\Z"),
    st.integers(0, 99).map(lambda number: f"Guest{number}@Example.com\n"),
    st.sampled_from(["a@x.com", "+14155551234", "jane@x-.com", "jane@x.-y.com", ".a@x.com", "a@x.c0m"]),
)
ITEMS = st.one_of(TEXTS, TEXTS.map(lambda text: ("email", text)), TEXTS.map(Text), st.none())


@given(st.one_of(st.lists(TEXTS), st.lists(ITEMS)))
def test_many_are_normalised_like_each(items: list[object]) -> None:
    """Normalising many at once gives the values and the refusals of one after the other."""
    values, refused = normalise_all(items)
    assert len(values) == len(items)
    for index, (item, value) in enumerate(zip(items, values, strict=True)):
        try:
            assert value == normalise(item)
            assert index not in refused
        except InvalidIdentifierError as error:
            assert (value, refused[index]) == ("", error.reason)  # noqa: PT017 - either way is checked


@pytest.mark.parametrize(
    "text",
    [
        "+14155551234.0",
        "+14155551234/5",
        "+4512345678\t12",
        "+14155551234 50",
        "+1 415 555 123",
        "+44 020 7946 0958",
        "+49 (0)30 123456",
        "+49 030 123456",
        "KELVIN\u212a@x.com",
    ],
)
def test_nobody_becomes_somebody_else(text: str) -> None:
    """What would be another guest with a part left out or changed is refused, alone and in company."""
    with pytest.raises(InvalidIdentifierError):
        normalise(text)
    values, refused = normalise_all(["a@x.com", text, "+14155551234"])
    assert (values[0], values[2], list(refused)) == ("a@x.com", "+14155551234", [1])


@pytest.mark.parametrize(("text", "value"), [("'a@x.com", "a@x.com"), ("'+14155551234", "+14155551234")])
def test_a_spreadsheets_mark_of_text_is_no_part_of_the_guest(text: str, value: str) -> None:
    """An apostrophe before a value is what spreadsheets write to keep it as text."""
    assert normalise(text) == value
    assert normalise_all([text, value])[0] == [value, value]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\u202a+14155551234\u202c", "+14155551234"),
        ("\ufeffJane@example.com\u200b", "jane@example.com"),
        ("\u2068'\u00adjane@example.com\u2069\n", "jane@example.com"),
        ("Jane Doe <Jane@Example.com>", "jane@example.com"),
        ('"Doe, Jane" <jane@example.com>', "jane@example.com"),
        ("jane@example.com <jane@example.com>", "jane@example.com"),
        ("<mailto:jane%2Btag@example.com?subject=Hi>", "jane+tag@example.com"),
        ("MAILTO:jane@example.com", "jane@example.com"),
        ("tel:+1-415-555-1234", "+14155551234"),
        ('="+14155551234"', "+14155551234"),
        ('="jane@example.com"', "jane@example.com"),
        ("+14155551234\n\u200e", "+14155551234"),
    ],
)
def test_what_exports_wrap_around_a_guest(text: str, value: str) -> None:
    """Invisible marks, a name and a scheme are no part of the guest, who has one spelling in the end."""
    assert normalise(text) == value
    assert normalise_all([text, value, text.upper()])[0] == [value] * 3


@pytest.mark.parametrize(
    "text",
    [
        "joe@example.com <jane@example.com>",
        "Jane <jane@example.com>, Joe <joe@example.com>",
        "mailto:jane@example.com,joe@example.com",
        "Jane <jane>",
        "ja\u200bne@example.com",
        "+1415\u200b5551234",
        "\u200b",
        "tel:4155551234",
        "Jane <KELVIN\u212a@x.com>",
    ],
)
def test_what_may_be_somebody_else_stays_refused(text: str) -> None:
    """Two addresses in one value, and marks within a value, are not guessed at."""
    with pytest.raises(InvalidIdentifierError):
        normalise(text)


@pytest.mark.parametrize(
    ("country", "text", "value"),
    [
        ("US", "(415) 555-1234", "+14155551234"),
        ("US", "4155551234", "+14155551234"),
        ("us", "14155551234.0", "+14155551234"),
        ("US", "'415.555.1234 ", "+14155551234"),
        ("US", '="4155551234"', "+14155551234"),
        ("US", "\u202a(415) 555-1234\u202c", "+14155551234"),
        ("GB", "020 7946 0958", "+442079460958"),
        ("DE", "030 901820", "+4930901820"),
        ("IT", "06 6982", "+39066982"),
    ],
)
def test_national_numbers(country: str, text: str, value: str) -> None:
    """A country makes numbers as they are dialed there international."""
    assert phone_normalizer(country)(text) == value
    assert normalise(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "jane@example.com",
        "+44 20 7946 0958",
        "555-1234",
        "415-555-1234 x5",
        "(415) 555-1234/5",
        "4155551234\t12",
        "4155551234.5",
        "1.41556E+10",
        "0000000000",
        "junk",
        "",
    ],
)
def test_what_is_no_national_number_stays_as_it_is(text: str) -> None:
    """So it is accepted or rejected as without a country."""
    assert phone_normalizer("US")(text) is text


def test_a_normalizer_over_a_source() -> None:
    """It leaves what is no text to be rejected with its position."""
    items: list[Any] = ["4155551234", None, ("phone", "4155551234"), "a@x.com"]
    values, refused = normalise_all(list(map(phone_normalizer("US"), items)))
    assert values == ["+14155551234", "", "", "a@x.com"]
    assert list(refused) == [1, 2]


def test_a_wrong_country(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error at once, like a package that is missing."""
    for country in ("UK", "", "USA", 1):
        with pytest.raises(ConfigurationError, match="country"):
            phone_normalizer(country)  # type: ignore[arg-type]  # one is wrong
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'thanx_async\[cli\]'"):
        phone_normalizer("US")


@pytest.mark.parametrize(
    "text", ["+49 30/123456", "+33 1.23.45.67.89", "+1 (415) 555-1234", "+39 06 6982", "+44 20 7946 0958"]
)
def test_numbers_as_people_write_them(text: str) -> None:
    """Separators within a number, and a 0 that is a part of it, are no reason to refuse it."""
    assert normalise(text) == "+" + "".join(filter(str.isdigit, text))


class Nasty(str):
    """A text that lies about itself."""

    __slots__ = ()

    def __hash__(self) -> int:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError

    def lower(self) -> str:
        raise RuntimeError


class Silent:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "junk",
    [10**5000, Silent(), {"value": Silent()}, ("email", 10**5000), float("nan")],
    ids=["long", "silent", "mapping", "pair", "nan"],
)
def test_junk_objects_are_rejected(junk: object) -> None:
    """An object that cannot even be shown is a rejected item, and harms no neighbor."""
    chunker = Chunker(10)
    chunks = chunker.feed(["a@x.com", junk, "b@x.com"]) + chunker.flush()
    assert [chunk.values for chunk in chunks] == [["a@x.com", "b@x.com"]]
    assert [row.position for row in chunker.rejected] == [1]


def test_a_text_that_lies_is_read_as_what_it_holds() -> None:
    """Of a subclass of str only the characters count."""
    chunker = Chunker(10)
    chunks = chunker.feed([Nasty("A@x.com"), "a@x.com"]) + chunker.flush()
    assert [chunk.values for chunk in chunks] == [["a@x.com"]]
    assert type(chunks[0].values[0]) is str
