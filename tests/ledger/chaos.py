"""One run through every fault that the emulator knows, by one process after another until all is accepted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

import aiohttp
import attrs

from tests.helpers import TARGET, guests
from thanx_async import (
    AsyncBatcher,
    BatchError,
    BatchRange,
    IssuanceReport,
    IssuanceRun,
    LedgerError,
    LocalRateLimiter,
    RateLimit,
    RetryPolicy,
    SQLiteLedger,
    ThanxClient,
    ThanxError,
)
from thanx_async.emulator import Emulator, Fault, Faults, JobSpeed
from thanx_async.ledger import BatchState

PATIENCE = 5.0
"""Seconds after which the clients here give a request up; late answers are later."""

REQUESTS_GO_WRONG = Faults(
    reset_before=0.05,
    reset_after=0.07,
    answer_lost=0.06,
    truncated=0.07,
    html_502=0.04,
    html_504=0.07,
    error_500=0.04,
    delay=2 * PATIENCE,
    delay_rate=0.05,
    burst=0.03,
    burst_requests=2,
)
JOBS_GO_WRONG = attrs.evolve(REQUESTS_GO_WRONG, job_hangs=0.05, job_fails=0.1, job_unknown=0.05)

_RUN = "march"
_MOST_STARTS = 3000


@attrs.define
class Verdict:
    """What a seed came to. All that is not a size should be 0: guests ``doubled`` and ``lost``, and
    statements about them that were not true at some moment (``wrong``, in words). ``gone_wrong`` of the
    ``requests`` met a fault; those of the last start, which meets none, are not counted."""

    guests: int = 0
    doubled: int = 0
    lost: int = 0
    wrong: list[str] = attrs.field(factory=list)
    starts: int = 0
    cancelled: int = 0
    stopped: int = 0
    requests: int = 0
    gone_wrong: int = 0


def mixed(count: int) -> list[str]:
    """An input of which one row in 50 is junk, a duplicate, or nobody whom Thanx knows."""
    rows = guests(count)
    for row in range(25, count, 50):
        rows[row] = (f"junk {row}", rows[row - 3], f"unknown{row}@example.com")[row % 3]
    return rows


def emulator_of(faults: Faults, seed: int) -> Emulator:
    """Job speeds that leave some jobs running when the run goes on, and no limits but the bursts."""
    return Emulator(limits=[], speed=JobSpeed(2000.0, 0.1, 0.1), faults=attrs.evolve(faults, seed=seed))


def client_of(emulator: Emulator, draw: random.Random) -> ThanxClient:
    """A client that gives up soon, so that runs stop."""
    return ThanxClient(
        "c",
        "t",
        base_url=emulator.url,
        timeout=aiohttp.ClientTimeout(total=PATIENCE),
        retry=RetryPolicy(max_attempts=draw.choice((1, 1, 2)), base_delay=0.1),
        limiter=LocalRateLimiter([RateLimit(10_000, 1)]),
    )


async def a_moment(draw: random.Random) -> None:
    """A random time, and then a random number of steps of the loop: most things happen at no time at all."""
    await asyncio.sleep(draw.choice((0.0, draw.random(), draw.uniform(0, 10 * PATIENCE))))
    for _ in range(draw.randrange(100)):
        await asyncio.sleep(0)


def gone_wrong(emulator: Emulator) -> int:
    """How many requests met a fault, late answers not counted."""
    drawn = emulator.statistics()["faults"]
    assert isinstance(drawn, dict)
    return sum(drawn.get(name, 0) for name in (*map(str, Fault), "burst"))


class Chaos:
    """One run and its processes, one after another; each has a client, a ledger and a batcher of its own."""

    def __init__(self, emulator: Emulator, path: Path, *, seed: int, count: int, batch_size: int) -> None:
        self.verdict = Verdict()
        self._emulator = emulator
        self._path = path
        self._draw = random.Random(seed)
        self._batch_size = batch_size
        self._rows = mixed(count)
        self._guests = _first_places(self._rows)
        self._run: IssuanceRun | None = None

    async def live(self) -> Verdict:
        """Start the run again and again while requests go wrong, and once more when they do not."""
        while not await self._start():
            assert self.verdict.starts < _MOST_STARTS
        sent = self._emulator.jobs_accepted
        for _ in range(3):
            await self._start()
        self.verdict.requests = len(self._emulator.requests)
        self.verdict.gone_wrong = gone_wrong(self._emulator)
        self._emulator.faults = Faults()
        assert await self._start(calm=True)
        if self._emulator.jobs_accepted != sent:
            self._blame("a complete run has sent again")
        assert self._run is not None
        await self._judge(self._run.report())
        self.verdict.guests = len(self._rows)
        return self.verdict

    async def _start(self, *, calm: bool = False) -> bool:
        """One process; True if Thanx has accepted every batch by its end."""
        self.verdict.starts += 1
        process = asyncio.create_task(self._process(calm=calm))
        if not calm and self._draw.random() < 0.4:
            await a_moment(self._draw)
            process.cancel()
        await asyncio.wait([process])
        if self._run is not None:
            self._check(self._run)
        if process.cancelled():
            self.verdict.cancelled += 1
            return False
        return process.result()

    async def _process(self, *, calm: bool) -> bool:
        self._run = None
        async with client_of(self._emulator, self._draw) as client, SQLiteLedger(self._path) as ledger:
            batcher = AsyncBatcher(
                client, **TARGET, batch_size=self._batch_size, ledger=ledger, on_progress=self._check
            )
            try:
                if not calm and self._draw.random() < 0.3 and await ledger.run(_RUN):
                    self._run = await batcher.resume(_RUN)
                    return False
                slow = not calm and self._draw.random() < 0.3
                run = await self._issue(batcher, self._slowly() if slow else self._rows)
            except BatchError as error:
                if isinstance(error.__cause__, LedgerError):
                    raise
                self.verdict.stopped += 1
                self._run = error.run
                return False
            await self._wait(run)
            return not (run.unsent or _without_job(run.in_doubt))

    async def _issue(self, batcher: AsyncBatcher, source: Iterable[str] | AsyncIterator[str]) -> IssuanceRun:
        async with batcher.stream(source, run_id=_RUN) as handles:
            self._run = handles.run
            async for _ in handles:
                pass
        return handles.run

    async def _slowly(self) -> AsyncIterator[str]:
        """A source that takes its time, and may fail."""
        fails_at = self._draw.choice((None, self._draw.randrange(len(self._rows))))
        for row, guest in enumerate(self._rows):
            if row == fails_at:
                raise LookupError
            if self._draw.random() < 0.02:
                await asyncio.sleep(self._draw.random())
            yield guest

    async def _wait(self, run: IssuanceRun) -> None:
        """Polls go wrong as well, and jobs may hang."""
        try:
            await run.wait(timeout=60)
        except LedgerError:
            raise
        except ThanxError:
            self.verdict.stopped += 1

    def _check(self, run: IssuanceRun) -> None:
        """What must hold at every moment: the sums, and that who is said to be unsent has no reward."""
        self._run = run
        report = run.report()
        if sum(report.counts.values()) != report.total:
            self._blame(f"{report.counts} do not sum to {report.total}")
        if unsent := [self._guests[row] for row in _places(report.unsent) if row in self._guests]:
            rewards = self._emulator.reward_counts()
            if count := sum(guest in rewards for guest in unsent):
                self._blame(f"{count} guests are unsent and have a reward")

    async def _judge(self, report: IssuanceReport) -> None:
        """The report against what Thanx says, guest by guest."""
        rewards = self._emulator.reward_counts()
        unclear = set(_places([*report.in_doubt, *report.unfinished]))
        failed = {row.position for row in report.failed}
        sure = [guest for row, guest in self._guests.items() if row not in unclear | failed]
        self.verdict.doubled = sum(count > 1 for count in rewards.values())
        self.verdict.lost = sum(guest not in rewards for guest in sure)
        if report.unsent or _without_job(report.in_doubt):
            self._blame("the run is complete, and batches are not")
        if report.total != len(self._rows) or report.issued != len(sure):
            self._blame(f"{report.issued} of {report.total} are issued, not {len(sure)} of {len(self._rows)}")
        if any(self._guests[row] in rewards for row in failed):
            self._blame("guests have failed and have a reward")
        if len(rewards.keys() - sure) > len(unclear):
            self._blame("guests have a reward of whom the report does not know")
        async with SQLiteLedger(self._path) as ledger:
            batches = await ledger.batches(_RUN)
        if any(batch.state is BatchState.IN_DOUBT for batch in batches):
            self._blame("a batch is in doubt in the ledger")
        if len(batches) != self._emulator.jobs_accepted:
            self._blame(f"{len(batches)} batches have become {self._emulator.jobs_accepted} jobs")

    def _blame(self, what: str) -> None:
        self.verdict.wrong.append(f"start {self.verdict.starts}: {what}")


def _first_places(rows: Sequence[str]) -> Mapping[int, str]:
    """Where each guest comes first."""
    places: dict[str, int] = {}
    for place, row in enumerate(rows):
        if not row.startswith("junk"):
            places.setdefault(row, place)
    return {place: row for row, place in places.items()}


def _places(batches: Iterable[BatchRange]) -> Iterable[int]:
    return (row for batch in batches for row in range(batch.first, batch.last + 1))


def _without_job(batches: Iterable[BatchRange]) -> bool:
    return any(batch.job_id is None for batch in batches)
