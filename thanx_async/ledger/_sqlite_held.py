"""`HeldBatches`, the batches of lanes that are given up, and settled by hand."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from time import time
from typing import Protocol

from thanx_async._batches import BatchOutcome
from thanx_async._core.sqlite import transaction
from thanx_async.ledger import _refusals as refusals
from thanx_async.ledger._lanes import Seqs, Settlement
from thanx_async.ledger._sqlite_lanes import LaneTable
from thanx_async.ledger._sqlite_runs import RunTable
from thanx_async.ledger._sqlite_schema import explained


class OpenBatches(Protocol):
    """What is done to batches, in a transaction of the caller's."""

    def accepted(self, run_id: str, number: int, job_id: str) -> None:
        """Record that Thanx accepted a batch."""

    def finished(self, run_id: str, number: int, outcome: BatchOutcome) -> None:
        """Record the outcome of a batch."""

    def take_out(self, run_id: str, number: int) -> tuple[Seqs, bytes] | None:
        """Delete a batch in doubt."""


class HeldBatches:
    """The held batches in one open ledger file. Methods named like those of `LaneLedger` do the same."""

    def __init__(
        self, db: sqlite3.Connection, path: Path, runs: RunTable, lanes: LaneTable, batches: OpenBatches
    ) -> None:
        self._db = db
        self._path = path
        self._runs = runs
        self._lanes = lanes
        self._batches = batches

    def hold(self, run_id: str, number: int, reason: str) -> None:
        with explained(self._path), transaction(self._db):
            self._runs.renew(run_id, time())
            self._db.execute(
                "UPDATE batches SET held = ? WHERE run_id = ? AND number = ? AND state != 'finished'",
                (reason, run_id, number),
            )

    def settle(self, run_id: str, number: int, settlement: Settlement) -> None:
        with explained(self._path), transaction(self._db):
            self._check_held(run_id, number, in_doubt=not isinstance(settlement, BatchOutcome))
            if isinstance(settlement, BatchOutcome):
                self._batches.finished(run_id, number, settlement)
            elif settlement is not None:
                self._batches.accepted(run_id, number, settlement)
                self._lanes.heard(settlement)
            elif taken := self._batches.take_out(run_id, number):
                self._lanes.give_back(run_id, *taken)

    def _check_held(self, run_id: str, number: int, *, in_doubt: bool) -> None:
        row = self._db.execute(
            "SELECT state FROM batches WHERE run_id = ? AND number = ? AND held IS NOT NULL", (run_id, number)
        ).fetchone()
        if row is None or row[0] == "finished" or (in_doubt and row[0] != "in_doubt"):
            raise refusals.not_held(run_id, number)
