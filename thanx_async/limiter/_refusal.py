"""Decides how long requests pause after a 429 or during an outage, and when one of them probes."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import attrs

from thanx_async.limiter._state import Booking, Refusal

_LONGEST_HOLD = 60.0
_LONGEST_OUTAGE_HOLD = 30.0
_LONGEST_ASKED_IN_OUTAGE = 300.0
_LONGEST_ASKED = 3600.0
_AFTER_BOUNDARY = 0.5
_BOUNDARY_AFTER = 3


@attrs.frozen
class LimiterAnswer:
    """An answer and its time. ``retry_after`` and ``date`` are its headers, or empty if missing."""

    time: float
    status: int
    retry_after: str = ""
    date: str = ""


def refused(refusal: Refusal, booking: Booking, answer: LimiterAnswer, boundary: float, draw: float) -> None:
    """Count a 429, and start or lengthen the pause. Requests from before the pause do not lengthen it.

    The first pause is for the shortest window, so it is measured from the sending of the refused request.

    Args:
        refusal: the pause to change.
        booking: the refused request.
        answer: the 429.
        boundary: the longest window, in seconds. A counter that is aligned to the server's clock resets at
            multiples of the window, so from the third failure on, a pause ends there at the latest.
        draw: a random number from 0 to 1.
    """
    refusal.count += 1
    if refusal.failures and booking.token != refusal.probe:
        return
    if not refusal.failures and refusal.resumed is not None and booking.sent < refusal.resumed:
        return
    refusal.failures += 1
    refusal.outage, refusal.away_since = False, None
    if (asked := _asked(answer)) is not None:
        refusal.until = answer.time + asked
    else:
        since = booking.sent if refusal.failures == 1 else answer.time
        refusal.until = since + _hold(refusal.failures, answer, boundary, draw)


def unanswered(
    refusal: Refusal, booking: Booking, now: float, answer: LimiterAnswer | None, draw: float
) -> None:
    """Start or lengthen the pause of an outage, after a 5xx or no answer.

    After the first failure the probe is sent at once. Requests that were sent before the pause began are
    ignored.

    Args:
        refusal: the pause to change.
        booking: the failed request.
        now: the time.
        answer: the 5xx; None if no answer arrived.
        draw: a random number from 0 to 1.
    """
    if refusal.failures and booking.token != refusal.probe:
        return
    if not refusal.failures and refusal.resumed is not None and booking.sent < refusal.resumed:
        return
    refusal.failures += 1
    refusal.outage = True
    refusal.away_since = booking.sent if refusal.away_since is None else refusal.away_since
    asked = None if answer is None else _asked(answer)
    if asked is not None:
        refusal.until = now + min(asked, _LONGEST_ASKED_IN_OUTAGE)
    elif refusal.failures == 1:
        refusal.until = now
    else:
        hold = min(_LONGEST_OUTAGE_HOLD, 2.0 ** min(refusal.failures - 3, 10))
        refusal.until = now + hold * (0.5 + 0.5 * draw)


def passed(refusal: Refusal, booking: Booking) -> None:
    """End the pause, since Thanx has answered. After a 429 only the answer to the probe ends the pause."""
    if refusal.failures and (refusal.outage or booking.token == refusal.probe):
        refusal.failures, refusal.until, refusal.resumed = 0, None, booking.sent
        refusal.outage, refusal.away_since = False, None


def _hold(failures: int, answer: LimiterAnswer, boundary: float, draw: float) -> float:
    hold = 2.0 ** min(failures - 1, 10)
    if failures > 1:
        hold *= 0.9 + 0.2 * draw
    hold = min(_LONGEST_HOLD, hold)
    if failures >= _BOUNDARY_AFTER and (server := _timestamp(answer.date)) is not None:
        hold = min(hold, boundary - server % boundary + _AFTER_BOUNDARY)
    return hold


def _asked(answer: LimiterAnswer) -> float | None:
    """The wait that ``Retry-After`` asks for, in seconds, from a number or a date.

    Less than a second is ignored, since Thanx would refuse the probe again. More than an hour is cut to an
    hour, since the windows of the limits are minutes.
    """
    text = answer.retry_after.strip()
    if text.isascii() and text.isdigit():
        seconds = float(text)
    else:
        moment, server = _timestamp(text), _timestamp(answer.date)
        if moment is None or server is None:
            return None
        seconds = moment - server
    return min(seconds, _LONGEST_ASKED) if seconds >= 1 else None


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
