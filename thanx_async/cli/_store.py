"""The stores of outboxes, and the outboxes in them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, TypedDict

import attrs
from cyclopts import Parameter

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._options import Dsn, LedgerName
from thanx_async.cli._recorded import before_sending, open_ledger
from thanx_async.http import checked_url, environment, url_of, variable
from thanx_async.ledger import LANES, LaneLedger, RunRecord
from thanx_async.outbox import SQLiteOutbox, StoredOutbox

AnyOutbox = StoredOutbox[LaneLedger]
Store = Annotated[LedgerName, Parameter(env_var="THANX_STORE")]


class _Ids(TypedDict):
    campaign_id: str
    merchant_id: str
    variant_id: str


@attrs.frozen
class Wanted:
    """What an outbox issues, as far as the command line tells; the rest is found in the store."""

    campaign: str | None = None
    merchant: str | None = None
    variant: str | None = None

    def fits(self, run: RunRecord) -> bool:
        """Whether a lane issues this."""
        given = (self.campaign, self.merchant, self.variant)
        return all(ours in (None, theirs) for ours, theirs in zip(given, run.target, strict=True))


def credential() -> tuple[str, str]:
    """The client id and the base URL from the environment. The access token is not needed."""
    base_url = os.environ.get("THANX_BASE_URL")
    if not base_url:
        base_url = url_of(environment(os.environ.get("THANX_ENVIRONMENT") or "sandbox"))
    return variable("THANX_CLIENT_ID"), checked_url(base_url)


@asynccontextmanager
async def opened(store: Path | Dsn, wanted: Wanted) -> AsyncIterator[AnyOutbox]:
    """The one outbox of the credential in the store that issues what is wanted.

    With campaign, merchant and variant given, the outbox is made if there is none.

    Raises:
        ConfigurationError: there is no such outbox, or more than one.
    """
    if wanted.campaign and wanted.merchant and wanted.variant:
        target = (wanted.campaign, wanted.merchant, wanted.variant)
    else:
        found = await lanes(store, wanted)
        if len(found) != 1:
            how_many = f"{len(found)} outboxes" if found else "no outbox"
            raise ConfigurationError(
                f"{store} has {how_many} of this credential that fit: give --campaign, --merchant and"
                " --variant"
            )
        target = found[0].target
    async with AsyncExitStack() as stack:
        with before_sending():
            outbox = await stack.enter_async_context(outbox_of(store, target))
        yield outbox


def outbox_of(store: Path | Dsn, ids: tuple[str, str, str]) -> AnyOutbox:
    """An outbox in a store, not opened yet."""
    client_id, base_url = credential()
    campaign, merchant, variant = ids
    target = _Ids(campaign_id=campaign, merchant_id=merchant, variant_id=variant)
    if isinstance(store, Dsn):
        from thanx_async.outbox import PostgresOutbox  # imports asyncpg

        return PostgresOutbox(store.url, **target, client_id=client_id, base_url=base_url)
    return SQLiteOutbox(store, **target, client_id=client_id, base_url=base_url)


async def lanes(store: Path | Dsn, wanted: Wanted) -> list[RunRecord]:
    """The lanes of the credential in the store that issue what is wanted, oldest first."""
    client_id, base_url = credential()
    _check_exists(store)
    async with open_ledger(store) as ledger:
        return [
            run
            for run in await ledger.runs()
            if run.run_id.startswith(LANES)
            and (run.client_id, run.base_url) == (client_id, base_url)
            and wanted.fits(run)
        ]


def _check_exists(store: Path | Dsn) -> None:
    if isinstance(store, Path) and not store.exists():
        raise ConfigurationError(
            f"there is no outbox {store}: put guests first, with --campaign, --merchant and --variant"
        )
