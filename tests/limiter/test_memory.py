import asyncio
import logging
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import now, on_virtual_time
from tests.limiter.sending import LIMITS, REQUESTS, check, course, send
from thanx_async import (
    THANX_RATE_LIMITS,
    ConfigurationError,
    Lane,
    LocalRateLimiter,
    RateLimit,
)
from thanx_async.emulator.counters import Counter, referee

SHORT = (RateLimit(5, 1.0),)


@settings(max_examples=40)
@given(limits=LIMITS, requests=REQUESTS, strict=st.booleans())
def test_no_window_ever_holds_too_many(
    limits: list[RateLimit], requests: list[tuple[float, str, Lane]], *, strict: bool
) -> None:
    """By the client's own log no limit is broken, whatever the latencies, answers and cancellations."""

    async def main() -> None:
        check(await course([LocalRateLimiter(limits, strict=strict)], requests), limits)

    on_virtual_time(main)


@pytest.mark.parametrize(
    "counter", [Counter.FIXED, Counter.SLIDING_LOG, Counter.SLIDING_COUNTER, Counter.LEAKY]
)
@pytest.mark.parametrize("median", [0.02, 0.06, 0.12])
@pytest.mark.parametrize("strict", [True, False])
async def test_servers_hardly_ever_refuse(counter: Counter, median: float, *, strict: bool) -> None:
    """Under any jitter, at most 1 of 80 requests is refused, however the server counts."""
    dice = random.Random(7)
    judge = referee(counter, 5, 1.0)
    limiter = LocalRateLimiter(SHORT, strict=strict)
    refused = 0

    async def request() -> None:
        nonlocal refused
        while True:
            async with limiter.slot() as slot:
                await asyncio.sleep(dice.lognormvariate(0, 0.5) * median)
                admitted = judge.admits(now())
                await asyncio.sleep(dice.lognormvariate(0, 0.5) * median)
                slot.answered(200 if admitted else 429, {})
            if admitted:
                return
            refused += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(80):
            group.create_task(request())
    assert refused <= 1
    assert now() < 1.6 * 80 / 5


async def test_requests_are_first_come_first_served() -> None:
    """Waiters of a lane go in the order in which they came, also when some have left."""
    limiter = LocalRateLimiter(SHORT)
    order: list[int] = []

    async def request(number: int) -> None:
        async with limiter.slot():
            order.append(number)

    tasks = [asyncio.create_task(request(number)) for number in range(12)]
    await asyncio.sleep(0.5)
    for task in tasks[5:8]:
        task.cancel()
    await asyncio.wait(tasks)
    assert order == [0, 1, 2, 3, 4, 8, 9, 10, 11]


async def test_a_poll_waits_but_does_not_starve() -> None:
    """Issuing goes first; while both wait, one slot in ten goes to a poll."""
    limiter = LocalRateLimiter([RateLimit(1, 1.0)])
    lanes: list[Lane] = []

    async def request(lane: Lane) -> None:
        async with limiter.slot(lane):
            lanes.append(lane)

    async with asyncio.TaskGroup() as group:
        for lane in [*[Lane.POLL] * 3, *[Lane.ISSUE] * 25]:
            group.create_task(request(lane))
    polls = [place for place, lane in enumerate(lanes) if lane is Lane.POLL]
    assert polls[:2] in ([9, 19], [0, 10])
    assert len(polls) == 3


async def test_after_a_refusal_one_probe_goes_first() -> None:
    """A 429 pauses everybody; one request probes while the others wait, and the pauses grow."""
    limiter = LocalRateLimiter(SHORT)
    sent: list[float] = []
    await send(limiter, sent, status=429)
    assert limiter.status().reason == "a refusal (429)"
    others = [asyncio.create_task(send(limiter, sent, took=0.5)) for _ in range(3)]
    await asyncio.sleep(1.2)
    assert len(sent) == 2
    assert limiter.status().reason == "the answer to a probe after a refusal"
    await asyncio.wait(others)
    await send(limiter, sent, status=429)
    await send(limiter, sent, status=429)
    await send(limiter, sent, status=429)
    await send(limiter, sent)
    gaps = [later - earlier for earlier, later in pairwise(sent[-4:])]
    assert [round(gap) for gap in gaps] == [1, 2, 4]
    assert limiter.status().refused == 4


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "17"}, 17, 17.1),
        (
            {
                "Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT",
                "Date": "Thu, 01 Jan 2026 00:00:10 GMT",
            },
            20,
            20.1,
        ),
        ({"Retry-After": "soon", "Date": "yesterday"}, 1, 1.1),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"}, 1, 1.1),
    ],
)
async def test_retry_after_is_honoured(headers: dict[str, str], least: float, most: float) -> None:
    """Both forms of the header are understood; nonsense is as good as none."""
    limiter = LocalRateLimiter(SHORT)
    sent: list[float] = []
    await send(limiter, sent, status=429, headers=headers)
    await send(limiter, sent)
    assert least <= sent[1] - sent[0] <= most


async def test_the_long_window_is_probed_at_its_boundary() -> None:
    """From the third refusal on, a probe is made when a counter aligned to the server's clock starts anew."""
    limiter = LocalRateLimiter(THANX_RATE_LIMITS)
    sent: list[float] = []
    server = {"Date": "Thu, 01 Jan 2026 00:14:55 GMT"}
    for _ in range(4):
        await send(limiter, sent, status=429, headers={})
    await send(limiter, sent, status=429, headers=server)
    await send(limiter, sent)
    assert sent[5] - sent[4] == pytest.approx(5.5, abs=0.01)


async def test_refused_requests_during_a_pause_say_nothing_new() -> None:
    """Answers of requests that were sent before the pause began do not lengthen it."""
    limiter = LocalRateLimiter(SHORT)
    sent: list[float] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(send(limiter, sent, took=1.0, status=429))
    await send(limiter, sent)
    assert limiter.status().refused == 5
    assert sent[-1] - sent[4] < 2.5


async def test_a_cancelled_probe_hands_over() -> None:
    """When the probe is cancelled another one takes its place."""
    limiter = LocalRateLimiter(SHORT)
    sent: list[float] = []
    await send(limiter, sent, status=429)
    probe = asyncio.create_task(send(limiter, sent, took=100))
    await asyncio.sleep(2)
    follower = asyncio.create_task(send(limiter, sent))
    await asyncio.sleep(1)
    assert len(sent) == 2
    probe.cancel()
    await follower
    assert len(sent) == 3


async def test_long_waits_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Who waits for more than five seconds is told the reason, once."""
    limiter = LocalRateLimiter([RateLimit(2, 100.0)])
    sent: list[float] = []
    with caplog.at_level(logging.INFO, logger="thanx_async"):
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(send(limiter, sent))
    (record,) = [row for row in caplog.records if "100 s" in row.getMessage()]
    assert "wait" in record.getMessage()
    assert record.levelno == logging.WARNING


async def test_the_margin_grows_and_shrinks() -> None:
    """Refusals slow the sending down, and long success brings it back."""
    limiter = LocalRateLimiter(SHORT, strict=False)
    sent: list[float] = []

    async def pace() -> float:
        await send(limiter, sent)
        await send(limiter, sent)
        return sent[-1] - sent[-2]

    fresh = await pace()
    for _ in range(6):
        await send(limiter, sent, status=429)
    slowed = await pace()
    for _ in range(2500):
        await send(limiter, sent)
    assert slowed > 1.1 * fresh
    assert await pace() == pytest.approx(fresh, rel=0.03)  # times are kept in grains of 2 ms


@pytest.mark.parametrize(
    ("requests", "seconds"),
    [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -1.0), (1, float("inf")), (1, float("nan")), (True, 1.0), (1, True)],
)
def test_impossible_limits(requests: int, seconds: float) -> None:
    """A limit that cannot be is a configuration error that names the field."""
    with pytest.raises(ConfigurationError, match=r"RateLimit\.(requests|seconds)"):
        RateLimit(requests, seconds)


async def test_the_state_is_visible() -> None:
    """The status and the repr tell what is used and what is free."""
    limiter = LocalRateLimiter(THANX_RATE_LIMITS)
    sent: list[float] = []
    for _ in range(3):
        await send(limiter, sent, took=0.1)
    status = limiter.status()
    assert [(window.limit.requests, window.used, window.free) for window in status.windows] == [
        (5, 3, 2),
        (2000, 3, 1997),
    ]
    assert status.latency == pytest.approx(0.1)
    assert repr(limiter) == (
        "<LocalRateLimiter 3 of 5 in 1 s, 3 of 2,000 in 900 s;"
        " next in 0.1 s after even spacing; 0 waiting, 0 refused>"
    )
