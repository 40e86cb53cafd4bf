"""Refusals and time of each contender at each referee, virtual beside real, under a network's jitter."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable
from math import inf

import aiohttp
import attrs

from benchmarks.limiter import servers
from benchmarks.limiter.referees import REFEREES, REQUESTS, SECONDS, Referee
from benchmarks.limiter.rivals import CONTESTS, OURS, Contest, Send, on_virtual_time

COUNT, IN_FLIGHT = 80, 10
LEAST = (COUNT - 1) * SECONDS / REQUESTS
SEEDS, OUR_SEEDS = 3, 20
_PATIENCE = 3 * LEAST
_CLIENTS, _VERDICTS, _BUSY = 10, 40, 6.0


@attrs.frozen
class Jitter:
    """The delay of each way, lognormal: its median in seconds, and the deviation of its logarithm."""

    median: float
    sigma: float

    def draw(self, dice: random.Random) -> float:
        return self.median * dice.lognormvariate(0, self.sigma)


JITTERS = {"low": Jitter(0.02, 0.3), "mid": Jitter(0.06, 0.5), "hi": Jitter(0.12, 0.7)}
ON_REAL_SERVERS = ("low", "hi")

Arrive = Callable[[], Awaitable[bool]]
"""What the server says to a request that arrives now."""


@attrs.define
class Tally:
    """What the server said to the requests so far."""

    admitted: int = 0
    refused: int = 0
    refused_at_first: int = 0

    def count(self, *, admitted: bool) -> None:
        self.admitted += admitted
        self.refused += not admitted
        self.refused_at_first += not self.admitted


def sending(arrive: Arrive, jitter: Jitter, dice: random.Random, tally: Tally) -> Send:
    """Requests that take their time there and back."""

    async def send() -> int:
        await asyncio.sleep(jitter.draw(dice))
        admitted = await arrive()
        await asyncio.sleep(jitter.draw(dice))
        tally.count(admitted=admitted)
        return 200 if admitted else 429

    return send


@attrs.frozen
class Outcome:
    """How many requests were refused, and the time over the least possible: infinite if it gave up."""

    refused: int
    time: float


async def contend(contest: Contest, jitter: Jitter, arrive: Arrive, seed: int) -> Outcome:
    """Let a contender send everything."""
    dice, loop, tally = random.Random(seed), asyncio.get_running_loop(), Tally()
    await asyncio.sleep(dice.random())  # so that it begins anywhere in a server's window
    start = loop.time()
    try:
        async with asyncio.timeout(_PATIENCE):
            await contest(COUNT, IN_FLIGHT, sending(arrive, jitter, dice, tally))
    except TimeoutError:
        return Outcome(tally.refused, inf)
    return Outcome(tally.refused, (loop.time() - start) / LEAST)


def virtual(contender: str) -> dict[str, float]:
    """All jitters and referees on virtual time."""
    found: dict[str, float] = {}
    seeds = range(OUR_SEEDS if contender in OURS else SEEDS)
    for jitter in JITTERS:
        for name in REFEREES:
            runs = [_on_virtual_time(contender, jitter, name, seed) for seed in seeds]
            found |= _summary(f"{jitter}/{name}", runs)
    return found


def _on_virtual_time(contender: str, jitter: str, referee: str, seed: int) -> Outcome:
    random.seed(seed)  # what libraries draw
    arrive = arriving(REFEREES[referee]())
    return on_virtual_time(contend(CONTESTS[contender], JITTERS[jitter], arrive, seed))


def arriving(*judges: Referee) -> Arrive:
    """A server in which every judge has to admit a request; all of them count it."""

    async def arrive() -> bool:
        now = asyncio.get_running_loop().time()
        verdicts = [judge.admits(now) for judge in judges]
        return all(verdicts)

    return arrive


def _summary(cell: str, runs: list[Outcome]) -> dict[str, float]:
    """The medians over the seeds, and the most refused; no time if it gave up."""
    time = statistics.median(run.time for run in runs)
    found = {
        f"{cell}/refused": statistics.median(run.refused for run in runs),
        f"{cell}/worst": float(max(run.refused for run in runs)),
    }
    return found if time == inf else {**found, f"{cell}/time": round(time, 3)}


def real() -> dict[str, float]:
    """All contenders at once against real servers, each with a counter of its own. The jitter is the
    client's: the servers are on loopback."""
    with servers.running() as urls:
        return asyncio.run(_all_at_once(urls))


async def _all_at_once(urls: dict[str, str]) -> dict[str, float]:
    tasks: dict[str, asyncio.Task[Outcome]] = {}
    async with _session() as session, asyncio.TaskGroup() as group:
        for contender, contest in CONTESTS.items():
            for jitter in ON_REAL_SERVERS:
                for name, url in urls.items():
                    key = f"{contender}/{jitter}/{name}"
                    arrive = visiting(session, url, key=key)
                    run = contend(contest, JITTERS[jitter], arrive, len(tasks))
                    tasks[key] = group.create_task(run)
    return {
        name: value for key, task in tasks.items() for name, value in _summary(key, [task.result()]).items()
    }


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


def visiting(session: aiohttp.ClientSession, url: str, **parameters: str) -> Arrive:
    """A server that is asked over a socket."""

    async def arrive() -> bool:
        async with session.get(url, params=parameters) as response:
            return response.status == 200

    return arrive


def agreement() -> dict[str, float]:
    """How many verdicts of each real server its emulation shares, at random times of arrival."""
    with servers.running() as urls:
        return asyncio.run(_compare(urls))


async def _compare(urls: dict[str, str]) -> dict[str, float]:
    async with _session() as session, asyncio.TaskGroup() as group:
        clients = {
            name: [group.create_task(_shared_verdicts(session, name, url, seed)) for seed in range(_CLIENTS)]
            for name, url in urls.items()
        }
    shared = {
        f"{name}/shared": float(sum(task.result() for task in tasks)) for name, tasks in clients.items()
    }
    return {**shared, **{f"{name}/verdicts": float(_CLIENTS * _VERDICTS) for name in urls}}


async def _shared_verdicts(session: aiohttp.ClientSession, name: str, url: str, seed: int) -> int:
    dice, loop, judge = random.Random(seed), asyncio.get_running_loop(), REFEREES[name]()
    arrive, shared = visiting(session, url, key=f"client {seed}"), 0
    for _ in range(_VERDICTS):
        await asyncio.sleep(dice.expovariate(_BUSY))
        before = loop.time()
        admitted = await arrive()
        shared += admitted == judge.admits((before + loop.time()) / 2)
    return shared
