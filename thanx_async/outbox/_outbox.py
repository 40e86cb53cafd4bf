"""`StoredOutbox`, what the outboxes of all backends share: everything above their ledger."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NoReturn, Self, TypeVar

import attrs

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, LedgerError
from thanx_async._core.escaping import printable
from thanx_async._decoding import masked
from thanx_async.batching import Guard
from thanx_async.http import checked_url, url_of
from thanx_async.identifiers import MAX_BATCH
from thanx_async.ledger import LaneLedger, NewGuest, Put, RunRecord
from thanx_async.models import Environment, check_target
from thanx_async.outbox._drain import drained
from thanx_async.outbox._group_commit import MAYBE_PUT
from thanx_async.outbox._guests import Guests, check_put, slices
from thanx_async.outbox._owned import DrainSettings
from thanx_async.outbox._protocol import Pairs
from thanx_async.outbox._records import GuestOutcome, OutboxStatus
from thanx_async.outbox._sender import LaneSender
from thanx_async.outbox._settings import KeepIds, Unset, checked_replay, seconds_to_keep

if TYPE_CHECKING:
    from thanx_async.client import ThanxClient
    from thanx_async.webhooks import Event


L_co = TypeVar("L_co", bound=LaneLedger, covariant=True)

_FIRST_LOOK = 0.05
_LAST_LOOK = 1.0


@attrs.frozen
class Lane:
    """An opened lane: its record, its number, and what makes guests of identifiers and ids."""

    run: RunRecord
    number: int
    guests: Guests


class StoredOutbox(ABC, Generic[L_co]):
    """An outbox on a ledger with lanes; see `Outbox`."""

    def __init__(
        self,
        ledger: L_co,
        *,
        campaign_id: str,
        merchant_id: str,
        variant_id: str,
        client_id: str,
        environment: Environment,
        base_url: str | None,
        keep_ids: KeepIds,
        replay_within: float | None,
    ) -> None:
        check_target(campaign_id, merchant_id, variant_id)
        self._target = RunRecord(
            run_id="",
            base_url=checked_url(url_of(environment) if base_url is None else base_url),
            client_id=checks.text("client_id", client_id),
            campaign_id=campaign_id,
            merchant_id=merchant_id,
            variant_id=variant_id,
            batch_size=MAX_BATCH,
            deduplicate=False,
            keep_ids=seconds_to_keep(keep_ids),
            replay_within=checked_replay(replay_within),
        )
        self._ledger = ledger
        self._lane: Lane | None = None

    def __repr__(self) -> str:
        target: RunRecord | None = getattr(self, "_target", None)
        if target is None:
            return f"<{type(self).__name__} (not valid)>"
        return f"<{type(self).__name__} {printable('/'.join(target.target))} in {self._ledger!r}>"

    def __reduce__(self) -> NoReturn:
        raise checks.unpicklable("an outbox", "make another one in each process")

    async def __aenter__(self) -> Self:
        await self._ledger.__aenter__()
        try:
            run, number = await self._ledger.open_lane(self._target)
            self._lane = Lane(run, number, Guests(run.run_id))
        except BaseException:
            await self._ledger.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._ledger.__aexit__(kind, error, traceback)

    async def aclose(self) -> None:
        """Close the outbox as the end of the outermost ``async with`` does. It can be opened again."""
        await self._ledger.aclose()

    @property
    def ledger(self) -> LaneLedger:
        """The ledger that the outbox is a part of."""
        return self._ledger

    @property
    def lane(self) -> Lane:
        """The opened lane.

        Raises:
            ConfigurationError: the outbox was never opened.
        """
        if self._lane is None:
            name = type(self).__name__
            raise ConfigurationError(f"the outbox is not open: use it as `async with {name}(...) as outbox`")
        return self._lane

    @property
    def keep_ids(self) -> timedelta | None:
        """For how long ids are remembered at least, None for ever; see `Outbox.configure`."""
        seconds = self.lane.run.keep_ids
        return None if seconds is None or seconds == inf else timedelta(seconds=seconds)

    @property
    def replay_within(self) -> float:
        """Seconds after which a batch in doubt is not sent again by itself; see `Outbox.configure`."""
        return self.lane.run.replayed_within(self._ledger.replay_within)

    async def configure(self, *, keep_ids: KeepIds = Unset.UNSET, replay_within: float | None = None) -> None:
        """Change the settings of the outbox; see `Outbox.configure`."""
        kept, replay, lane = seconds_to_keep(keep_ids), checked_replay(replay_within), self.lane
        await self._ledger.configure(lane.run.run_id, keep_ids=kept, replay_within=replay)
        self._target = attrs.evolve(self._target, keep_ids=None, replay_within=None)  # to open it again
        self._lane = attrs.evolve(lane, run=await self._ledger.run(lane.run.run_id) or lane.run)

    async def put(self, identifier: object, *, id: str, using: object | None = None) -> bool:
        """Put a guest; see `Outbox.put`."""
        try:
            guest = self.lane.guests.make(identifier, id)
        finally:
            del identifier  # tools that record the local variables of errors would record the guest
        put = await self._put(guest) if using is None else (await self._put_using(using, [guest]))[0]
        return check_put(put, id)

    async def _put(self, guest: NewGuest) -> Put:
        """Put a guest in a transaction of its own."""
        try:
            (put,) = await self._ledger.put(self.lane.run.run_id, [guest])
        except asyncio.CancelledError as error:
            error.add_note(MAYBE_PUT)
            raise
        return put

    @abstractmethod
    async def _put_using(self, using: object, guests: Sequence[NewGuest]) -> list[Put]:
        """Put guests with a connection of the caller's."""

    @abstractmethod
    def statement(self, identifier: object, *, id: str) -> tuple[str, tuple[object, ...]]:
        """The SQL statement that puts a guest, and its parameters; see `Outbox.statement`."""

    async def put_many(self, pairs: Pairs, *, using: object | None = None) -> int:
        """Put many guests; see `Outbox.put_many`."""
        try:
            rows = slices(pairs, self.lane.guests)
        finally:
            del pairs  # see `put`
        new = place = 0
        async for ids, guests in rows:
            if using is None:
                puts = await self._ledger.put(self.lane.run.run_id, guests)
            else:
                puts = await self._put_using(using, guests)
            new += sum(map(check_put, puts, ids, count(place)))
            place += len(ids)
        return new

    async def outcome(self, id: str, *, timeout: float | None = None) -> GuestOutcome:
        """Wait for the outcome of a guest; see `Outbox.outcome`."""
        checks.timeout(timeout)
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        look = _FIRST_LOOK
        while True:
            fate = await self._ledger.fate(self.lane.run.run_id, self.lane.guests.id(id))
            if fate is None:
                raise LedgerError(f"the outbox knows no outcome of the id {masked(id)!r}")
            outcome = GuestOutcome.of(id, fate)
            left = look if until is None else min(look, until - loop.time())
            if outcome.is_final or left <= 0:
                return outcome
            await asyncio.sleep(left)
            look = min(_LAST_LOOK, 2 * look)

    async def cancel(self, id: str) -> bool:
        """Take out a guest who still waits; see `Outbox.cancel`."""
        return await self._ledger.cancel(self.lane.run.run_id, self.lane.guests.id(id))

    async def status(self) -> OutboxStatus:
        """How much waits, and who drains it; see `Outbox.status`."""
        return OutboxStatus.of(await self._ledger.report(self.lane.run.run_id))

    async def notify(self, event: Event) -> None:
        """Take in a webhook event, for whichever process drains the outbox.

        An outbox can take the client's place in `thanx_async.webhooks.aiohttp_handler` and ``asgi_app``.
        """
        from thanx_async.webhooks import RewardBatchCompleted  # the caller has loaded it already

        if isinstance(event, RewardBatchCompleted):
            await self._ledger.hear(event.issuance_job_id)
            await self._ledger.relay(event.without_guests())

    async def drain(
        self,
        client: ThanxClient,
        *,
        guard: Guard = Guard(),  # noqa: B008 - frozen
        linger: float = 1.0,
        until_empty: bool = False,
    ) -> None:
        """Send what was put, or stand by; see `Outbox.drain`."""
        checks.number("linger", linger, 0)
        checks.flags(until_empty=until_empty)
        checks.kind("guard", isinstance(guard, Guard), "a Guard, such as Guard(max_rewards=1000)", guard)
        lane = self.lane.run
        for name in ("client_id", "base_url"):
            if (theirs := getattr(client, name, None)) != (ours := getattr(lane, name)):
                raise ConfigurationError(
                    f"the client's {name} is {theirs!r}, and the outbox's {ours!r}", argument="client"
                )
        settings = DrainSettings(guard, linger, until_empty)
        await drained(self._ledger, lane, LaneSender(self._ledger, lane, client), settings)


def wrong_kind(using: object, kinds: str) -> ConfigurationError:
    """The error for an object that is not a connection of these kinds."""
    name = f"{type(using).__module__}.{type(using).__qualname__}"
    return checks.wrong(
        "using",
        f"must be {kinds}, not {name}. With any other connection, execute the SQL and parameters that"
        " statement() returns",
    )
