from hypothesis import given
from hypothesis import strategies as st

from thanx_async.emulator.counters import Counter, referee

GAPS = st.lists(st.floats(0, 0.5), max_size=60)


def admitted(counter: Counter, gaps: list[float], burst: int | None = None) -> list[float]:
    """The times of the requests that a counter of 5 a second admits."""
    judge = referee(counter, 5, 1.0, burst=burst)
    now, times = 0.0, []
    for gap in gaps:
        now += gap
        if judge.admits(now):
            times.append(now)
    return times


@given(GAPS)
def test_a_sliding_log_admits_five_in_any_second(gaps: list[float]) -> None:
    """No second holds six, and whoever finds room is admitted."""
    times = admitted(Counter.SLIDING_LOG, gaps)
    assert all(later - first >= 1.0 - 1e-9 for first, later in zip(times, times[5:], strict=False))
    assert len(times) >= min(5, len(gaps))


@given(GAPS)
def test_a_fixed_window_admits_five_in_each(gaps: list[float]) -> None:
    """Every second of the clock holds exactly five, or all that came."""
    times = admitted(Counter.FIXED, gaps)
    now, came = 0.0, dict[int, int]()
    for gap in gaps:
        now += gap
        came[int(now)] = came.get(int(now), 0) + 1
    held = {window: sum(1 for time in times if int(time) == window) for window in came}
    assert held == {window: min(5, count) for window, count in came.items()}


@given(GAPS)
def test_a_leaky_bucket_never_holds_more_than_five(gaps: list[float]) -> None:
    """In any stretch of time no more than what leaked and what the bucket holds is admitted."""
    times = admitted(Counter.LEAKY, gaps)
    for place, first in enumerate(times):
        for count, later in enumerate(times[place:], start=1):
            assert count <= 5 + 5 * (later - first) + 1e-6


@given(GAPS)
def test_a_sliding_counter_looks_back(gaps: list[float]) -> None:
    """No window of the clock holds more than five; a full one lets few in at the start of the next."""
    times = admitted(Counter.SLIDING_COUNTER, gaps)
    for window in range(40):
        held = [time for time in times if int(time) == window]
        assert len(held) <= 5
        if len(held) == 5:
            assert len([time for time in times if window + 1 <= time < window + 1.2]) <= 1


@given(GAPS)
def test_a_log_that_counts_refusals_admits_after_a_pause_only(gaps: list[float]) -> None:
    """A request is admitted exactly if fewer than five came, admitted or not, in the second before."""
    came: list[float] = []
    expected = []
    now = 0.0
    for gap in gaps:
        now += gap
        if len([time for time in came if time > now - 1.0]) < 5:
            expected.append(now)
        came.append(now)
    assert admitted(Counter.SLIDING_LOG_COUNTING_REFUSED, gaps) == expected


@given(GAPS, st.integers(0, 8))
def test_the_burst_of_a_leaky_bucket(gaps: list[float], burst: int) -> None:
    """In any stretch of time one, the burst and what leaked are admitted; without a burst, one in 200 ms."""
    times = admitted(Counter.LEAKY, gaps, burst)
    for place, first in enumerate(times):
        for count, later in enumerate(times[place:], start=1):
            assert count <= 1 + burst + 5 * (later - first) + 1e-6
    assert len(admitted(Counter.LEAKY, [0.0] * 50, burst)) == 1 + burst
    assert len(admitted(Counter.LEAKY, [0.2] * 50, 0)) == 50


def test_no_counter_admits_everything() -> None:
    """Without limits nobody is refused."""
    assert len(admitted(Counter.NONE, [0.0] * 50)) == 50
