"""Draws a `LimiterStatus` from a limiter's state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from thanx_async._core.tasks import RESOLUTION
from thanx_async.limiter._limits import RateLimit
from thanx_async.limiter._pacing import Pacing
from thanx_async.limiter._protocol import Lane, LimiterStatus, WindowStatus
from thanx_async.limiter._state import LimiterState
from thanx_async.limiter._steady import Outage
from thanx_async.limiter._turns import Decision

_LONGEST_SHOWN = 1e9


def overview(pacing: Pacing, state: LimiterState, now: float, outage: Outage | None) -> LimiterStatus:
    """The status of a limiter, without what is known of this process alone."""
    decisions = pacing.decide(state, now)
    held, reason = _held(decisions[Lane.INTERACTIVE], now, outage)
    bulk_held, bulk_reason = _held(decisions[Lane.ISSUE], now, outage)
    away_since = state.refusal.away_since
    return LimiterStatus(
        windows=tuple(_window(pacing, limit, state, now) for limit in pacing.limits),
        held_for=held,
        held_until=wall_time(held) if held else None,
        reason=reason if held else None,
        refused=state.refusal.count,
        waiting=0,
        latency=None,
        no_answer_for=None if away_since is None else max(0.0, now - away_since),
        issuing_ago=pacing.issuing_ago(state, now),
        bulk_held_for=bulk_held,
        bulk_reason=bulk_reason if bulk_held else None,
    )


def wall_time(wait: float) -> datetime:
    """The time in ``wait`` seconds, in UTC."""
    return datetime.now(UTC) + timedelta(seconds=min(wait, _LONGEST_SHOWN))


def _window(pacing: Pacing, limit: RateLimit, state: LimiterState, now: float) -> WindowStatus:
    returns = pacing.returns(state, limit, now)
    used = min(limit.requests, sum(count for _, count in returns))
    return WindowStatus(limit, used, limit.requests - used, pacing.reserved(state, limit, now), returns)


def _held(decision: Decision, now: float, outage: Outage | None) -> tuple[float, str]:
    """For how long, in seconds, and for what a lane's requests wait."""
    held = max(0.0, decision.due - now)
    if outage:
        return max(held, outage.retry - now, RESOLUTION), outage.reason
    return held, decision.reason
