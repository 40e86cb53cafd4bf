"""The commands for outboxes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import time

import cyclopts

from thanx_async._core.errors import ConfigurationError, InvalidIdentifierError
from thanx_async.batching import Guard
from thanx_async.cli._client import connect
from thanx_async.cli._driving import on_signals
from thanx_async.cli._input import Format, PairFile, reading_pairs
from thanx_async.cli._options import Flag, Whole
from thanx_async.cli._output import write
from thanx_async.cli._recorded import date
from thanx_async.cli._status import ISSUED, SOME_FAILED, STOPPED
from thanx_async.cli._store import AnyOutbox, Store, Wanted, lanes, opened, outbox_of
from thanx_async.client import ThanxClient
from thanx_async.identifiers import Identifier
from thanx_async.ledger import BatchState, RunRecord
from thanx_async.outbox import GuestState, OutboxStatus

outbox_app = cyclopts.App(name="outbox")

_LOOKS_FOR_LANES_EVERY = 30.0
_DAY = 86_400


@outbox_app.command
async def drain(
    *,
    store: Store,
    campaign: str | None = None,
    merchant: str | None = None,
    variant: str | None = None,
    linger: float = 1.0,
    until_empty: Flag = False,
    max_rewards: Whole | None = None,
    canary: Whole | None = None,
    max_failure_rate: float | None = None,
) -> int:
    """Send what was put, in all outboxes of the credential, until Ctrl-C.

    Any number of processes may run this: one of them sends, and another one takes over when it ends.

    Parameters
    ----------
    store:
        The file of the outboxes; by default THANX_STORE.
    campaign:
        Only outboxes that issue this campaign.
    merchant:
        Only outboxes of this merchant.
    variant:
        Only outboxes that issue this variant.
    linger:
        Seconds for which the first guest of a batch waits for others.
    until_empty:
        Stop once nobody waits and all jobs have ended.
    max_rewards:
        Stop before one outbox could have issued more than this many rewards in all.
    canary:
        Issue to this many guests first, and wait for their job; needs --max-failure-rate.
    max_failure_rate:
        From 0 to 1: stop once more than this share of the guests in finished jobs has failed.
    """
    guard = Guard(max_rewards=max_rewards, canary=canary, max_failure_rate=max_failure_rate)
    wanted = Wanted(campaign, merchant, variant)
    async with connect(patient=True) as client:
        draining = asyncio.create_task(_drain_all(store, wanted, client, guard, linger, until_empty=until_empty))
        with on_signals(draining.cancel):
            await asyncio.wait([draining])
        if draining.cancelled():
            write("Stopped. What was in progress is sent again with the same keys by the next drain")
            return STOPPED
        return draining.result()
