"""The settings of a lane, which are the same for all processes that open it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from math import inf

import attrs

from thanx_async._core.errors import ConfigurationError
from thanx_async.ledger._records import RunRecord
from thanx_async.retry import KEYS_LAST

_KEEP_IDS = 90 * 86_400.0


def with_settings(lane: RunRecord, given: RunRecord) -> RunRecord:
    """A lane with its settings, or with those given if it has none yet.

    Args:
        lane: the lane as recorded.
        given: the settings of whoever opens it; None for one that is not given.

    Raises:
        ConfigurationError: the lane was made with another setting.
    """
    keep = _setting("keep_ids", lane.keep_ids, given.keep_ids, _KEEP_IDS, _as_timedelta)
    replay = _setting("replay_within", lane.replay_within, given.replay_within, KEYS_LAST, "{:g}".format)
    return attrs.evolve(lane, keep_ids=keep, replay_within=replay)


def _setting(
    name: str, known: float | None, given: float | None, default: float, shown: Callable[[float], str]
) -> float:
    if known is None:
        return default if given is None else given
    if given is None or given == known:
        return known
    raise ConfigurationError(
        f"the outbox has {name}={shown(known)} for all processes, not {shown(given)}. Leave out the argument"
        f" {name}, or change the outbox with `configure({name}=...)`",
        argument=name,
    )


def _as_timedelta(seconds: float) -> str:
    return "None" if seconds == inf else repr(timedelta(seconds=seconds)).removeprefix("datetime.")
