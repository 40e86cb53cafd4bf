"""What follows a 429: everybody pauses, one request probes, and the pause grows while probes fail."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import attrs

from thanx_async.limiter._state import Booking, Refusal

_LONGEST_HOLD = 60.0
_LONGEST_ASKED = 3600.0
_AFTER_BOUNDARY = 0.5
_LONG_LIMIT_AFTER = 3


@attrs.frozen
class LimiterAnswer:
    """What came back, and when. The two texts are headers, empty if there were none."""

    time: float
    status: int
    retry_after: str = ""
    date: str = ""


def refused(refusal: Refusal, booking: Booking, answer: LimiterAnswer, boundary: float, draw: float) -> None:
    """Pause, or pause longer. A request that was sent before the pause began says nothing new.

    The first pause is meant for the shortest window, and so begins with the sending.

    Args:
        boundary: seconds of the longest window. A counter that is aligned to the server's clock starts anew
            at its multiples, so that from the third failure on a probe is made there as well.
        draw: from 0 to 1, spreads clients.
    """
    refusal.count += 1
    if refusal.failures and booking.token != refusal.probe:
        return
    if not refusal.failures and refusal.resumed is not None and booking.sent < refusal.resumed:
        return
    refusal.failures += 1
    if (asked := _asked(answer)) is not None:
        refusal.until = answer.time + asked
    else:
        since = booking.sent if refusal.failures == 1 else answer.time
        refusal.until = since + _hold(refusal.failures, answer, boundary, draw)


def passed(refusal: Refusal, booking: Booking) -> None:
    """An answer that was no 429: if it was the probe's, the pause is over."""
    if booking.token == refusal.probe:
        refusal.failures, refusal.until, refusal.resumed = 0, None, booking.sent


def _hold(failures: int, answer: LimiterAnswer, boundary: float, draw: float) -> float:
    hold = 2.0 ** min(failures - 1, 10)
    if failures > 1:
        hold *= 0.9 + 0.2 * draw
    hold = min(_LONGEST_HOLD, hold)
    if failures >= _LONG_LIMIT_AFTER and (server := _timestamp(answer.date)) is not None:
        hold = min(hold, boundary - server % boundary + _AFTER_BOUNDARY)
    return hold


def _asked(answer: LimiterAnswer) -> float | None:
    """Seconds that Retry-After asks for: a number of them, or a moment of the server's clock.

    Less than a second would let probes run into a wall, and more than an hour is no answer to a limit of
    minutes.
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
