"""What was sent, written down before it is sent, so that nothing is issued twice and nobody is forgotten."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from thanx_async._batches import BatchOutcome
from thanx_async.ledger._records import BatchRecord, RunRecord

if TYPE_CHECKING:
    pass

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Ledger(Protocol):
    """Where runs are recorded. `SQLiteLedger` is one; a store of your own needs these methods.

    Each method is durable when it returns. It raises `LedgerError` when it fails, one that is ``in_doubt``
    where a batch may be found recorded later all the same. It runs to its end even if its caller is
    cancelled meanwhile (the cancellation goes on after that; a cancelled `claim` is given back). A batch's
    state never goes back: in doubt, accepted, finished.
    """

    @property
    def replay_within(self) -> float:
        """Seconds after which a batch in doubt is not sent again by itself."""

    async def claim(self, run: RunRecord) -> RunRecord:
        """Take a run for this caller alone, until `release`; returns it as recorded.

        An unknown run is recorded, and so are new settings of one that has no batches. A known one is
        refused when it has batches and its settings differ (`RunRecord.differences`), or while another has
        it; who that is may be judged by a lease. A run stays revoked, whoever saves it.
        """

    async def release(self, run_id: str) -> None:
        """Let others claim the run."""

    async def run(self, run_id: str) -> RunRecord | None:
        """One run, None if it is unknown."""

    async def runs(self) -> list[RunRecord]:
        """All runs, oldest first."""

    async def save_run(self, run: RunRecord) -> None:
        """Write down ``total``, ``batches`` and ``revoked_at``."""

    async def batches(self, run_id: str) -> list[BatchRecord]:
        """A run's batches by number."""

    async def in_doubt(self) -> list[BatchRecord]:
        """The batches in doubt of all runs, oldest first."""

    async def body(self, run_id: str, number: int) -> bytes:
        """The bytes of a batch in doubt."""

    async def record(self, batch: BatchRecord, body: bytes) -> BatchRecord:
        """Write down, with its bytes, a batch of a claimed run that is about to be sent.

        Returns what is recorded under its number: the same, or what was there before. After an error that is
        not in doubt it is certainly not recorded.
        """

    async def accept(self, run_id: str, number: int, job_id: str) -> None:
        """A batch in doubt was accepted as this job; its bytes are deleted."""

    async def finish(self, run_id: str, outcomes: Mapping[int, BatchOutcome]) -> None:
        """The outcomes of batches by number; bytes still kept are deleted."""

    async def withdraw(self, run_id: str, number: int) -> None:
        """A batch in doubt was certainly not issued; it is forgotten, with its bytes.

        Refused where another has taken the run over, who may be sending it.
        """
