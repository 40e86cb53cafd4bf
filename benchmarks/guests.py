"""Inputs of any length, the same every time: guests as a database holds them, beside guests as typed."""

from __future__ import annotations

from collections.abc import Iterator


def plain(count: int) -> Iterator[str]:
    """Distinct guests as a database holds them: four e-mail addresses to one phone number."""
    for number in range(count):
        if number % 5:
            yield f"guest{number}@example.com"
        else:
            yield f"+49151{number:08d}"


def exported(count: int) -> Iterator[str]:
    """Guests as people typed them: in every 20, three in capitals or amid spaces, and separators in the
    phone numbers; 1 in 100 comes twice, and 1 in 500 is junk."""
    for number, guest in enumerate(plain(count)):
        if number % 500 == 499:
            yield "n/a"
        elif number % 100 == 99:
            yield f"guest{number - 1}@example.com"
        elif not number % 5:
            yield f"{guest[:2]} ({guest[2:5]}) {guest[5:8]}-{guest[8:]}"
        elif number % 20 < 3:
            yield guest.title()
        elif number % 20 == 3:
            yield f" {guest} "
        else:
            yield guest
