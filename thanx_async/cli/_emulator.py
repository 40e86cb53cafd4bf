"""The command that runs the emulator on its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Annotated

import attrs
from cyclopts import Group, Parameter

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._driving import on_signals
from thanx_async.cli._options import Whole
from thanx_async.cli._output import write
from thanx_async.cli._status import ISSUED
from thanx_async.emulator import Counter, Emulator, Faults, JobSpeed, Oddity, SettingError, Webhooks

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
        webhook_merchant_id: Name the merchant in these events; Thanx's documentation shows both forms.
        webhook_purchases: Rate of rewards followed by an event about a purchase, without "event" at its top.
        webhook_lost: Rate of events that are never sent.
        webhook_duplicated: Rate of events that are sent twice.
        webhook_late: Rate of events that are delayed, so that others overtake them.
        webhook_late_by: The longest delay, in seconds.
        webhook_early: Rate of jobs whose 202 is held back until their events are sent.
        webhook_odd: Rate of jobs whose last event is odd.
        webhook_oddities: What is odd about them; by default anything.
    """

    webhook_url: str | None = None
    webhook_rewards: bool = True
    webhook_merchant_id: bool = True
    webhook_purchases: float = 0
    webhook_lost: float = 0
    webhook_duplicated: float = 0
    webhook_late: float = 0
    webhook_late_by: float = 5.0
    webhook_early: float = 0
    webhook_odd: float = 0
    webhook_oddities: Annotated[tuple[Oddity, ...], Parameter(negative=())] = tuple(Oddity)

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
            merchant_id=self.webhook_merchant_id,
            purchases=self.webhook_purchases,
            seed=seed,
            lost=self.webhook_lost,
            duplicated=self.webhook_duplicated,
            late=self.webhook_late,
            late_by=self.webhook_late_by,
            early=self.webhook_early,
            odd=self.webhook_odd,
            oddities=self.webhook_oddities,
        )


async def run_emulator(
    *,
    port: Whole = 8086,
    counter: Counter = Counter.FIXED,
    limits: str = "5/1,2000/900",
    leaky_burst: Whole | None = None,
    speed: float = 5000.0,
    credential: Annotated[list[str] | None, Parameter(negative=())] = None,
    id_tag: str | None = None,
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
    credential:
        A credential to accept, as CLIENT_ID:ACCESS_TOKEN; can be given several times. By default any. Make it
        up: other users of the machine can see command lines.
    id_tag:
        A part of the ids of new jobs and campaigns, to make them predictable. By default a random one, so
        that no other emulator uses the same ids.
    """
    try:
        emulator = Emulator(
            port=port,
            counter=counter,
            burst=leaky_burst,
            limits=_limits(limits),
            speed=JobSpeed(identifiers_per_second=speed),
            credentials=_credentials(credential),
            id_tag=id_tag,
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
            _welcome(emulator.url, credential)
            await stop.wait()
            _show(emulator.statistics())
    return ISSUED


def _welcome(url: str, credentials: Sequence[str] | None) -> None:
    write(url)
    write(f"Use it with: export THANX_BASE_URL={url}")
    given = "any" if credentials is None else "a given"
    write(
        f"and {given} THANX_CLIENT_ID and THANX_ACCESS_TOKEN; it has the campaign camp_abc123, the"
        " merchant k2lye10h32l5wzo and the variant var_treat1"
    )


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


def _credentials(texts: Sequence[str] | None) -> list[tuple[str, str]] | None:
    if texts is None:
        return None
    pairs = [(client_id, token) for client_id, _, token in (text.partition(":") for text in texts)]
    if not all(client_id and token for client_id, token in pairs):
        raise ConfigurationError("--credential must look like CLIENT_ID:ACCESS_TOKEN")
    return pairs


def _limits(text: str) -> list[tuple[int, float]]:
    try:
        pairs = [part.split("/") for part in text.split(",") if part]
        return [(int(requests), float(seconds)) for requests, seconds in pairs]
    except ValueError:
        raise ConfigurationError(f"--limits must look like 5/1,2000/900, not {text!r}") from None
