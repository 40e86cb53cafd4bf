"""The part of `AsyncBatcher` that services use: guests who come one by one."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, LedgerError, ServerError, TransportError
from thanx_async.batching import BatchError, CloseReport, Collector, IssuanceRun, Outcome
from thanx_async.identifiers import normalise
from thanx_async.jobs import JobHandle

if TYPE_CHECKING:
    from thanx_async.batching._recorder import Journal

_log = logging.getLogger(__name__)

_RUNS = "service-"


class MicroBatching(ABC):
    """``async with`` a batcher, and `add` guests from any number of tasks of that event loop."""

    _collector: Collector | None = None
    _journal: Journal | None

    @abstractmethod
    def _new_collector(self) -> Collector: ...

    @abstractmethod
    async def _take_up(self, run_id: str, *, decided: bool) -> IssuanceRun: ...

    async def __aenter__(self) -> Self:
        if self._collector is not None and not self._collector.is_closed:
            raise ConfigurationError("the batcher is open already: share it, or make another one")
        self._collector = self._new_collector()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, as `aclose` does. On a cancellation nothing more is sent."""
        collector = self._opened
        if error is None or isinstance(error, Exception):
            await collector.aclose(None)
        else:
            await collector.abort()
            error.add_note(f"micro-batches: {collector.report}")

    @property
    def _opened(self) -> Collector:
        if self._collector is None:
            raise ConfigurationError(
                "the batcher is not open: use it as `async with AsyncBatcher(...) as batcher`"
            )
        return self._collector

    async def add(self, identifier: object) -> JobHandle:
        """Issue a reward to one guest; returns the job of its batch once Thanx has accepted it.

        Guests of concurrent callers go out together. A guest who is added again while waiting is sent once,
        and both callers get the handle; once its batch is on its way, a further ``add`` is a further reward.
        Cancelling takes the guest out, unless somebody else has added it too or its batch is on its way.
        Waits while ``max_waiting`` guests wait.

        Args:
            identifier: what `Identifier.parse` takes.

        Raises:
            InvalidIdentifierError: at once; nobody else is concerned.
            BadRequestError: Thanx refused the batch. Where it blames a single value, the others are sent
                without it.
            BatcherClosedError: the batcher was closed; ``in_doubt`` tells whether the guest was sent.
            ThanxError: what the batch ended in, ``in_doubt`` with its ``idempotency_key`` if it was sent.
        """
        return await self._opened.add(normalise(identifier))

    async def outcome(self, identifier: object, *, timeout: float | None = None) -> Outcome:
        """Wait for the job of a guest whose `add` has returned, the latest one, and tell how it went.

        The last ``max_waiting`` accepted guests are remembered, of at most 10,000 batches. All who ask about
        one job share its polls.

        Args:
            timeout: seconds, None for as long as it takes.

        Raises:
            ConfigurationError: no such guest is remembered.
            JobTimeoutError, ThanxError: as from `JobHandle.wait`; ask again.
        """
        checks.timeout(timeout)
        return await self._opened.outcomes.of(normalise(identifier), timeout=timeout)

    async def aclose(self, *, timeout: float | None = None) -> CloseReport:
        """Take no more guests, send those who wait, without lingering, and wait for the answers.

        Args:
            timeout: seconds, 0 for none, after which nothing more is sent and what is under way is broken
                off: the callers get a `BatcherClosedError`, which is ``in_doubt`` for those who were sent.
        """
        checks.timeout(timeout)
        return await self._opened.aclose(timeout)

    async def recover(self) -> list[IssuanceRun]:
        """Send again, with the same keys and bytes, what earlier openings of a batcher for this campaign left
        in doubt in the ledger: after a crash, for one. Call it at the start of a service.

        Runs of other processes that are alive are left alone, and so is what has been in doubt for longer
        than the ledger's ``replay_within``. Whatever is left, and why, is logged as a warning; it stays in
        doubt in the ledger, and can be recovered later. A process that died in another container, or on a
        machine that has another name by now, counts as alive for 5 minutes.

        Returns:
            The runs that were taken up, as far as they were in doubt: ``run.in_doubt`` is what still is, and
            ``run.error`` what stopped it. Without an answer from Thanx the first of them is the last.

        Raises:
            ConfigurationError: the batcher has no ledger.
            LedgerError: the ledger cannot be used.
        """
        if self._journal is None:
            raise ConfigurationError(
                "to recover, AsyncBatcher needs the ledger that its batches are recorded in",
                argument="ledger",
            )
        runs = []
        for run_id in await self._journal.left_in_doubt(_RUNS):
            try:
                run = await self._take_up(run_id, decided=False)
            except LedgerError as error:
                _log.warning("run %s was not taken up: %s", run_id, error)
                continue
            except BatchError as error:
                run = error.run
            runs.append(run)
            if run.error or run.in_doubt:
                reason = run.error or "some of it is too old to be sent again; settle it"
                _log.warning("run %s is left in doubt: %s; %r", run_id, reason, run)
            if isinstance(run.error, TransportError | ServerError):
                break
        return runs

    async def begin_run(self) -> str:
        """A run under which the batches of guests who come one by one are recorded."""
        run_id = f"{_RUNS}{uuid4().hex}"
        if self._journal is not None:
            await self._journal.open(run_id)
        return run_id

    async def end_run(self, run_id: str) -> None:
        if self._journal is not None:
            await self._journal.close(run_id)
