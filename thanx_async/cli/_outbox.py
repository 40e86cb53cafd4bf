"""The commands for outboxes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import time
from typing import Annotated

import attrs
import cyclopts
from cyclopts import Parameter

from thanx_async._core.errors import ConfigurationError, IdReusedError, InvalidIdentifierError
from thanx_async.cli._answer import Fields, batch_fields, fields_of, write_json
from thanx_async.cli._items import advised
from thanx_async.cli._opening import HowToRead
from thanx_async.cli._options import Flag
from thanx_async.cli._output import write
from thanx_async.cli._reading import reading
from thanx_async.cli._recorded import before_sending, date
from thanx_async.cli._status import ISSUED, SOME_FAILED, STOPPED
from thanx_async.cli._store import AnyOutbox, Store, Wanted, lanes, opened, outbox_of
from thanx_async.cli._words import amount
from thanx_async.identifiers import Identifier
from thanx_async.ledger import BatchRecord, RunRecord
from thanx_async.outbox import GuestOutcome, GuestState

outbox_app = cyclopts.App(name="outbox")
for _home, _text in (
    (
        "drain:drain",
        (
            "Send what was put into the outboxes of the credential, until SIGTERM or Ctrl-C.\n\n"
            "Any number of processes may run this: one of them sends, and another one takes over when it"
            " ends. It waits for outboxes that are not made yet. What a signal interrupts is sent again by"
            " the next drain, with the same keys.\n\n"
            "Exit status: 0 stopped by a signal or, with --until-empty, nobody waits any more; 2 usage error;"
            " 3 an outbox cannot be drained, or a signal came before --until-empty was reached."
        ),
    ),
    ("database:init", "Create the tables in a database that has none, once. A file needs no preparation."),
    (
        "database:migrate",
        "Bring the tables of an older version to this one. Stop other processes before.",
    ),
    ("database:copy", "Move FILE, with all its outboxes and runs, to a database. Stop its processes before."),
):
    outbox_app.command(f"thanx_async.cli._outbox_{_home}", name=_home.partition(":")[2], help=_text)

_DAY = 86_400.0
_AT_ONCE = 1000
_SHOWN = 20
_MEANINGS = {
    GuestState.WAITING: "waits to be sent",
    GuestState.IN_DOUBT: "was sent, and not answered yet",
    GuestState.HELD: "held until its batch is settled by hand",
    GuestState.ACCEPTED: "accepted by Thanx",
    GuestState.ISSUED: "issued",
    GuestState.FAILED: "failed",
    GuestState.CANCELLED: "cancelled before it was sent",
    GuestState.REJECTED: "rejected",
}


@Parameter(name="*")
@attrs.frozen
class Which:
    """Which outboxes a command is about."""

    store: Store
    """The outbox's file, or postgresql://...; by default THANX_STORE, which no other user can see."""
    campaign: str | None = None
    """The campaign's id. This and the next two are needed only if the store has several outboxes."""
    merchant: str | None = None
    """The merchant's id."""
    variant: str | None = None
    """The id of the campaign's variant."""

    @property
    def wanted(self) -> Wanted:
        """What the outboxes issue."""
        return Wanted(self.campaign, self.merchant, self.variant)


@outbox_app.command
async def status(*, which: Which, json: Flag = False) -> int:
    """Show how much waits, and who drains it. Exit status 1 if batches are held.

    Parameters
    ----------
    json:
        Print JSON.
    """
    found = await lanes(which.store, which.wanted)
    if json:
        return await _print_status(which, found)
    if not found:
        write(f"{which.store} has no outbox of this credential that fits")
    held = 0
    for run in found:
        async with outbox_of(which.store, run.target) as outbox:
            held += await show(outbox)
    return SOME_FAILED if held else ISSUED


async def _print_status(which: Which, found: Sequence[RunRecord]) -> int:
    rows = []
    for run in found:
        async with outbox_of(which.store, run.target) as outbox:
            rows.append({**_ids(run), **fields_of(await outbox.status())})
    write_json(rows)
    return SOME_FAILED if any(row["held"] for row in rows) else ISSUED


def _ids(run: RunRecord) -> Fields:
    return dict(zip(("campaign", "merchant", "variant"), run.target, strict=True))


async def show(outbox: AnyOutbox) -> int:
    """Show the status; returns the number of held batches."""
    status = await outbox.status()
    write(f"outbox {'/'.join(outbox.lane.run.target)}")
    oldest = f", the oldest for {status.oldest:.0f} s" if status.waiting else ""
    write(f"  {amount(status.waiting, 'guest')} {'waits' if status.waiting == 1 else 'wait'}{oldest}")
    write(
        f"  {amount(status.accepted, 'batch')} accepted, {status.in_doubt:,} in doubt, {status.held:,} held"
        + (": see `outbox held`" if status.held else "")
    )
    write(f"  drained by {status.drained_by or 'nobody'}" + (f"; {status.paused}" if status.paused else ""))
    return status.held


@outbox_app.command
async def put(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    which: Which,
    id_column: str,
    how: HowToRead = HowToRead(),  # noqa: B008 - frozen
) -> int:
    """Put the guests of FILE, each under its id. The same id again is no second reward.

    Parameters
    ----------
    file:
        CSV with a header, an Excel or OpenDocument workbook, or JSON lines; - reads standard input.
    id_column:
        The column (or its number, from 1) or key (JSON lines) that holds the id.
    """
    async with (
        reading(file, how, id_column=id_column) as rows,
        opened(which.store, which.wanted) as outbox,
    ):
        putting = _Putting(outbox)
        async for pair in rows:
            await putting.take(pair)
        await putting.flush()
    write(putting.summary())
    for refusal in putting.refusals[:_SHOWN]:
        write(f"  {refusal}")
    if (more := len(putting.refusals) - _SHOWN) > 0:
        write(f"  and {more:,} more")
    return SOME_FAILED if putting.refusals else ISSUED


class _Putting:
    """Puts rows in slices, and notes the rows that cannot be put."""

    def __init__(self, outbox: AnyOutbox) -> None:
        self.refusals: list[str] = []
        self._outbox = outbox
        self._read = self._put = self._new = 0
        self._rows: list[tuple[int, Identifier, str]] = []

    async def take(self, pair: object) -> None:
        """Take a pair of a guest and an id."""
        self._read += 1
        assert isinstance(pair, tuple)  # noqa: S101 - the file was opened with an id column
        item, id = pair
        if not id:
            self._refuse(self._read, "there is no id")
            return
        try:
            identifier = Identifier.parse(item)
        except InvalidIdentifierError as error:
            self._refuse(self._read, advised(error.reason))
            return
        self._rows.append((self._read, identifier, id))
        if len(self._rows) == _AT_ONCE:
            await self.flush()

    async def flush(self) -> None:
        """Put what was taken, in one transaction or two."""
        rows, self._rows = self._rows, []
        puts = [self._outbox.put(guest, id=id) for _, guest, id in rows]
        for (number, _, _), result in zip(
            rows, await asyncio.gather(*puts, return_exceptions=True), strict=True
        ):
            if isinstance(result, IdReusedError | ConfigurationError):
                self._refuse(number, str(result))
            elif isinstance(result, BaseException):
                raise result
            else:
                self._put += 1
                self._new += result

    def _refuse(self, number: int, reason: str) -> None:
        self.refusals.append(f"item {number:,}: {reason}")

    def summary(self) -> str:
        """The counts of what was read."""
        known = self._put - self._new
        counts = f"{self._new:,} new, {known:,} known already, {len(self.refusals):,} refused"
        return f"{self._read:,} read: {counts}, for outbox {'/'.join(self._outbox.lane.run.target)}"


@outbox_app.command
async def outcome(id: str, /, *, which: Which, wait: Flag = False, json: Flag = False) -> int:
    """Show what became of the guest who was put under an id. Exit status 1 if the guest got no reward.

    Parameters
    ----------
    id:
        The id under which the guest was put.
    wait:
        Wait until the outcome is final.
    json:
        Print JSON.
    """
    async with opened(which.store, which.wanted) as outbox:
        with before_sending():
            found = await outbox.outcome(id, timeout=None if wait else 0)
    if json:
        write_json(found)
    else:
        _show_outcome(found)
    if found.state is GuestState.HELD:
        return STOPPED
    lost = {GuestState.FAILED, GuestState.CANCELLED, GuestState.REJECTED}
    return SOME_FAILED if found.state in lost else ISSUED


def _show_outcome(found: GuestOutcome) -> None:
    text = f"{found.id}: {_MEANINGS[found.state]}"
    write(
        text
        + (f": {found.reason}" if found.reason else "")
        + (f", job {found.job_id}" if found.job_id else "")
    )
    if found.idempotency_key is not None and found.job_id is None:
        write(f"  idempotency key {found.idempotency_key}")


@outbox_app.command
async def cancel(id: str, /, *, which: Which) -> int:
    """Take out a guest who still waits to be sent. Exit status 1 if it is too late.

    Parameters
    ----------
    id:
        The id under which the guest was put.
    """
    async with opened(which.store, which.wanted) as outbox:
        taken = await outbox.cancel(id)
    write(f"{id}: {'taken out' if taken else 'not waiting, so nothing was changed'}")
    return ISSUED if taken else SOME_FAILED


@outbox_app.command
async def held(*, which: Which, json: Flag = False) -> int:
    """List the batches that have to be settled by hand, and why.

    Parameters
    ----------
    json:
        Print JSON.
    """
    found: list[Fields] = []
    for run in await lanes(which.store, which.wanted):
        async with outbox_of(which.store, run.target) as outbox:
            for batch in await outbox.ledger.open_batches(run.run_id):
                if reason := batch.held_because(outbox.replay_within):
                    row = batch_fields(batch, outbox.replay_within)
                    found.append({"run_id": run.run_id, **_ids(run), **row})
                    if not json:
                        _show_held(batch, reason)
    if json:
        write_json(found)
    else:
        write("Ask Thanx, and settle each with `ledger settle`" if found else "No batches are held")
    return SOME_FAILED if found else ISSUED


def _show_held(batch: BatchRecord, reason: str) -> None:
    since, guests = date(batch.recorded_at), len(batch.positions)
    write(
        f"{batch.run_id} batch {batch.number}: {amount(guests, 'guest')} since {since},"
        f" key {batch.key}: {reason}"
    )


@outbox_app.command
async def forget(*, which: Which, older_than: float) -> int:
    """Delete ids that are finished. The same id after that is a new reward.

    Parameters
    ----------
    older_than:
        Only ids that were put more than this many days ago.
    """
    if not older_than >= 0:
        raise ConfigurationError(f"--older-than must be 0 or more, not {older_than:g}")
    async with opened(which.store, which.wanted) as outbox:
        count = await forgotten(outbox, time() - older_than * _DAY)
    write(f"{amount(count, 'id')} {'was' if count == 1 else 'were'} deleted")
    return ISSUED


async def forgotten(outbox: AnyOutbox, before: float) -> int:
    """Delete ids in short transactions; returns how many."""
    total = 0
    while count := await outbox.ledger.forget_guests(outbox.lane.run.run_id, before):
        total += count
    return total
