"""Batching: reads guests from a source, cuts and sends batches, and accounts for each guest's outcome."""

from typing import TYPE_CHECKING

from thanx_async._core.lazy import lazily
from thanx_async.batching._account import RunAccount
from thanx_async.batching._batch import Batch
from thanx_async.batching._checks import check_run_id, check_sizes
from thanx_async.batching._chunker import Chunk, Chunker
from thanx_async.batching._collector import Collector
from thanx_async.batching._eta import Eta
from thanx_async.batching._guard import Guard, check_failures
from thanx_async.batching._outcomes import Outcome
from thanx_async.batching._plan import IssuancePlan, planned
from thanx_async.batching._report import (
    BatchInDoubt,
    BatchRange,
    CloseReport,
    GuestRow,
    IssuanceReport,
    NotRevoked,
    NotVerified,
    RevocationReport,
    VerificationReport,
)
from thanx_async.batching._rules import min_interval, refused_in_doubt
from thanx_async.batching._run import BatchError, IssuanceRun
from thanx_async.batching._sender import BatchSender, Send
from thanx_async.batching._source import Source
from thanx_async.batching._stream import Begin, IssuanceStream, run_to_end
from thanx_async.batching._target import Target
from thanx_async.batching._trust_sharing import share_trust

if TYPE_CHECKING:
    from thanx_async.batching._recorder import Recorder
else:
    __getattr__ = lazily(__name__, {"Recorder": "_recorder"})  # a batcher without a ledger does not load it

__all__ = [
    "Batch",
    "BatchError",
    "BatchInDoubt",
    "BatchRange",
    "BatchSender",
    "Begin",
    "Chunk",
    "Chunker",
    "CloseReport",
    "Collector",
    "Eta",
    "Guard",
    "GuestRow",
    "IssuancePlan",
    "IssuanceReport",
    "IssuanceRun",
    "IssuanceStream",
    "NotRevoked",
    "NotVerified",
    "Outcome",
    "Recorder",
    "RevocationReport",
    "RunAccount",
    "Send",
    "Source",
    "Target",
    "VerificationReport",
    "check_failures",
    "check_run_id",
    "check_sizes",
    "min_interval",
    "planned",
    "refused_in_doubt",
    "run_to_end",
    "share_trust",
]
