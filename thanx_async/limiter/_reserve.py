"""Decides how much of a rate limit only interactive requests may use."""

from __future__ import annotations

from math import inf

import attrs

from thanx_async._core import checks
from thanx_async.limiter._limits import RateLimit
from thanx_async.limiter._protocol import Lane
from thanx_async.limiter._state import LimiterState

DEFAULT_RESERVE = 0.1
"""The share of each window but the shortest that only interactive requests may use."""

_MOST = 0.9
_IDLE_SHARE = 0.02
_SEEN_WITHIN = 900.0
_REMEMBERED = 86_400.0
_POLLS_SHARE = 0.5


@attrs.frozen
class Reserve:
    """A share of each window but the shortest.

    It is small after 15 minutes without interactive requests, and nothing after a day without any: a nightly
    run of a credential that nothing else uses has all of the limits.
    """

    share: float = attrs.field(default=DEFAULT_RESERVE)

    @share.validator
    def _check_share(self, _: object, value: object) -> None:
        checks.number("reserve", value, 0, _MOST)

    def of(self, limit: RateLimit, state: LimiterState, now: float) -> int:
        """How many requests of a limit are reserved now, at most all but one."""
        ago = now - state.sent.get(Lane.INTERACTIVE.value, -inf)
        if ago > _REMEMBERED:
            return 0
        share = self.share if ago <= _SEEN_WITHIN else min(self.share, _IDLE_SHARE)
        return min(round(share * limit.requests), limit.requests - 1)


def least_often(lane: Lane, limit: RateLimit, reserved: int) -> float:
    """Seconds between the requests of a lane that go although only the reserve is left.

    Otherwise interactive requests that use all of a limit would stop the others for ever. Polls may use half
    of the reserve, since somebody may wait for the outcome of an interactive request. Bulk requests get one
    in each window.
    """
    return limit.seconds / (_POLLS_SHARE * reserved) if lane is Lane.POLL else limit.seconds
