"""Numbers and times in messages."""

from __future__ import annotations

from datetime import datetime


def amount(count: int, noun: str) -> str:
    """A number with its noun in the singular or plural: 1 job, 2 jobs, 3 batches."""
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{ending}"


def clock(moment: datetime) -> str:
    """The local time of a moment; with its date unless that is today."""
    local, today = moment.astimezone(), datetime.now().astimezone().date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%Y-%m-%d %H:%M}"
