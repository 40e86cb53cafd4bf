"""From any number of guests to batches, jobs and outcomes: reading, cutting, sending, accounting."""

from thanx_async.batching._batch import (
    Entry,
)
from thanx_async.batching._chunker import (
    Chunker,
)
from thanx_async.batching._collector import (
    Collector,
)
from thanx_async.batching._guard import (
    Guard,
)
from thanx_async.batching._outcomes import (
    Outcome,
)
from thanx_async.batching._plan import (
    IssuancePlan,
    planned,
)
from thanx_async.batching._report import (
    BatchInDoubt,
    BatchRange,
    CloseReport,
    GuestRow,
    IssuanceReport,
    NotRevoked,
    RevocationReport,
)
from thanx_async.batching._run import (
    BatchError,
    IssuanceRun,
)
from thanx_async.batching._source import (
    Source,
)
from thanx_async.batching._stream import (
    IssuanceStream,
)

__all__ = [
    "BatchError",
    "BatchInDoubt",
    "BatchRange",
    "Chunker",
    "CloseReport",
    "Collector",
    "Entry",
    "Guard",
    "GuestRow",
    "IssuancePlan",
    "IssuanceReport",
    "IssuanceRun",
    "IssuanceStream",
    "NotRevoked",
    "Outcome",
    "RevocationReport",
    "Source",
    "planned",
]
