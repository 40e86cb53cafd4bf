"""Lanes and the reserve: who goes first, what is kept for whom, and that nobody starves."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.limiter.sending import check
from thanx_async import THANX_RATE_LIMITS, ConfigurationError, Lane, LocalRateLimiter, RateLimit
from thanx_async.limiter._pacing import Pacing
from thanx_async.limiter._refusal import LimiterAnswer
from thanx_async.limiter._state import LimiterState
from thanx_async.limiter._stored import dump_state

LANES = st.lists(st.sampled_from(Lane), min_size=1, max_size=3, unique=True)
Sent = list[tuple[float, str, Lane]]


class Simulation:
    """Owners that always want to send in some lanes, over one state."""

    def __init__(self, rules: Pacing, wants: dict[str, Sequence[Lane]], took: float = 0.0) -> None:
        self.state = LimiterState()
        self.sent: Sent = []
        self._rules = rules
        self._wants = wants
        self._asks = dict.fromkeys(wants, 0.0)
        self._took = took
        self._flying: list[tuple[float, object]] = []

    def run(self, until: float) -> Sent:
        """Let everybody send until this time; returns what was sent."""
        while (now := min(self._asks.values())) < until:
            owner = min(self._asks, key=self._asks.__getitem__)
            admission = self._rules.admit(self.state, owner, now, self._wants[owner])
            assert admission.booking or admission.due > now
            self._asks[owner] = admission.due
            if admission.booking:
                self.sent.append((now, owner, admission.lane))
                answer = LimiterAnswer(now + self._took, 200)
                self._rules.settle(self.state, admission.booking, now, answer)
        return self.sent

    def join(self, owner: str, lanes: Sequence[Lane], now: float) -> None:
        """Another owner begins to send."""
        self._wants[owner], self._asks[owner] = lanes, now


def rules(*limits: RateLimit, reserve: float = 0.1) -> Pacing:
    return Pacing(limits or THANX_RATE_LIMITS, strict=True, reserve=reserve, draw=lambda: 0.5)


def lanes_of(sent: Sent) -> Counter[Lane]:
    return Counter(lane for _, _, lane in sent)


@pytest.mark.parametrize("split", [True, False])
def test_each_lane_has_its_share(split: bool) -> None:
    """Of a hundred slots polls get ten and bulk a quarter of the rest, in one process or in several."""
    wants: dict[str, Sequence[Lane]] = {lane.value: [lane] for lane in Lane} if split else {"all": list(Lane)}
    sent = Simulation(rules(), wants).run(60)[:100]
    assert lanes_of(sent)[Lane.POLL] in {9, 10}
    assert 21 <= lanes_of(sent)[Lane.ISSUE] <= 24


@settings(max_examples=50)
@given(owners=st.lists(LANES, min_size=1, max_size=6))
def test_nobody_starves(owners: list[list[Lane]]) -> None:
    """Whoever waits in whatever lane, each lane gets its share, and each owner its part of that."""
    sent = Simulation(rules(), {str(number): lanes for number, lanes in enumerate(owners)}).run(60)
    least = {Lane.INTERACTIVE: 0.6, Lane.ISSUE: 0.18, Lane.POLL: 0.08}
    for lane in {lane for lanes in owners for lane in lanes}:
        assert lanes_of(sent)[lane] >= least[lane] * len(sent) - 2
        counts = Counter(owner for _, owner, sent_in in sent if sent_in is lane)
        waiting = [str(number) for number, lanes in enumerate(owners) if lane in lanes]
        assert min(counts[owner] for owner in waiting) >= 0.8 * max(counts.values()) - 2


@given(
    limits=st.lists(
        st.builds(RateLimit, st.integers(1, 30), st.sampled_from([1.0, 3.0, 20.0])), min_size=1, max_size=3
    ),
    reserve=st.floats(0, 0.9),
    owners=st.lists(LANES, min_size=1, max_size=4),
    took=st.sampled_from([0.0, 0.3]),
)
def test_the_limits_hold_whatever_the_lanes(
    limits: list[RateLimit], reserve: float, owners: list[list[Lane]], took: float
) -> None:
    """No window ever holds more than it may, and bulk leaves the reserve, except for one request in each
    window; so each lane gets on.
    """
    decision = rules(*limits, reserve=reserve)
    simulation = Simulation(decision, {str(number): lanes for number, lanes in enumerate(owners)}, took)
    sent = simulation.run(90)
    check([moment for moment, _, _ in sent], limits)
    shortest = decision._pace.seconds
    for limit in decision._kept:
        kept = min(round(reserve * limit.requests), limit.requests - 1) if limit.seconds > shortest else 0
        for place, (moment, _, lane) in enumerate(sent):
            before = [row for row in sent[:place] if row[0] > moment - limit.seconds]
            if lane is Lane.ISSUE and lanes_of(before)[lane] and lanes_of(sent[:place])[Lane.INTERACTIVE]:
                assert len(before) < limit.requests - kept
    if all(90 * limit.requests / limit.seconds > 20 for limit in limits):
        assert set(lanes_of(sent)) == {lane for lanes in owners for lane in lanes}


def test_interactive_requests_have_the_reserve() -> None:
    """Beside a bulk run that has taken all it may, interactive requests go at once."""
    simulation = Simulation(rules(), {"bulk": [Lane.ISSUE]})
    simulation.state.sent["interactive"] = -1000.0
    simulation.run(500)
    assert len(simulation.sent) == 1960
    simulation.join("guests", [Lane.INTERACTIVE], 500.0)
    simulation.run(600)
    assert lanes_of(simulation.sent)[Lane.INTERACTIVE] == 40


def test_a_reserve_is_full_while_it_is_used() -> None:
    """A bulk run leaves a tenth where interactive requests were seen lately, less later, and else nothing."""
    decision, state = rules(), LimiterState()
    long = THANX_RATE_LIMITS[1]
    assert decision.reserved(state, long, 1000.0) == 0
    assert decision.admit(state, "guests", 1000.0, [Lane.INTERACTIVE]).booking
    assert decision.reserved(state, long, 1899.0) == 200
    assert decision.reserved(state, long, 1901.0) == 40
    assert decision.reserved(state, long, 87_400.0) == 40
    assert decision.reserved(state, long, 87_401.0) == 0
    assert decision.reserved(state, THANX_RATE_LIMITS[0], 1000.0) == 0


def test_polls_use_half_of_the_reserve() -> None:
    """While bulk requests are held back, polls still go now and then, and leave half of the reserve."""
    simulation = Simulation(rules(), {"guests": [Lane.INTERACTIVE]})
    simulation.run(0.1)
    simulation._asks["guests"] = math.inf
    simulation.join("bulk", [Lane.ISSUE], 0.2)
    simulation.run(450)
    simulation.join("polls", [Lane.POLL], 450.0)
    simulation.run(880)
    moments = [moment for moment, _, lane in simulation.sent if lane is Lane.POLL]
    assert len(moments) == 48
    assert moments[0] == 450
    assert all(later - earlier >= 9 for earlier, later in pairwise(moments))


def test_a_lane_that_is_held_back_has_no_turn() -> None:
    """While the reserve holds bulk and polls back, interactive requests do not wait for their turns."""
    simulation = Simulation(rules(), {"bulk": [Lane.ISSUE]})
    simulation.state.sent["interactive"] = -1000.0
    simulation.run(500)
    simulation.join("guests", [Lane.INTERACTIVE], 500.0)
    simulation.state.bulk_passed_over = 3
    simulation.run(501)
    assert lanes_of(simulation.sent)[Lane.INTERACTIVE] == 5


@pytest.mark.parametrize(
    ("requests", "share", "reserved"), [(1, 0.9, 0), (2, 0.9, 1), (3, 0.1, 0), (10, 0.9, 9), (2000, 0, 0)]
)
def test_bulk_always_gets_something(requests: int, share: float, reserved: int) -> None:
    """However small a limit or large the share, bulk requests get at least one in each window."""
    limits = [RateLimit(1, 0.1), RateLimit(requests, 60)]
    state = LimiterState(sent={"interactive": 0.0})
    decision = rules(*limits, reserve=share)
    assert decision.reserved(state, limits[1], 0.0) == reserved
    sent = Simulation(decision, {"bulk": [Lane.ISSUE], "guests": [Lane.INTERACTIVE]}).run(600)
    moments = [0.0, *(moment for moment, _, lane in sent if lane is Lane.ISSUE), 600.0]
    assert requests == 1 or max(later - earlier for earlier, later in pairwise(moments)) < 125


@pytest.mark.parametrize("reserve", [-0.1, 0.95, math.nan, math.inf, True, "0.1", None])
def test_a_reserve_that_is_none(reserve: float) -> None:
    """A share that is unusable is a configuration error that says what is possible."""
    with pytest.raises(ConfigurationError, match=r"reserve must be a number from 0 to 0\.9, not "):
        LocalRateLimiter(reserve=reserve)


def test_a_state_with_many_tickets_stays_small() -> None:
    """Fifty processes that wait in all lanes take a few kilobytes."""
    wants: dict[str, Sequence[Lane]] = {f"{number:032x} 12345": list(Lane) for number in range(50)}
    simulation = Simulation(rules(), wants)
    simulation.run(10)
    assert len(simulation.state.tickets) <= 150
    assert len(dump_state(simulation.state)) < 25_000
