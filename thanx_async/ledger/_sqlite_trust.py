"""The table of how far the webhook events of a credential can be trusted, in a ledger file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from thanx_async._batches import Trust
from thanx_async._core.sqlite import transaction
from thanx_async.ledger._sqlite_schema import explained, readable

_ADD = """
    INSERT INTO trust VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET confirmed = confirmed + excluded.confirmed,
        with_failures = with_failures + excluded.with_failures, broken = max(broken, excluded.broken)
"""
_FIND = "SELECT confirmed, with_failures, broken FROM trust WHERE base_url = ? AND client_id = ?"


class TrustTable:
    """The trust in the events of each credential, in one open ledger file."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def exchange(self, base_url: str, client_id: str, news: Trust) -> Trust:
        """See `TrustLedger.exchange_trust`."""
        with explained(self._path):
            if news != Trust():
                row = (base_url, client_id, news.confirmed, news.with_failures, int(news.broken))
                with transaction(self._db):
                    self._db.execute(_ADD, row)
            found = self._db.execute(_FIND, (base_url, client_id)).fetchone()
        if found is None:
            return Trust()
        with readable(self._path, f"the trust in events of {client_id!r}"):
            confirmed, with_failures, broken = map(int, found)
        return Trust(confirmed, with_failures, bool(broken))
