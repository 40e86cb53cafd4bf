"""The hours of the day in which guests may be sent to Thanx."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from thanx_async._core.errors import ConfigurationError

_LOOK_AGAIN = 30.0
"""Seconds between looks at the wall clock, which goes on while a machine sleeps."""


def parsed(option: str, text: str | None) -> tuple[int, int] | None:
    """The hour and the minute of a time of day."""
    if text is None:
        return None
    try:
        time = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise ConfigurationError(f"{option} must be a time of day such as 09:00, not {text!r}") from None
    return time.hour, time.minute


def window(
    not_before: tuple[int, int] | None, until: tuple[int, int] | None, now: datetime
) -> tuple[datetime, datetime | None]:
    """When sending may begin, and when it must end.

    Args:
        not_before: the time of day at which the window opens; None for midnight, so that it is open until
            ``until``.
        until: the time of day at which it closes; None for never.
        now: the local time.
    """
    opens = now if not_before is None else _at(now, not_before)
    if until is None:
        return max(opens, now), None
    closes = _at(now, until)
    if closes <= opens and not_before is not None:  # over midnight
        if now < closes:
            return now, closes
        closes = _at(now + timedelta(days=1), until)
    if now < closes:
        return max(opens, now), closes
    opens = _at(now + timedelta(days=1), not_before or (0, 0))
    return opens, _at(opens, until)


def _at(day: datetime, time: tuple[int, int]) -> datetime:
    hour, minute = time
    return day.replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None).astimezone()


async def sleep_until(moment: datetime, now: Callable[[], datetime]) -> None:
    """Sleep until a moment of the wall clock."""
    while (left := (moment - now()).total_seconds()) > 0:  # noqa: ASYNC110 - nothing tells the wall clock's time
        await asyncio.sleep(min(left, _LOOK_AGAIN))


def local_now() -> datetime:
    """The local time, aware."""
    return datetime.now().astimezone()
