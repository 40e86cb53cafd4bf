"""The pure decision: no loop, no clock, only states and times."""

from collections.abc import Sequence
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanx_async import THANX_RATE_LIMITS, ConfigurationError, Lane, RateLimit
from thanx_async.limiter import least_duration
from thanx_async.limiter._pacing import LEASE, Pacing
from thanx_async.limiter._refusal import LimiterAnswer
from thanx_async.limiter._state import Booking, LimiterState
from thanx_async.limiter._stored import dump_state, load_state


def pacing(*limits: RateLimit) -> Pacing:
    return Pacing(limits, strict=True, draw=lambda: 0.5)


def book(
    rules: Pacing, state: LimiterState, now: float, owner: str = "me", *, polls: bool = False
) -> Booking:
    """Ask, as often as is advised, until there is a booking."""
    while True:
        admission = rules.admit(state, owner, now, [Lane.POLL if polls else Lane.ISSUE])
        if admission.booking:
            return admission.booking
        assert admission.due > now
        now = admission.due


def send(rules: Pacing, state: LimiterState, now: float, status: int = 200, date: str = "") -> float:
    """Send a request that is answered at once; returns when it was sent."""
    booking = book(rules, state, now)
    rules.settle(state, booking, booking.sent, LimiterAnswer(booking.sent, status, date=date))
    return booking.sent


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from([200, 200, 200, 429, None]), st.floats(0, 4)), max_size=40
    )
)
def test_a_stored_state_decides_the_same(steps: list[tuple[float, int | None, float]]) -> None:
    """A state that was stored and loaded after every step takes the very same course."""
    rules = pacing(RateLimit(3, 1), RateLimit(12, 10))
    kept, stored = LimiterState(), LimiterState()
    now = 1e9
    for gap, status, took in steps:
        now += gap
        booking = book(rules, kept, now)
        stored = load_state(dump_state(stored))
        assert book(rules, stored, now) == booking
        now = booking.sent + took
        answer = None if status is None else LimiterAnswer(now, status)
        for state in (kept, stored):
            rules.settle(state, booking, now, answer)
    assert load_state(dump_state(stored)) == kept


@pytest.mark.parametrize(
    ("limits", "spacing"),
    [
        ([RateLimit(5, 1), RateLimit(2000, 900)], 0.2),
        ([RateLimit(2000, 900), RateLimit(100, 60), RateLimit(5, 1)], 0.2),
        ([RateLimit(100, 1), RateLimit(5, 2)], 0.4),
        ([RateLimit(5, 1), RateLimit(8, 1), RateLimit(5, 1)], 0.2),
        ([RateLimit(3, 30)], 10),
    ],
)
def test_the_shortest_limit_that_matters_sets_the_pace(limits: Sequence[RateLimit], spacing: float) -> None:
    """Requests are spaced evenly by the shortest window that no other limit implies."""
    rules, state = pacing(*limits), LimiterState()
    assert book(rules, state, 7.0).sent == 7.0
    assert book(rules, state, 7.0).sent == pytest.approx(7.0 + spacing)


def test_a_state_stays_small() -> None:
    """However high the limit, the state does not grow with it."""
    rules, state = pacing(RateLimit(100_000, 900)), LimiterState()
    for number in range(20_000):
        send(rules, state, number * 0.045)
    assert len(dump_state(state)) < 15_000


def test_an_unanswered_request_counts_until_its_lease_is_over() -> None:
    """What was sent by somebody who died counts as if its answer had come when its lease ended."""
    rules, state = pacing(RateLimit(1, 10)), LimiterState()
    assert book(rules, state, 100.0).sent == 100.0
    assert rules.decide(state, 100 + LEASE + 11)[Lane.ISSUE].due <= 100 + LEASE + 11
    assert book(rules, state, 100.0, "other").sent == pytest.approx(100 + LEASE + 10, abs=0.05)


def test_an_answer_after_the_lease_counts_once_more() -> None:
    """A request that was given up and then answered counts from its answer as well."""
    rules, state = pacing(RateLimit(1, 10)), LimiterState()
    late = book(rules, state, 100.0)
    late_answer = late.sent + LEASE + 9
    rules.settle(state, late, late_answer, LimiterAnswer(late_answer, 200))
    assert book(rules, state, late_answer).sent == pytest.approx(late_answer + 10, abs=0.05)


def test_a_dead_probe_does_not_block_for_ever() -> None:
    """Others wait for a probe's answer, but not longer than its lease."""
    rules, state = pacing(RateLimit(5, 1)), LimiterState()
    send(rules, state, 100.0, status=429)
    probe = book(rules, state, 100.0)
    assert rules.decide(state, probe.sent + 1)[Lane.ISSUE].reason == "the answer to a probe after a refusal"
    assert book(rules, state, probe.sent + 1, "other").sent == pytest.approx(probe.sent + LEASE, abs=0.01)


def test_a_late_refusal_says_nothing_new() -> None:
    """A 429 for a request sent before the probe that got through starts no new pause."""
    rules, state = pacing(RateLimit(5, 1)), LimiterState()
    slow = book(rules, state, 0.0)
    send(rules, state, 0.0, status=429)
    resumed = send(rules, state, 0.0)
    rules.settle(state, slow, resumed + 1, LimiterAnswer(resumed + 1, 429))
    assert state.refusal.count == 2
    assert rules.decide(state, resumed + 1)[Lane.ISSUE].due <= resumed + 1


def test_holds_grow_to_a_minute() -> None:
    """Without a word from the server, pauses double up to 60 s."""
    rules, state = pacing(*THANX_RATE_LIMITS), LimiterState()
    sent = [send(rules, state, 0.0, status=429) for _ in range(10)]
    gaps = [round(later - earlier) for earlier, later in pairwise(sent)]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
    "date", ["", "soon", "Mon, 99 Foo 20xx", "Thu, 01 Jan 2026 00:00:00 +9999999999999999999"]
)
def test_a_date_that_is_none_is_ignored(date: str) -> None:
    """Whatever a proxy writes there, the pause is the usual one."""
    rules, state = pacing(*THANX_RATE_LIMITS), LimiterState()
    sent = [send(rules, state, 0.0, status=429, date=date) for _ in range(5)]
    assert round(sent[4] - sent[3]) == 8


@pytest.mark.parametrize(
    ("asked", "hold"), [("0", 1.0), ("2", 2.0), ("9" * 400, 3600.0), ("-5", 1.0), (" 7 ", 7.0), ("٣", 1.0)]
)
def test_retry_after_has_bounds(asked: str, hold: float) -> None:
    """Nobody probes at once, and nobody waits for days."""
    rules, state = pacing(RateLimit(5, 1)), LimiterState()
    booking = book(rules, state, 50.0)
    rules.settle(state, booking, 50.0, LimiterAnswer(50.0, 429, asked))
    assert book(rules, state, 50.0).sent == pytest.approx(50 + hold)


def test_processes_take_turns() -> None:
    """Who has just sent goes behind the others who wait, and nobody waits behind a dead one for long."""
    rules, state = pacing(RateLimit(5, 1)), LimiterState()
    waiting = dict.fromkeys("abc", 0.0)
    order: list[str] = []
    while len(order) < 30:
        owner, now = min(waiting.items(), key=lambda entry: entry[1])
        if owner == "b" and len(order) > 15:
            waiting[owner] = 1e9  # killed
            continue
        admission = rules.admit(state, owner, now, [Lane.ISSUE])
        waiting[owner] = admission.due
        if admission.booking:
            order.append(owner)
            rules.settle(state, admission.booking, now, LimiterAnswer(now, 200))
    assert "".join(order[1:16]) == "abc" * 5
    assert {*order[20:]} == {"a", "c"}
    assert now < 10


def test_a_stricter_process_holds_nobody_up() -> None:
    """Each process keeps its own limits over what all have sent, without blocking who may send already."""
    slow, quick, state = pacing(RateLimit(1, 600)), pacing(RateLimit(5, 1)), LimiterState()
    assert book(quick, state, 0.0, "quick").sent == 0.0
    assert slow.admit(state, "slow", 0.0, [Lane.ISSUE]).due > 599
    assert book(quick, state, 0.0, "quick").sent < 1
    assert slow.admit(state, "slow", 601.0, [Lane.ISSUE]).booking is None


def test_new_limits_know_what_was_sent() -> None:
    """A window that was not asked for before is filled from what another one remembers."""
    first, second, state = pacing(RateLimit(50, 100)), pacing(RateLimit(3, 20)), LimiterState()
    for _ in range(3):
        send(first, state, 0.0)
    assert sum(count for _, count in second.returns(state, second.limits[0], 5.0)) == 3
    assert book(second, state, 5.0).sent > 20


def test_polls_of_other_processes_get_their_slot() -> None:
    """One slot in ten is a poll's, whichever process it waits in."""
    rules, state = pacing(RateLimit(5, 1)), LimiterState()
    waiting = {"issuer": 0.0, "poller": 0.0}
    order: list[str] = []
    while len(order) < 40:
        owner, now = min(waiting.items(), key=lambda entry: entry[1])
        admission = rules.admit(state, owner, now, [Lane.POLL if owner == "poller" else Lane.ISSUE])
        waiting[owner] = admission.due
        if admission.booking:
            order.append(owner)
            rules.settle(state, admission.booking, now, LimiterAnswer(now, 200))
    assert 3 <= order.count("poller") <= 5


@pytest.mark.parametrize(
    ("limits", "phrase"),
    [
        ([], "limits is empty"),
        (RateLimit(5, 1), "limits must be a list of RateLimit"),
        ([(5, 1)], r"limits\[0\] must be a RateLimit"),
        ([RateLimit(5, 1), None], r"limits\[1\] must be a RateLimit"),
    ],
)
def test_lists_that_are_none(limits: Sequence[RateLimit], phrase: str) -> None:
    """A list of limits that is unusable is a configuration error that says where."""
    with pytest.raises(ConfigurationError, match=phrase):
        Pacing(limits, strict=True)


@pytest.mark.parametrize(
    ("requests", "seconds"), [(0, 0), (1, 0), (5, 0.8), (6, 1), (2000, 399.8), (2001, 900), (4001, 1800)]
)
def test_the_least_duration(requests: int, seconds: float) -> None:
    """Even spacing and all limits together decide."""
    assert least_duration(requests, THANX_RATE_LIMITS) == pytest.approx(seconds)


def test_a_long_silence_is_forgotten() -> None:
    """Neither old refusals nor a pause that was never probed slow down who comes much later."""
    rules, state = pacing(RateLimit(5, 1)), LimiterState()
    for _ in range(6):
        asked_until = send(rules, state, 0.0, status=429)
    send(rules, state, 0.0, status=429)
    assert book(rules, state, asked_until + 1).sent > asked_until + 25
    rules.admit(state, "me", asked_until + 2000, [Lane.ISSUE])
    second = book(rules, state, asked_until + 2000)
    assert second.sent == pytest.approx(asked_until + 2000.2)
    assert state.refusal.count == 7


def test_adaptive_comes_closer_until_refused() -> None:
    """Success shortens the waits that slow answers cost, and a refusal brings part of them back."""
    rules, state = Pacing([RateLimit(1, 1)], strict=False, draw=lambda: 0.5), LimiterState()
    for _ in range(30):
        send(rules, state, state.clock)

    def gap() -> float:
        """Seconds between a slow request and the next."""
        first = book(rules, state, state.clock + 10)
        rules.settle(state, first, first.sent + 0.9, LimiterAnswer(first.sent + 0.9, 200))
        return send(rules, state, state.clock) - first.sent

    wide = gap()
    for _ in range(300):
        send(rules, state, state.clock)
    close = gap()
    assert wide > 1.8
    assert close < 1.5
    send(rules, state, state.clock, status=429)
    assert close < gap() <= wide
    assert state.margin == 0


def test_a_state_of_an_earlier_version_loads() -> None:
    """A stored state from before requests were noted by lane is still understood."""
    rules, state = pacing(RateLimit(5, 1)), LimiterState()
    send(rules, state, 5.0)
    stored = orjson.loads(dump_state(state))
    del stored["sent"]
    old = load_state(orjson.dumps(stored))
    assert rules.used(old, rules.limits[0], 5.0) == 1
    assert rules.issuing_ago(old, 5.0) is None


@pytest.mark.parametrize("moment", [-1.0, 1e12])
def test_a_time_that_is_none_is_damage(moment: float) -> None:
    """A state that notes requests at impossible times is refused."""
    state = LimiterState(sent={"issue": moment})
    with pytest.raises(ValueError):  # noqa: PT011 - it has no message
        load_state(dump_state(state))
