"""The runs under which the batches of `AsyncBatcher.add` are recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from thanx_async._batches import SERVICE_RUNS
from thanx_async._core.errors import ThanxError
from thanx_async._core.escaping import get_logger

if TYPE_CHECKING:
    from thanx_async.batching._batch import Batch
    from thanx_async.batching._recorder import Recorder

_log = get_logger("thanx_async.batching")


class ServiceRuns:
    """Opens a run for the batches of one opening, and another one if another process takes the run over.

    Attributes:
        current: the id of the open run, None if there is none.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self.current: str | None = None
        self._recorder = recorder
        self._opened: list[str] = []

    async def begin(self) -> None:
        """Open a run.

        Raises:
            ThanxError: the ledger failed.
        """
        run_id = f"{SERVICE_RUNS}{uuid4().hex}"
        if self._recorder is not None:
            await self._recorder.open(run_id)
        self._opened.append(run_id)
        self.current = run_id

    async def record_halves(self, halves: list[Batch]) -> None:
        """Record both halves of a batch, if there is a ledger, before either is sent.

        An error is no harm: each half is recorded again before it is sent, and its callers get that error.
        """
        if self._recorder is not None:
            try:
                await self._recorder.record_together(halves)
            except Exception as error:  # noqa: BLE001 - a ledger of the user's may raise anything
                _log.debug("the halves of a batch were not recorded together: %s", type(error).__name__)

    def lost(self, run_id: str) -> None:
        """The ledger has refused a batch of this run."""
        if self.current == run_id:
            self.current = None

    async def close(self) -> None:
        """Release all runs, including replaced ones, so that their batches in doubt can be recovered."""
        self.current = None
        for run_id in self._opened:
            try:
                if self._recorder is not None:
                    await self._recorder.close(run_id)
            except ThanxError as error:
                _log.warning("run %s could not be given back to the ledger: %s", run_id, error)
