"""What goes wrong, as a client sees it over its socket."""

import asyncio
from collections import Counter as Tally

import aiohttp
import pytest

from tests.emulator.plain import HEADERS, ISSUE, Json, body, call, code
from tests.helpers import MERCHANT, TARGET, until
from thanx_async import ThanxClient
from thanx_async.emulator import Counter, Emulator, Fault, Faults, JobSpeed, ScriptedAnswer
from thanx_async.emulator.faults import Dice

SCOPES = "/partner/scopes"


async def outcome(http: aiohttp.ClientSession, path: str = SCOPES) -> object:
    """The status of an answer, or the name of the error in its place."""
    try:
        async with http.get(path, timeout=aiohttp.ClientTimeout(total=5)) as response:
            await response.read()
            return response.status
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__


@pytest.mark.parametrize(
    ("fault", "seen", "acted"),
    [
        (Fault.RESET_BEFORE, aiohttp.ClientOSError, 0),
        (Fault.RESET_AFTER, aiohttp.ClientOSError, 1),
        (Fault.ANSWER_LOST, TimeoutError, 1),
        (Fault.TRUNCATED, aiohttp.ClientPayloadError, 1),
        (Fault.HTML_502, 502, 0),
        (Fault.HTML_504, 504, 1),
        (Fault.ERROR_500, 500, 0),
    ],
)
@pytest.mark.parametrize("scripted", [True, False])
async def test_each_fault(
    emulator: Emulator,
    http: aiohttp.ClientSession,
    fault: Fault,
    seen: type[Exception] | int,
    acted: int,
    *,
    scripted: bool,
) -> None:
    """Each is seen as what it is, before or after Thanx has acted; a repetition then issues nothing twice."""
    if scripted:
        emulator.script(ScriptedAnswer(fault=fault))
    else:
        emulator.faults = Faults(**{fault: 1.0})  # type: ignore[arg-type]  # named like the rates
    timeout = aiohttp.ClientTimeout(total=5)
    if isinstance(seen, int):
        async with http.post(ISSUE, data=body("a@b.co"), timeout=timeout) as response:
            assert response.status == seen
            assert response.content_type == ("application/json" if seen == 500 else "text/html")
    else:
        with pytest.raises(seen):
            async with http.post(ISSUE, data=body("a@b.co"), timeout=timeout) as response:
                await response.read()
    assert sum(emulator.reward_counts().values()) == acted
    emulator.faults = Faults()
    assert (await call(http, "POST", ISSUE, body=body("a@b.co")))[0] == 202
    assert emulator.reward_counts() == {"a@b.co": 1}


async def test_a_truncated_answer_has_its_head(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Status, length and half of the body arrive."""
    emulator.script(ScriptedAnswer(fault=Fault.TRUNCATED, status=200, body=b"0123456789"))
    async with http.get(SCOPES) as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "10")
        assert await response.content.readexactly(5) == b"01234"
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()


async def test_nobody_waits_for_the_half_answer(
    emulator: Emulator, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that has gone before an answer breaks off is no error of the emulator's."""
    emulator.faults = Faults(truncated=1, delay=3.0)
    with pytest.raises(TimeoutError):
        await http.get(SCOPES, timeout=aiohttp.ClientTimeout(total=1))
    await asyncio.sleep(5)
    assert emulator.statistics()["faults"] == {"truncated": 1}
    assert caplog.messages == []


async def test_faults_reach_every_endpoint(http: aiohttp.ClientSession, emulator: Emulator) -> None:
    """Looking, revoking and the catalogue are no exception."""
    emulator.faults = Faults(error_500=1)
    merchant = f"?merchant_id={MERCHANT}"
    for method, path in (
        ("POST", ISSUE),
        ("GET", f"/partner/issuance_jobs/x{merchant}"),
        ("POST", "/partner/issuance_jobs/x/revoke"),
        ("GET", f"/partner/campaigns{merchant}"),
        ("POST", "/partner/campaigns"),
        ("GET", SCOPES),
    ):
        status, answer = await call(http, method, path)
        assert (status, code(answer)) == (500, "GENERIC_ERROR")
    assert emulator.statistics()["faults"] == {"error_500": 6}


async def test_some_answers_are_late(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Those that are drawn, by the same time, after Thanx has acted."""
    emulator.faults = Faults(seed=5, delay=3.0, delay_rate=0.5)
    loop, taken = asyncio.get_running_loop(), []
    for _ in range(20):
        start = loop.time()
        assert await outcome(http) == 200
        taken.append(round(loop.time() - start))
    assert set(taken) == {0, 3}
    emulator.faults = Faults(delay=100.0)
    with pytest.raises(TimeoutError):
        await http.post(ISSUE, data=body("a@b.co"), timeout=aiohttp.ClientTimeout(total=1))
    assert emulator.reward_counts() == {"a@b.co": 1}


async def test_a_scripted_answer_is_late(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A delay goes with whatever else the script says."""
    emulator.script(ScriptedAnswer(404, delay=2.0), ScriptedAnswer(204), ScriptedAnswer(delay=1.0))
    start = asyncio.get_running_loop().time()
    status, answer = await call(http, "GET", SCOPES)
    assert (status, code(answer)) == (404, "RESOURCE_NOT_FOUND")
    assert asyncio.get_running_loop().time() - start >= 2
    assert [await outcome(http) for _ in range(2)] == [204, 200]
    assert asyncio.get_running_loop().time() - start >= 3


async def test_the_same_seed_meets_the_same(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """The same requests go wrong in the same way; another seed has its own."""
    rates = dict.fromkeys(Fault, 0.1) | {"burst": 0.05}
    seen = []
    for seed in (1, 1, 2):
        emulator.faults = Faults(seed=seed, **rates)  # type: ignore[arg-type]  # named like the rates
        seen.append([await outcome(http) for _ in range(40)])
    assert seen[0] == seen[1] != seen[2]
    assert {200, 429, 500, 502, 504} <= set(seen[0])


def test_faults_come_at_their_rates() -> None:
    """Each fault is drawn about as often as it was asked for."""
    dice = Dice(Faults(seed=3, reset_before=0.1, truncated=0.3, job_hangs=0.2))
    tally = Tally(dice.request(0.0).fault for _ in range(2000))
    assert tally[Fault.RESET_BEFORE] == pytest.approx(200, rel=0.3)
    assert tally[Fault.TRUNCATED] == pytest.approx(600, rel=0.2)
    assert set(tally) == {Fault.RESET_BEFORE, Fault.TRUNCATED, None}
    jobs = Tally(dice.job(10).state for _ in range(2000))
    assert jobs["processing"] == pytest.approx(400, rel=0.2)


@pytest.mark.parametrize("retry_after", [None, 1.5])
async def test_a_burst_of_refusals(
    emulator: Emulator, http: aiohttp.ClientSession, retry_after: float | None
) -> None:
    """It refuses the next so many requests, with Retry-After or without, and none of them has an effect."""
    emulator.faults = Faults(burst=1, burst_requests=2, retry_after=retry_after)
    async with http.post(ISSUE, data=body("a@b.co")) as response:
        assert response.status == 429
        assert response.headers.get("Retry-After") == (None if retry_after is None else "2")
        assert code(await response.json()) == "TOO_MANY_REQUESTS"
    emulator.faults = Faults(seed=1, burst=0.2, burst_requests=4)
    statuses = [await outcome(http) for _ in range(60)]
    runs = "".join("x" if status == 429 else "." for status in statuses).split(".")
    assert {len(run) % 4 for run in runs[:-1]} == {0}
    assert any(runs)
    assert emulator.refused == statuses.count(429) + 1
    assert emulator.reward_counts() == {}


async def test_a_burst_for_some_time(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """It refuses everything until its time is over."""
    emulator.faults = Faults(seed=2, burst=0.3, burst_requests=0, burst_seconds=10)
    while await outcome(http) != 429:
        pass
    for _ in range(9):
        await asyncio.sleep(1)
        assert await outcome(http) == 429
    emulator.faults = Faults()
    assert await outcome(http) == 200


async def test_keys_are_forgotten(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A key that is too old issues again, as it would at Thanx, and with any body."""
    emulator.faults = Faults(forget_keys_after=3600)
    first = await call(http, "POST", ISSUE, body=body("a@b.co"))
    emulator.advance(3500)
    assert await call(http, "POST", ISSUE, body=body("a@b.co")) == first
    emulator.advance(100)
    second = await call(http, "POST", ISSUE, body=body("a@b.co"))
    assert second[0] == 202
    assert second != first
    assert emulator.reward_counts() == {"a@b.co": 2}
    assert emulator.statistics()["most_for_one_guest"] == 2


async def test_keys_are_locked(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A repetition is a 409 while its first request counts as in progress, and then has its answer."""
    emulator.faults = Faults(lock_keys_for=60)
    first = await call(http, "POST", ISSUE, body=body("a@b.co"))
    for _ in range(2):
        status, answer = await call(http, "POST", ISSUE, body=body("a@b.co"))
        assert (status, code(answer)) == (409, "CONFLICT")
        emulator.advance(20)
    assert (await call(http, "POST", ISSUE, body=body("b@b.co")))[0] == 422
    emulator.advance(20)
    assert await call(http, "POST", ISSUE, body=body("a@b.co")) == first
    assert emulator.reward_counts() == {"a@b.co": 1}


async def test_a_client_meets_a_locked_key(emulator: Emulator) -> None:
    """A request whose answer was lost is sent again until its key is free, and has issued once."""
    emulator.faults = Faults(lock_keys_for=30)
    emulator.script(ScriptedAnswer(fault=Fault.RESET_AFTER))
    async with ThanxClient("c", "t", base_url=emulator.url) as client:
        await client.issue_rewards(**TARGET, identifiers=["a@b.co"])
    statuses = [row.status for row in emulator.requests]
    assert (statuses[0], set(statuses[1:-1]), statuses[-1]) == (202, {409}, 202)
    assert emulator.reward_counts() == {"a@b.co": 1}


async def job(http: aiohttp.ClientSession, emulator: Emulator, *, wait: float = 1000.0) -> Json:
    """A job of 100 guests, one of them unknown, after some time."""
    guests = ["unknown@b.co", *(f"guest{number}@b.co" for number in range(99))]
    _, answer = await call(http, "POST", ISSUE, body=body(*guests))
    accepted = answer["issuance_job"]
    assert isinstance(accepted, dict)
    emulator.advance(wait)
    path = f"/partner/issuance_jobs/{accepted['id']}?merchant_id={MERCHANT}"
    found = (await call(http, "GET", path))[1]["issuance_job"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("faults", "state"),
    [
        (Faults(seed=4, job_hangs=1), "processing"),
        (Faults(seed=4, job_fails=1), "failed"),
        (Faults(seed=4, job_unknown=1), "under_review"),
    ],
)
async def test_jobs_that_do_not_complete(
    emulator: Emulator, http: aiohttp.ClientSession, faults: Faults, state: str
) -> None:
    """They stop somewhere, without a summary, and exactly those who were processed hold rewards."""
    emulator.faults = faults
    stopped = await job(http, emulator)
    processed = stopped["processed_count"]
    assert isinstance(processed, int)
    assert 0 < processed < 100
    assert stopped["state"] == state
    assert (stopped["completed_at"] is not None) == (state == "failed")
    assert "summary" not in stopped
    assert (stopped["success_count"], stopped["failure_count"]) == (processed - 1, 1)
    assert set(emulator.reward_counts()) == {f"guest{number}@b.co" for number in range(processed - 1)}
    path = f"/partner/issuance_jobs/{stopped['id']}/revoke"
    status, _ = await call(http, "POST", path, body=f'{{"merchant_id": "{MERCHANT}"}}')
    assert status == (202 if state == "failed" else 422)
    assert (emulator.reward_counts() == {}) == (state == "failed")


async def test_time_can_be_skipped(http: aiohttp.ClientSession, emulator: Emulator) -> None:
    """A job of months is over at once, and a late answer comes at once; time never goes back."""
    emulator.speed = JobSpeed(identifiers_per_second=1e-5)
    loop = asyncio.get_running_loop()
    start = loop.time()
    assert (await job(http, emulator, wait=5e6))["processed_count"] == 49
    emulator.advance(6e6)
    emulator.faults = Faults(delay=1e6)
    async with asyncio.TaskGroup() as group:
        late = group.create_task(outcome(http))
        await until(lambda: emulator.requests and emulator.requests[-1].path == SCOPES)
        emulator.advance(1e6)
    assert late.result() == 200
    assert loop.time() - start < 5


async def test_skipped_time_frees_the_limits() -> None:
    """The window of 15 minutes, too."""
    async with (
        Emulator(limits=[(2, 900)], counter=Counter.SLIDING_LOG) as emulator,
        aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
    ):
        assert [await outcome(http) for _ in range(3)] == [200, 200, 429]
        emulator.advance(900)
        assert await outcome(http) == 200


async def test_closing_ends_what_is_held_back() -> None:
    """An answer that never comes does not hold the end of the emulator."""

    async def ask(url: str) -> None:
        async with aiohttp.ClientSession(headers=HEADERS) as http:
            with pytest.raises(aiohttp.ClientConnectionError):
                await http.post(url + ISSUE, data=body("a@b.co"))

    emulator = Emulator(limits=[], faults=Faults(answer_lost=1))
    async with asyncio.TaskGroup() as group, emulator:
        group.create_task(ask(emulator.url))
        await until(lambda: emulator.requests)
    assert emulator.reward_counts() == {"a@b.co": 1}


async def test_a_port_that_is_taken() -> None:
    """It is an error that leaves nothing open."""
    async with Emulator() as emulator:
        port = int(emulator.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            async with Emulator(port=port):
                pass


async def test_any_loopback_address() -> None:
    """The address is usable as it stands, IPv6 included."""
    async with (
        Emulator(host="::1") as emulator,
        aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
    ):
        assert await outcome(http) == 200


@pytest.mark.parametrize(
    ("settings", "phrase"),
    [
        (
            {"reset_before": 0.6, "html_504": 0.6},
            r"Faults.reset_before \+ Faults.html_504 must be at most 1 in all",
        ),
        ({"job_fails": 0.6, "job_hangs": 0.6}, r"Faults.job_hangs \+ Faults.job_fails must be at most 1"),
        ({"job_fails": -0.1}, "Faults.job_fails must be a rate from 0 to 1, not -0.1"),
        ({"burst": 2}, "Faults.burst must"),
        ({"burst": 0.5, "burst_requests": 0}, "Faults.burst needs Faults.burst_requests or"),
        ({"delay_rate": 1.5}, "delay_rate"),
        ({"retry_after": -1}, "retry_after"),
    ],
)
def test_impossible_faults(settings: dict[str, float], phrase: str) -> None:
    """The message names what is wrong."""
    with pytest.raises(ValueError, match=phrase):
        Faults(**settings)  # type: ignore[arg-type]  # names and numbers only


def test_an_unknown_fault_is_refused_at_once() -> None:
    """Not only when a request comes."""
    with pytest.raises(ValueError, match="reset_sometimes"):
        ScriptedAnswer(fault="reset_sometimes")
