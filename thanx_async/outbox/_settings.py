"""The settings that are an outbox's own, the same for all processes that open it."""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from math import inf

from thanx_async._core import checks


class Unset(Enum):
    """Stands for an argument that is not given, where None has a meaning."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "<the outbox's own>"


KeepIds = timedelta | Unset | None


def seconds_to_keep(keep_ids: KeepIds) -> float | None:
    """``keep_ids`` in seconds, infinity for ever; None if it is not given.

    Raises:
        ConfigurationError: it is something else.
    """
    if isinstance(keep_ids, Unset):
        return None
    if keep_ids is None:
        return inf
    checks.kind("keep_ids", isinstance(keep_ids, timedelta), "a timedelta(days=90), or None", keep_ids)
    return keep_ids.total_seconds()


def checked_replay(replay_within: float | None) -> float | None:
    """``replay_within`` as a checked number; None if it is not given.

    Raises:
        ConfigurationError: it is something else.
    """
    if replay_within is None:
        return None
    checks.number("replay_within", replay_within, 0, endless=True)
    return float(replay_within)
