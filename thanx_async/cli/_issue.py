"""The commands that read or generate guests: issue, plan and demo."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Annotated
from uuid import uuid4

from cyclopts import Parameter

from thanx_async._core.errors import ConfigurationError
from thanx_async.batcher import AsyncBatcher, Guard
from thanx_async.cli._answer import Answer, plan_fields
from thanx_async.cli._client import PATIENT, connect, known_limiter
from thanx_async.cli._display import Display
from thanx_async.cli._driving import drive
from thanx_async.cli._failures import failure_file
from thanx_async.cli._hours import Hours, local_now, sleep_until
from thanx_async.cli._once import begin_run
from thanx_async.cli._opening import HowToRead
from thanx_async.cli._options import FileName, Flag, LedgerName, Whole
from thanx_async.cli._output import show_plan, write
from thanx_async.cli._reading import GuestFile, reading
from thanx_async.cli._recorded import new_ledger, path_of
from thanx_async.cli._status import ISSUED, SOME_FAILED, STOPPED, warn
from thanx_async.cli._words import amount
from thanx_async.client import ThanxClient
from thanx_async.identifiers import MAX_BATCH
from thanx_async.ledger import Ledger

GuestFileName = Annotated[str, Parameter(allow_leading_hyphen=True)]
_SEED = ("camp_abc123", "k2lye10h32l5wzo", "var_treat1")


async def issue(
    file: GuestFileName,
    /,
    *,
    campaign: str | None = None,
    merchant: str | None = None,
    variant: str | None = None,
    how: HowToRead = HowToRead(),  # noqa: B008 - frozen
    limit: Whole | None = None,
    exclude: FileName | None = None,
    once: Flag = False,
    failures: FileName | None = None,
    hours: Hours = Hours(),  # noqa: B008 - frozen
    run_id: str | None = None,
    batch_size: Whole = 10_000,
    ledger: LedgerName | None = None,
    no_ledger: Flag = False,
    max_rewards: Whole | None = None,
    canary: Whole | None = None,
    max_failure_rate: float | None = None,
    emulator: Flag = False,
    json: Flag = False,
) -> int:
    """
    Parameters
    ----------
    file:
        CSV with a header, a workbook (Excel, OpenDocument), plain or JSON lines; - reads standard input.
    campaign:
        The campaign's id. With --emulator, this and the next two default to the emulator's own.
    merchant:
        The merchant's id.
    variant:
        The id of the campaign's variant.
    limit:
        Issue only to the first of the guests, this many. The same command without it goes on with the rest.
    exclude:
        A file of guests who are left out, in any of its columns (those of --column if it has them).
    once:
        Leave out everybody to whom another run with --once has issued this reward, from whatever file.
    failures:
        A CSV file to write: the row and columns of each guest who got no reward, the fate (failed, rejected,
        duplicate, unsent) and the reason. Mended, it can be issued by the same options.
    run_id:
        Names the run; no batch of a run is issued twice. By default derived from file, target and credential.
    batch_size:
        Guests in one request, 1 to 10,000.
    ledger:
        The file that records the run, or postgresql://...; by default the user's own file, or none with
        --emulator.
    no_ledger:
        Record nothing: a run that is killed cannot be resumed.
    max_rewards:
        Stop before more than this many rewards could be issued.
    canary:
        Issue to this many guests first, and wait for their job; needs --max-failure-rate.
    max_failure_rate:
        From 0 to 1: stop once more than this share of the guests in finished jobs has failed.
    emulator:
        Run against the embedded emulator instead of Thanx.
    json:
        Print the report as JSON.
    """
    is_recorded = ledger is not None or not (emulator or no_ledger)
    _check_names(run_id, ledger, no_ledger=no_ledger, once=once and not is_recorded)
    if limit is not None and not emulator:
        _check_limit(file, run_id, no_ledger=no_ledger)
    target = _target(campaign, merchant, variant, emulator=emulator)
    begin, until = hours.window(local_now())
    guard = Guard(max_rewards=max_rewards, canary=canary, max_failure_rate=max_failure_rate)
    display, answer = Display(), Answer(json=json)
    async with (
        reading(file, how, exclude=exclude, limit=limit) as guests,
        connect(emulator=emulator, retry=PATIENT, store=ledger) as client,
        new_ledger(ledger) if is_recorded else nullcontext() as opened,
    ):
        display.watch(client)
        display.expect(lambda _: guests.total())
        batcher = _batcher(client, target, display, batch_size=batch_size, guard=guard, ledger=opened)
        path, before, chooser = None, "", None
        if opened is not None:
            path = path_of(opened)
            begun = await begin_run(
                opened, client, target, file=file, run_id=run_id, once=once, excludes=exclude is not None
            )
            run_id, before, chooser = begun.run_id, begun.before, begun.once
            if chooser is not None:
                guests.choose_by(chooser.choose)
        run_id = run_id or uuid4().hex
        async with failure_file(
            failures, source=file, ledger=path, exclude=exclude, original=guests.original()
        ) as rows:
            await _wait_for(begin, guests, display)
            status = await drive(
                batcher,
                display,
                guests,
                run_id=run_id,
                limit=limit,
                before=before,
                failures=rows,
                until=until,
                answer=answer,
            )
        left_out = await chooser.end() if chooser else []
    notes = guests.notes() + left_out
    if limit is not None and opened is not None and status != STOPPED:
        notes.append(f"--limit {limit}: the same command without it goes on with the rest, in the same run")
    for note in notes:
        answer.line(note)
    if status == STOPPED and (path or not emulator):
        warn(_how_to_continue(run_id, failures, is_recorded=is_recorded))
    if chooser:
        answer.show(chooser.fields)
    return answer.end(STOPPED if chooser and chooser.open else status)


async def plan(
    file: GuestFileName,
    /,
    *,
    how: HowToRead = HowToRead(),  # noqa: B008 - frozen
    limit: Whole | None = None,
    exclude: FileName | None = None,
    failures: FileName | None = None,
    batch_size: Whole = 10_000,
    json: Flag = False,
) -> int:
    """
    Parameters
    ----------
    file:
        CSV with a header, a workbook (Excel, OpenDocument), plain or JSON lines; - reads standard input.
    limit:
        Read only the first of the guests, this many.
    exclude:
        A file of guests who are left out, in any of its columns (those of --column if it has them).
    failures:
        A CSV file to write: the row and columns of each guest who is rejected or a duplicate, and the reason.
    batch_size:
        Guests in one request, 1 to 10,000.
    json:
        Print JSON.
    """
    display, answer = Display(), Answer(json=json)
    async with (
        reading(file, how, exclude=exclude, limit=limit) as guests,
        failure_file(failures, source=file, ledger=None, exclude=exclude, original=guests.original()) as rows,
    ):
        client = ThanxClient("plan", "plan", limiter=await known_limiter())
        batcher = AsyncBatcher(
            client, campaign_id="plan", merchant_id="plan", variant_id="plan", batch_size=batch_size
        )
        display.follow_reading(guests.progress)
        async with display:
            planned = await batcher.plan(guests, limit=limit)
        listed = rows.write_plan(planned) if rows else ""
    answer.show(lambda: plan_fields(planned), lambda: show_plan(planned))
    for note in filter(None, (listed, guests.described(), *guests.notes())):
        answer.line(note)
    return answer.end(SOME_FAILED if planned.rejected else ISSUED)


async def demo(*, guests: Whole = 25_000) -> int:
    """
    Parameters
    ----------
    guests:
        Lines to generate; a few are junk, duplicates or unknown to Thanx.
    """
    if guests < 0:
        raise ConfigurationError(f"--guests must be 0 or more, not {guests}")
    async with connect(emulator=True) as client:
        lines = amount(guests, "line")
        write(f"A demonstration against an emulator on {client.base_url}, with {lines} of input.")
        display = Display()
        display.watch(client)
        display.expect(lambda _: guests)
        status = await drive(_batcher(client, _SEED, display), display, _generated(guests))
    return ISSUED if status == SOME_FAILED else status


def _check_names(run_id: str | None, ledger: object, *, no_ledger: bool, once: bool) -> None:
    if run_id == "":
        raise ConfigurationError("--run-id is empty")
    if no_ledger and ledger is not None:
        raise ConfigurationError("give only one of --ledger and --no-ledger")
    if once:
        raise ConfigurationError("--once needs a ledger, which remembers the guests: give --ledger")


async def _wait_for(begin: datetime, guests: GuestFile, display: Display) -> None:
    """Say what is read, and wait until sending may begin."""
    if what := guests.described():
        display.say(what)
    if begin > local_now():
        display.say(f"Waiting until {begin:%Y-%m-%d %H:%M}; nothing is sent before")
        await sleep_until(begin)


def _how_to_continue(run_id: str, failures: Path | None, *, is_recorded: bool) -> str:
    again = f"give the same command and guests with --run-id {quote(run_id)}"
    if not is_recorded:
        again += ": nothing is issued twice as long as Thanx keeps its idempotency keys"
    if failures:
        again += f"; do not issue {failures} as well, since its unsent guests are sent then"
    return f"to continue, {again}"


def _check_limit(file: str, run_id: str | None, *, no_ledger: bool) -> None:
    if no_ledger or (run_id is None and not Path(file).is_file()):
        missing = "a ledger" if no_ledger else "a --run-id here, since FILE is no regular file"
        raise ConfigurationError(
            f"--limit needs {missing}: the first guests would be issued again with the rest"
        )


def _batcher(
    client: ThanxClient,
    target: tuple[str, str, str],
    display: Display,
    *,
    batch_size: int = MAX_BATCH,
    guard: Guard = Guard(),  # noqa: B008 - frozen
    ledger: Ledger | None = None,
) -> AsyncBatcher:
    campaign_id, merchant_id, variant_id = target
    return AsyncBatcher(
        client,
        campaign_id=campaign_id,
        merchant_id=merchant_id,
        variant_id=variant_id,
        batch_size=batch_size,
        guard=guard,
        ledger=ledger,
        on_progress=display.follow,
    )


def _target(
    campaign: str | None, merchant: str | None, variant: str | None, *, emulator: bool
) -> tuple[str, str, str]:
    given = {"--campaign": campaign, "--merchant": merchant, "--variant": variant}
    values = [value or default for value, default in zip(given.values(), _SEED, strict=True)]
    missing = [name for name, value in given.items() if not value]
    if missing and not emulator:
        raise ConfigurationError(f"cannot tell what to issue: {', '.join(missing)} missing")
    return values[0], values[1], values[2]


def _generated(count: int) -> Iterable[str]:
    """Lines of which 1 in 500 is junk, 1 in 500 a duplicate, and 1 in 500 unknown to Thanx."""
    for number in range(count):
        match number % 500:
            case 100:
                yield f"not a guest {number}"
            case 200:
                yield f"guest{number - 1}@example.com"
            case 300:
                yield f"unknown{number}@example.com"
            case _:
                yield f"guest{number}@example.com"
