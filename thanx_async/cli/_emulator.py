"""The command that runs the emulator on its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Annotated

import attrs
from cyclopts import Group, Parameter

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._driving import on_signals
from thanx_async.cli._options import Whole
from thanx_async.cli._output import write
from thanx_async.cli._status import ISSUED
from thanx_async.emulator import Counter, Emulator, Faults, JobSpeed, SettingError, Webhooks

_SECRET = "THANX_WEBHOOK_SECRET"  # noqa: S105 - the variable's name
_OPTIONS = {
    "Counter.LEAKY": "--counter leaky",
    "Emulator.burst": "--leaky-burst",
    "JobSpeed.identifiers_per_second": "--speed",
}
_FAULTS = Group.create_ordered("Faults, at every endpoint (rates from 0 to 1)")
_WEBHOOKS = Group.create_ordered(f"Webhooks, signed with the secret in {_SECRET}")


def _in_order(_: type, fields: list[attrs.Attribute[object]]) -> list[attrs.Attribute[object]]:
    order = list(attrs.fields_dict(Faults))
    return sorted(fields, key=lambda field: order.index(field.name))


@attrs.frozen(field_transformer=_in_order)
class FaultOptions(Faults):
    __doc__ = Faults.__doc__

    seed: Whole = 0
    burst_requests: Whole = 3

    def __attrs_post_init__(self) -> None:
        try:
            super().__attrs_post_init__()
        except SettingError as error:
            raise ConfigurationError(error.renamed(_option)) from None


@attrs.frozen
class WebhookOptions:
    """Where the emulator posts its events, and their faults.

    Args:
        webhook_url: Where the emulator posts its events; by default nowhere.
        webhook_rewards: Also post an event for each reward, not only one for each job.
        webhook_lost: Rate of events that are never sent.
        webhook_duplicated: Rate of events that are sent twice.
        webhook_late: Rate of events that are delayed, so that others overtake them.
        webhook_late_by: The longest delay, in seconds.
        webhook_early: Rate of jobs whose 202 is held back until their events are sent.
    """

    webhook_url: str | None = None
    webhook_rewards: bool = True
    webhook_lost: float = 0
    webhook_duplicated: float = 0
    webhook_late: float = 0
    webhook_late_by: float = 5.0
    webhook_early: float = 0

    def settings(self, seed: int) -> Webhooks | None:
        if self.webhook_url is None:
            if self != WebhookOptions():
                raise ConfigurationError("the options --webhook-... need --webhook-url")
            return None
        secret = os.environ.get(_SECRET)
        if not secret:
            raise ConfigurationError(f"--webhook-url needs the secret that signs events in {_SECRET}")
        return Webhooks(
            self.webhook_url,
            secret,
            reward_issued=self.webhook_rewards,
            seed=seed,
            lost=self.webhook_lost,
            duplicated=self.webhook_duplicated,
            late=self.webhook_late,
            late_by=self.webhook_late_by,
            early=self.webhook_early,
        )


async def run_emulator(
    *,
    port: Whole = 8086,
    counter: Counter = Counter.FIXED,
    limits: str = "5/1,2000/900",
    leaky_burst: Whole | None = None,
    speed: float = 5000.0,
    faults: Annotated[FaultOptions, Parameter(name="*", group=_FAULTS)] = FaultOptions(),
    webhooks: Annotated[WebhookOptions, Parameter(name="*", group=_WEBHOOKS)] = WebhookOptions(),
) -> int:
    """
    Parameters
    ----------
    port:
        The port on 127.0.0.1; 0 picks a free one.
    counter:
        How requests are counted.
    limits:
        Requests/seconds, separated by commas; an empty value sets no limit.
    leaky_burst:
        Requests that a leaky counter accepts at once beyond the first; by default a full limit.
    speed:
        Identifiers that a job processes per second.
    """
    try:
        emulator = Emulator(
            port=port,
            counter=counter,
            burst=leaky_burst,
            limits=_limits(limits),
            speed=JobSpeed(identifiers_per_second=speed),
            faults=faults,
            webhooks=webhooks.settings(faults.seed),
        )
    except SettingError as error:
        raise ConfigurationError(error.renamed(_option)) from None
    stop = asyncio.Event()
    with on_signals(stop.set):
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(emulator)
            except OSError as error:
                raise ConfigurationError(
                    f"cannot listen on port {port} ({os.strerror(error.errno or 0)}); give another --port"
                ) from None
            write(emulator.url)
            write(f"Use it with: export THANX_BASE_URL={emulator.url}")
            write(
                "and any THANX_CLIENT_ID and THANX_ACCESS_TOKEN; it has the campaign camp_abc123, the"
                " merchant k2lye10h32l5wzo and the variant var_treat1"
            )
            await stop.wait()
            _show(emulator.statistics())
    return ISSUED


def _show(statistics: Mapping[str, object]) -> None:
    """Write one line for each number; numbers of a group share a line."""
    for name, value in statistics.items():
        if isinstance(value, dict):
            value = ", ".join(f"{kind} {count:,}" for kind, count in sorted(value.items())) or "none"
        write(f"{name.replace('_', ' '):<20}{value:,}" if isinstance(value, int) else f"{name:<20}{value}")


def _option(setting: str) -> str:
    """The option for a setting of the emulator."""
    owner, _, name = setting.partition("[")[0].partition(".")
    prefix = "--webhook-" if owner == "Webhooks" else "--"
    return _OPTIONS.get(setting) or prefix + name.replace("_", "-")


def _limits(text: str) -> list[tuple[int, float]]:
    try:
        pairs = [part.split("/") for part in text.split(",") if part]
        return [(int(requests), float(seconds)) for requests, seconds in pairs]
    except ValueError:
        raise ConfigurationError(f"--limits must look like 5/1,2000/900, not {text!r}") from None
