"""When a guard rail stops a run."""

from __future__ import annotations

from collections.abc import Container, Sequence

from thanx_async._entry import Entry
from thanx_async._guard import Guard
from thanx_async.errors import GuardError
from thanx_async.jobs import JobHandle


def is_too_much(guard: Guard, entries: Sequence[Entry], sending: Container[Entry], entry: Entry) -> bool:
    """Whether there could be more rewards than allowed if the entry was sent as well."""
    most = guard.max_rewards
    return most is not None and _possible(entries, sending, entry) + len(entry.positions) > most


def check_rewards(guard: Guard, entries: Sequence[Entry], entry: Entry) -> None:
    """Before a batch is sent.

    Raises:
        GuardError: with it there could be more rewards than allowed.
    """
    if is_too_much(guard, entries, (), entry):
        possible = _possible(entries, (), entry)
        raise GuardError(
            f"max_rewards is {guard.max_rewards:,}: {possible:,} guests may have a reward already, and the"
            f" next batch has {len(entry.positions):,}"
        )


def _possible(entries: Sequence[Entry], sending: Container[Entry], entry: Entry) -> int:
    others = (other for other in entries if other is not entry)
    return sum(len(other.positions) if other in sending else other.possible_rewards for other in others)


def check_failures(guard: Guard, entries: Sequence[Entry]) -> None:
    """When a job has ended.

    Raises:
        GuardError: too many of the guests in ended jobs have failed.
    """
    for entry in entries:
        entry.look()
    failed = sum(len(entry.rows) for entry in entries if entry.settled)
    ended = sum(len(entry.positions) for entry in entries if entry.settled)
    if guard.max_failure_rate is not None and failed > guard.max_failure_rate * ended:
        raise GuardError(
            f"max_failure_rate is {guard.max_failure_rate:.1%}: {failed:,} of {ended:,} guests in finished"
            f" jobs have failed ({failed / ended:.1%})"
        )


def newest_open(entries: Sequence[Entry]) -> tuple[Entry, JobHandle] | None:
    """The newest job without an outcome: when polls are scarce, old ones tell nothing new."""
    for entry in reversed(entries):
        if entry.handle and not (entry.settled or entry.is_unclear):
            return entry, entry.handle
    return None


async def try_canary(guard: Guard, entry: Entry) -> None:
    """Wait for the first batch's job.

    Raises:
        GuardError: too many have failed, or what became of them cannot be told.
    """
    if entry.handle and not entry.settled:
        await entry.handle.wait()
        entry.look()
    if not entry.settled:
        raise GuardError("what became of the canary's guests cannot be told, so that nothing more is sent")
    check_failures(guard, [entry])
