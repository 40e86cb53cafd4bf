"""Shares with the ledger how far webhook events can be trusted, so that a new process does not begin anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thanx_async._batches import Trust
from thanx_async._core.errors import ThanxError

if TYPE_CHECKING:
    from thanx_async.jobs import EventTrust
    from thanx_async.ledger import Ledger, RunRecord


async def share_trust(ledger: Ledger, trust: EventTrust, run: RunRecord) -> None:
    """Record what was learned about the events of a run's credential, and take in what others have.

    A ledger that is not a `TrustLedger` is left alone.

    Raises:
        LedgerError: the ledger failed.
    """
    from thanx_async.ledger import TrustLedger  # loaded already, with the ledger

    if not isinstance(ledger, TrustLedger):
        return
    news = trust.take_news()
    try:
        known = await ledger.exchange_trust(run.base_url, run.client_id, news)
    except ThanxError as error:
        # Confirmations that may have been recorded must not count twice.
        trust.keep(Trust(broken=news.broken) if error.in_doubt else news)
        raise
    trust.adopt(known)
