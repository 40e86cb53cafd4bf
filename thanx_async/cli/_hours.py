"""The hours of the day in which batches are sent."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import attrs
from cyclopts import Parameter

from thanx_async._core.errors import ConfigurationError

_LOOK_AGAIN = 30.0
"""Seconds between looks at the wall clock, which goes on while a machine sleeps."""

TimeOfDay = tuple[int, int]


def _time_of_day(text: str | None, option: str) -> TimeOfDay | None:
    if text is None:
        return None
    try:
        time = datetime.strptime(text, "%H:%M")
    except ValueError:
        raise ConfigurationError(f"{option} must be a time of day such as 09:00, not {text!r}") from None
    return time.hour, time.minute


@Parameter(name="*")
@attrs.frozen
class Hours:
    """When batches are sent, in local time.

    Parameters
    ----------
    not_before:
        Wait for this time of day, such as 09:00, before anything is sent.
    until:
        Send nothing after this time of day, such as 21:00. The same command goes on with the rest later.
    """

    not_before: str | None = None
    until: str | None = None

    def window(self, now: datetime) -> tuple[datetime, datetime | None]:
        """When sending begins and when it ends, from now on. Without an end, it is None.

        Raises:
            ConfigurationError: an option is no time of day.
        """
        opens = _time_of_day(self.not_before, "--not-before")
        closes = _time_of_day(self.until, "--until")
        if opens is not None and opens == closes:
            raise ConfigurationError("--not-before and --until are the same time of day")
        if closes is None:
            return (now if opens is None else max(now, _at(now, opens))), None
        for days in (-1, 0, 1):  # the window that began yesterday may reach over midnight
            day = now + timedelta(days=days)
            begin = _at(day, opens or (0, 0))
            end = _at(day if closes > (opens or (0, 0)) else day + timedelta(days=1), closes)
            if now < end:
                break
        return max(now, begin), end


def _at(day: datetime, time: TimeOfDay) -> datetime:
    hour, minute = time
    return day.replace(hour=hour, minute=minute, second=0, microsecond=0, tzinfo=None).astimezone()


def local_now() -> datetime:
    """The local time, aware."""
    return datetime.now().astimezone()


async def sleep_until(moment: datetime) -> None:
    """Sleep until a moment of the wall clock."""
    while (left := (moment - local_now()).total_seconds()) > 0:  # noqa: ASYNC110 - no event tells the time
        await asyncio.sleep(min(left, _LOOK_AGAIN))
