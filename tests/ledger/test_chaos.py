"""Everything goes wrong at once, by seed, on virtual time: a thread at work is as a slow disk."""

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers import TARGET, guests
from tests.ledger.chaos import (
    JOBS_GO_WRONG,
    REQUESTS_GO_WRONG,
    Chaos,
    Verdict,
    a_moment,
    client_of,
    emulator_of,
)
from thanx_async import AddTimeoutError, AsyncBatcher, BatchError, LedgerError, SQLiteLedger, ThanxError
from thanx_async.emulator import Emulator
from thanx_async.ledger import BatchState

_MOST_STARTS = 300


async def lived(path: Path, seed: int) -> Verdict:
    faults = JOBS_GO_WRONG if seed % 5 > 2 else REQUESTS_GO_WRONG
    async with emulator_of(faults, seed) as emulator:
        return await Chaos(
            emulator, path.with_name(f"{seed}.sqlite"), seed=seed, count=500, batch_size=50
        ).live()


@pytest.mark.parametrize("first", range(0, 25, 5))
async def test_a_run_through_chaos(quick_path: Path, first: int) -> None:
    """Stopped, cancelled and started again: everybody has one reward, and all statements are true."""
    verdicts = {seed: await lived(quick_path, seed) for seed in range(first, first + 5)}
    for seed, verdict in verdicts.items():
        assert (verdict.doubled, verdict.lost, verdict.wrong) == (0, 0, []), f"seed {seed}"
    rows = verdicts.values()
    assert sum(row.gone_wrong for row in rows) > 0.25 * sum(row.requests for row in rows)
    assert sum(row.stopped for row in rows) > 10
    assert sum(row.cancelled for row in rows) > 2


class Service:
    """A service that dies again and again, and its callers.

    ``left`` are those who know that they got nothing, and who ask again. Of the others, ``sure`` have a
    handle, ``in_doubt`` were told so, and the ``impatient`` stopped waiting while they were on the way.
    """

    def __init__(self, emulator: Emulator, path: Path, seed: int) -> None:
        self.left = guests(300)
        self.sure: set[str] = set()
        self.in_doubt: set[str] = set()
        self.impatient: set[str] = set()
        self.rewards: Mapping[str, int] = {}
        self.wrong: list[str] = []
        self.deaths = 0
        self._emulator = emulator
        self._path = path
        self._draw = random.Random(seed)
        self._callers: list[asyncio.Task[None]] = []

    async def live(self) -> None:
        """Until everybody was answered, and nothing is in doubt any more."""
        for _ in range(_MOST_STARTS):
            if not self.left and not await self._doubts():
                return
            process = asyncio.create_task(self._process())
            if self._draw.random() < 0.5:
                await a_moment(self._draw)
                process.cancel()
            await asyncio.wait([process])
            await asyncio.gather(*self._callers)
            if process.cancelled():
                self.deaths += 1
            else:
                process.result()
        raise AssertionError(f"not over after {_MOST_STARTS} starts")

    async def _doubts(self) -> int:
        async with SQLiteLedger(self._path) as ledger:
            batches = [batch for run in await ledger.runs() for batch in await ledger.batches(run.run_id)]
        return sum(batch.state is BatchState.IN_DOUBT for batch in batches)

    async def _process(self) -> None:
        async with client_of(self._emulator, self._draw) as client, SQLiteLedger(self._path) as ledger:
            batcher = AsyncBatcher(client, **TARGET, batch_size=20, ledger=ledger, linger=0.1)
            async with batcher:
                self._callers = [asyncio.create_task(self._call(batcher, guest)) for guest in self.left]
                self.left = []
                try:
                    await batcher.recover()
                except BatchError as error:
                    if isinstance(error.__cause__, LedgerError):
                        raise
                if self._callers:
                    await asyncio.wait(self._callers)

    async def _call(self, batcher: AsyncBatcher, guest: str) -> None:
        await asyncio.sleep(self._draw.uniform(0, 3))
        patience = self._draw.choice((None, None, None, self._draw.random()))
        own = self._draw.choice((False, True))
        try:
            async with asyncio.timeout(None if own else patience):
                handle = await batcher.add(guest, timeout=patience if own else None)
        except TimeoutError as error:
            fates = getattr(error.__cause__, "__notes__", [])
            self._note(guest, self.impatient, in_doubt=not any("nothing was" in fate for fate in fates))
        except AddTimeoutError as error:
            self._note(guest, self.impatient, in_doubt=error.in_doubt)
        except ThanxError as error:
            if isinstance(error, LedgerError):
                raise
            self._note(guest, self.in_doubt, in_doubt=error.in_doubt)
        else:
            self.sure.add(guest)
            if not handle.total or guest not in self._emulator.reward_counts():
                self.wrong.append("a guest has a handle and no reward")

    def _note(self, guest: str, doubtful: set[str], *, in_doubt: bool) -> None:
        if in_doubt:
            doubtful.add(guest)
        else:
            self.left.append(guest)
            if guest in self._emulator.reward_counts():
                self.wrong.append("a guest has a reward and was told otherwise")


async def served(path: Path, seed: int) -> Service:
    async with emulator_of(REQUESTS_GO_WRONG, seed) as emulator:
        service = Service(emulator, path.with_name(f"{seed}.sqlite"), seed)
        await service.live()
        service.rewards = emulator.reward_counts()
    return service


@pytest.mark.parametrize("first", range(0, 10, 5))
async def test_a_service_through_chaos(quick_path: Path, first: int) -> None:
    """Who has a handle, or was in doubt until a recovery, has one reward; who did not wait, at most one."""
    services = {seed: await served(quick_path, seed) for seed in range(first, first + 5)}
    for seed, service in services.items():
        rewarded, told = set(service.rewards), service.sure | service.in_doubt
        assert (service.wrong, set(service.rewards.values())) == ([], {1}), f"seed {seed}"
        assert told <= rewarded <= told | service.impatient == set(guests(300)), f"seed {seed}"
    assert sum(service.deaths for service in services.values()) > 2
    assert sum(len(service.in_doubt) for service in services.values()) > 100
