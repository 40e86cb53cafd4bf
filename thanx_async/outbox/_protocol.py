"""The `Outbox` protocol, which each backend of the outbox implements."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from thanx_async.batching import Guard
from thanx_async.outbox._records import GuestOutcome, OutboxStatus
from thanx_async.outbox._settings import Unset

if TYPE_CHECKING:
    from thanx_async.client import ThanxClient

Pairs = Iterable[tuple[object, str]] | AsyncIterable[tuple[object, str]]


class Outbox(Protocol):
    """Takes guests one by one, each under an id of the caller's, and gives each id exactly one reward.

    `SQLiteOutbox` implements it for one machine, `thanx_async.postgres.PostgresOutbox` for many.
    """

    @property
    def keep_ids(self) -> timedelta | None:
        """For how long ids are remembered after they were put, at least; None for ever."""

    @property
    def replay_within(self) -> float:
        """Seconds after which a batch in doubt is not sent again by itself."""

    async def configure(
        self, *, keep_ids: timedelta | Unset | None = ..., replay_within: float | None = None
    ) -> None:
        """Change settings of an open outbox for all processes. A drain elsewhere notices within an hour.

        Args:
            keep_ids: for how long ids are remembered at least, None for ever; the same as now if not given.
            replay_within: seconds after which a batch in doubt is not sent again by itself; the same as now
                if not given. Thanx does not publish how long it keeps idempotency keys.
        """

    async def put(self, identifier: object, *, id: str, using: object | None = None) -> bool:
        """Put a guest, who gets one reward. When this returns, the guest is not forgotten any more.

        The same id again is no second reward, whoever puts it and whenever, such as for a message that a
        broker delivers again.

        Args:
            identifier: a value that `Identifier.parse` takes.
            id: identifies what the reward is for, such as an order or a survey. It is not sent to Thanx.
            using: an open connection of the caller's to the same database. The guest is then put in the
                caller's transaction, and is durable once the caller commits; at once if the connection
                commits each statement by itself.

        Returns:
            Whether the id is new.

        Raises:
            InvalidIdentifierError: the identifier is invalid. Nothing was put.
            ConfigurationError: the id is invalid, or ``using`` is not such a connection.
            IdReusedError: the id was put before, with another guest. The message masks an id that may be an
                e-mail address or a phone number (7 digits or more).
            LedgerError: the store failed, or the caller's connection; roll back then. An error that is
                ``in_doubt`` may have put the guest all the same: put the same id again.
        """

    async def put_many(self, pairs: Pairs, *, using: object | None = None) -> int:
        """Put many guests, in slices of 10,000 that are each put in one transaction, or in the caller's.

        Args:
            pairs: pairs of an identifier and an id; any iterable or async iterable.
            using: as for `put`.

        Returns:
            How many ids were new.

        Raises:
            InvalidIdentifierError: an identifier is invalid; the message has the place of the pair, from 0.
                Earlier slices were put, and the call can be repeated.
            IdReusedError: an id was put before, with another guest; likewise. The others of its slice were
                put as well, unless a transaction of the caller's in PostgreSQL has failed with it.
        """

    def statement(self, identifier: object, *, id: str) -> tuple[str, tuple[object, ...]]:
        """The SQL statement that puts a guest, and its parameters, for a transaction of any other driver.

        The outbox must have been opened once. What `put` raises as `IdReusedError` is an error of the driver:
        with the SQLSTATE ``TX001`` (PostgreSQL), or an ``IntegrityError`` (SQLite).

        Raises:
            InvalidIdentifierError: the identifier is invalid.
        """

    async def outcome(self, id: str, *, timeout: float | None = None) -> GuestOutcome:
        """Wait for the outcome of a guest, without a request to Thanx.

        Args:
            id: the id under which the guest was put.
            timeout: in seconds; None for as long as it takes, 0 for no wait. After it the outcome is the
                state as it is.

        Raises:
            LedgerError: the id is unknown, or was forgotten.
        """

    async def cancel(self, id: str) -> bool:
        """Take out a guest who still waits to be sent. The id stays used.

        Returns:
            Whether the guest was taken out. Otherwise the guest may get the reward, or the id is unknown.
        """

    async def status(self) -> OutboxStatus:
        """How much waits, for how long, and who drains it."""

    async def drain(
        self,
        client: ThanxClient,
        *,
        guard: Guard = ...,
        linger: float = 1.0,
        until_empty: bool = False,
    ) -> None:
        """Send what was put, as long as this process holds the outbox's lease; stand by otherwise.

        Any number of processes may call this: one of them sends, and another one takes over when it ends.

        Args:
            client: an open client with the outbox's client id and base URL.
            guard: limits the rewards of the outbox since its beginning, and the failures since the drain
                began.
            linger: seconds for which the first guest of a batch waits for others.
            until_empty: return once nobody waits and all jobs have ended. Otherwise the drain never returns.

        Raises:
            GuardError: the guard stopped the drain.
            APIError: Thanx refused the credential, the campaign or a batch. The guests still wait.
            IdempotencyConflictError: Thanx knows other guests under the key of a batch, as after the
                database was restored from a copy. The batch is in doubt, and nothing more is sent.
            LedgerError: the store failed, or the outbox was revoked.
        """
