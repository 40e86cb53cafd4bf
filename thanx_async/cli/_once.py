"""`issue --once`: a guest gets a reward from one run at most, whatever file the guest is in.

Each run writes down which guests it takes before it records their batches. The guests of another run are
left out, unless the other run certainly gives them no reward.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from uuid import uuid4

import attrs

from thanx_async._core.errors import ConfigurationError, LeaseError
from thanx_async.cli._choosing import Decision, Places
from thanx_async.cli._recorded import (
    AnyLedger,
    before_sending,
    command,
    earlier,
    guests,
    others,
    run_id_of,
    runs_of,
)
from thanx_async.cli._words import amount
from thanx_async.client import ThanxClient
from thanx_async.identifiers import normalise_all
from thanx_async.ledger import Choices, RunRecord

_Target = tuple[str, str, str]


@attrs.frozen
class Begun:
    """A run that is about to begin or to go on.

    Attributes:
        run_id: its id.
        before: what to say before anything is sent.
        once: decides which guests it takes; None for everybody.
    """

    run_id: str
    before: str
    once: Once | None


async def begin_run(
    ledger: AnyLedger,
    client: ThanxClient,
    target: _Target,
    *,
    file: str,
    run_id: str | None,
    once: bool,
    excludes: bool,
) -> Begun:
    """Find the run of a file, and what to say before anything is sent.

    Args:
        run_id: the id that the user gave.
        once: leave out the guests of other runs.
        excludes: the user leaves out guests himself, and need not be told of other runs.

    Raises:
        ConfigurationError: the run is complete, or cannot go on like this.
    """
    with before_sending():
        if run_id is None:
            run_id = run_id_of(file, client, target)
            run_id = await _run_id_of_once(ledger, run_id) if once else run_id
        await _check_same_way(ledger, run_id, once=once)
        before = await earlier(ledger, run_id)
        if not once:
            before = before or ("" if excludes else await others(ledger, client, target))
            return Begun(run_id, before, None)
        chooser, unknown = await _once_for(ledger, client, target, run_id)
    if unknown and not excludes:
        before = ". ".join(filter(None, (before, _not_remembered(unknown))))
    return Begun(run_id, before, chooser)


def _not_remembered(count: int) -> str:
    return (
        f"Runs without --once have issued this reward to {amount(count, 'guest')}, who are not remembered"
        " and get another one; --exclude FILE leaves them out"
    )


async def _run_id_of_once(ledger: AnyLedger, base: str) -> str:
    """The run that a command goes on with, or the id of a new one: the file may have other guests now."""
    for record in reversed(await ledger.runs()):
        if record.run_id.startswith(f"{base}-once-") and record.revoked_at is None:
            batches = await ledger.batches(record.run_id)
            if record.batches != 0 and not record.is_complete(batches):
                return record.run_id
    return f"{base}-once-{datetime.now(UTC):%Y%m%d}-{uuid4().hex[:6]}"


async def _check_same_way(ledger: AnyLedger, run_id: str, *, once: bool) -> None:
    """Check that a run goes on as it began.

    Raises:
        ConfigurationError: it began without ``--once`` and is continued with it, or the other way round.
    """
    if await ledger.batches(run_id) and await ledger.has_chosen(run_id) != once:
        began, now = ("without", "without it") if once else ("with", "with it")
        raise ConfigurationError(
            f"run {run_id} began {began} --once: continue it {now}, or give a new --run-id"
        )


async def _once_for(ledger: AnyLedger, client: ThanxClient, target: _Target, run_id: str) -> tuple[Once, int]:
    """What decides which guests a run takes, and how many guests of other runs are not remembered."""
    places: dict[str, Places] = {}
    unknown = 0
    for record in await runs_of(ledger, client, target):
        if await ledger.has_chosen(record.run_id):
            places[record.run_id] = await _tidied(ledger, record)
        elif record.revoked_at is None:
            unknown += guests(await ledger.batches(record.run_id))
    salt = "\n".join((client.base_url, client.client_id, *target, ""))
    return Once(ledger, run_id, salt.encode(), places), unknown


async def _tidied(ledger: AnyLedger, record: RunRecord) -> Places:
    """Where the batches of a run are. The run gives up the guests who certainly get no reward from it.

    A run that another process works on keeps all of them, and a run that can go on those of its batches.
    """
    try:
        await ledger.claim(record)
    except LeaseError:
        return Places(await ledger.batches(record.run_id))
    try:
        batches = await ledger.batches(record.run_id)
        places = Places(batches)
        ranges = places.uncovered()
        if record.revoked_at is not None or record.is_complete(batches):
            ranges += [(place, place) for place in places.failed]
        await ledger.unchoose(record.run_id, ranges)
    finally:
        await ledger.release(record.run_id)
    return places


class Once:
    """Decides which guests a run takes.

    Attributes:
        had: how many were left out because they had a reward before, as `end` has counted.
        open: how many were left out because another run may give them one, by the run's id.
    """

    def __init__(self, ledger: AnyLedger, run_id: str, salt: bytes, places: Mapping[str, Places]) -> None:
        self.had = 0
        self.open: dict[str, int] = {}
        self._ledger = ledger
        self._run_id = run_id
        self._hash = hashlib.sha256(salt)
        self._own = places.get(run_id, Places())
        self._failed = {name: known.failed for name, known in places.items()}
        self._next = 0
        self._left_out: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))

    async def choose(self, items: list[object]) -> list[bool]:
        """For each of the next items, whether the run takes it. Invalid items stay, to be rejected."""
        values, _ = normalise_all(items)
        asked = [self._guest(value) if value else b"" for value in values]
        decisions: list[Decision] = []

        def decide(known: Choices) -> Mapping[bytes, int]:
            decisions.append(Decision(self._run_id, known, self._failed, self._own, self._next))
            return decisions[-1].about(asked)

        await self._ledger.choose(self._run_id, [*{guest for guest in asked if guest}], decide)
        decision = decisions[-1]
        self._next = decision.place
        for run_id, position in decision.left_out:
            self._left_out[run_id].append(position)
        return decision.stays

    def _guest(self, value: str) -> bytes:
        hashed = self._hash.copy()
        hashed.update(value.encode())
        return hashed.digest()[:16]

    async def end(self) -> list[str]:
        """Count what has become of the guests who were left out; returns what to tell about them."""
        record = await self._ledger.run(self._run_id)
        if record is not None:
            await _tidied(self._ledger, record)
        self.had, self.open = 0, {}
        for run_id, positions in self._left_out.items():
            unclear = await self._unclear(run_id, positions) if run_id else len(positions)
            self.had += len(positions) - unclear
            if unclear:
                self.open[run_id] = unclear
        return self._notes()

    def fields(self) -> dict[str, object]:
        """The counts of `end`, as fields."""
        return {"had_one_before": self.had, "in_another_run": sum(self.open.values())}

    async def _unclear(self, run_id: str, positions: Iterable[int]) -> int:
        if await self._ledger.run(run_id) is None:  # it was complete, and its details are deleted
            return 0
        places = Places(await self._ledger.batches(run_id))
        return sum(not places.is_issued(place) for place in positions)

    def _notes(self) -> list[str]:
        notes = [f"{self.had:,} had one before, and were left out"] if self.had else []
        for run_id, count in self.open.items():
            text = f"{count:,} left out, as when the run began"
            if run_id:
                tells = command("resume", self._ledger, run_id)
                text = f"{count:,} left out: run {run_id} has them, and has not ended; {tells} tells of them"
            notes.append(f"{text}. Give this command again for those who got no reward")
        return notes
