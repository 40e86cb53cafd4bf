"""Ways to count requests against a rate limit; Thanx does not say which one it uses."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from thanx_async.emulator import checks
from thanx_async.emulator.checks import Setting, SettingError

_SHORTEST = 0.001


class Counter(StrEnum):
    """How the emulator counts requests against its limits.

    ``FIXED`` counts in windows aligned to the clock, and ``SLIDING_LOG`` in any window;
    ``SLIDING_LOG_COUNTING_REFUSED`` also counts refused requests. ``SLIDING_COUNTER`` estimates a sliding
    window from two aligned ones. ``LEAKY`` is a leaky bucket. ``NONE`` sets no limit.
    """

    FIXED = "fixed"
    SLIDING_LOG = "sliding-log"
    SLIDING_LOG_COUNTING_REFUSED = "sliding-log-counting-refused"
    SLIDING_COUNTER = "sliding-counter"
    LEAKY = "leaky"
    NONE = "none"


class Referee(Protocol):
    """Admits or refuses requests one by one; ``now`` is in seconds and never goes backwards."""

    def admits(self, now: float) -> bool: ...


class Fixed:
    """At most ``requests`` in each window that is aligned to the clock."""

    def __init__(self, requests: int, seconds: float) -> None:
        self._requests, self._seconds = requests, seconds
        self._window, self._count = -1, 0

    def admits(self, now: float) -> bool:
        window = int(now // self._seconds)
        if window != self._window:
            self._window, self._count = window, 0
        self._count += 1
        return self._count <= self._requests


class SlidingLog:
    """At most ``requests`` in any window."""

    def __init__(self, requests: int, seconds: float) -> None:
        self._seconds = seconds
        self._log: deque[float] = deque(maxlen=requests)

    def admits(self, now: float) -> bool:
        full = len(self._log) == self._log.maxlen
        if full and self._log[0] > now - self._seconds:
            return False
        self._log.append(now)
        return True


class SlidingLogCountingRefused:
    """At most ``requests`` in any window, counting refused requests as well."""

    def __init__(self, requests: int, seconds: float) -> None:
        self._seconds = seconds
        self._log: deque[float] = deque(maxlen=requests)

    def admits(self, now: float) -> bool:
        full = len(self._log) == self._log.maxlen
        admitted = not (full and self._log[0] > now - self._seconds)
        self._log.append(now)
        return admitted


class SlidingCounter:
    """At most ``requests`` in an estimate of the sliding window.

    The estimate is the count of the current aligned window, plus the share of the previous count that the
    sliding window still covers, rounded down as usual.
    """

    def __init__(self, requests: int, seconds: float) -> None:
        self._requests, self._seconds = requests, seconds
        self._window, self._count, self._before = 0, 0, 0

    def admits(self, now: float) -> bool:
        window = int(now // self._seconds)
        if window != self._window:
            self._before = self._count if window == self._window + 1 else 0
            self._window, self._count = window, 0
        covered = 1 - now % self._seconds / self._seconds
        if self._count + int(self._before * covered) + 1 > self._requests:
            return False
        self._count += 1
        return True


class Leaky:
    """A bucket that leaks ``requests`` per ``seconds`` and holds ``burst`` more than one request.

    nginx's ``limit_req ... burst=... nodelay`` works the same way.
    """

    def __init__(self, requests: int, seconds: float, burst: int) -> None:
        self._rate, self._burst = requests / seconds, burst
        self._level, self._last = 0.0, 0.0

    def admits(self, now: float) -> bool:
        self._level = max(0.0, self._level - (now - self._last) * self._rate)
        self._last = now
        if self._level > self._burst + 1e-9:
            return False
        self._level += 1
        return True


class Unlimited:
    """Admits everything."""

    def admits(self, now: float) -> bool:  # noqa: ARG002 - required by the protocol
        return True


def referee(counter: Counter, requests: int, seconds: float, *, burst: int | None = None) -> Referee:
    """The referee of one limit. ``burst`` is for a leaky bucket, by default a full limit."""
    match counter:
        case Counter.FIXED:
            return Fixed(requests, seconds)
        case Counter.SLIDING_LOG:
            return SlidingLog(requests, seconds)
        case Counter.SLIDING_LOG_COUNTING_REFUSED:
            return SlidingLogCountingRefused(requests, seconds)
        case Counter.SLIDING_COUNTER:
            return SlidingCounter(requests, seconds)
        case Counter.LEAKY:
            return Leaky(requests, seconds, requests - 1 if burst is None else burst)
        case Counter.NONE:
            return Unlimited()


class Limits:
    """The rate limits of an emulator: each credential has its own count."""

    def __init__(self, counter: str, limits: object, burst: int | None) -> None:
        pairs = _checked(counter, limits, burst)
        self._referees = defaultdict[str, list[Referee]](
            lambda: [referee(Counter(counter), *pair, burst=burst) for pair in pairs]
        )

    def admits(self, credential: str, now: float) -> bool:
        verdicts = [judge.admits(now) for judge in self._referees[credential]]
        return all(verdicts)


def _checked(counter: str, limits: object, burst: int | None) -> list[tuple[int, float]]:
    if counter not in list(Counter):
        raise SettingError(
            Setting("Emulator.counter"), f" must be one of {', '.join(Counter)}, not {counter!r}"
        )
    if burst is not None:
        checks.whole("Emulator.burst", burst)
        if counter != Counter.LEAKY:
            raise SettingError(Setting("Emulator.burst"), " goes with ", Setting("Counter.LEAKY"), " only")
    if not isinstance(limits, Sequence) or isinstance(limits, str):
        raise SettingError(
            Setting("Emulator.limits"), f" must be a sequence of pairs, not {type(limits).__name__}"
        )
    return [_pair(f"Emulator.limits[{place}]", limit) for place, limit in enumerate(limits)]


def _pair(name: str, limit: object) -> tuple[int, float]:
    match limit:
        case [int(requests), int(seconds) | float(seconds)]:
            if 1 <= requests <= checks.MOST and _SHORTEST <= seconds <= checks.MOST:
                return requests, seconds
            given = f"{requests} in {seconds} s"
        case _:
            given = type(limit).__name__
    most = f"{checks.MOST:,}"
    raise SettingError(
        Setting(name), f" must be 1 to {most} requests in {_SHORTEST} to {most} s, not {given}"
    )
