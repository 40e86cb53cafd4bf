"""The runs under which the batches of `AsyncBatcher.add` are recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from thanx_async._batches import SERVICE_RUNS
from thanx_async._core.errors import ThanxError
from thanx_async._core.escaping import get_logger

if TYPE_CHECKING:
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
