"""Checks of the arguments of `AsyncBatcher`."""

from __future__ import annotations

from thanx_async._core import checks
from thanx_async.identifiers import MAX_BATCH


def check_run_id(run_id: str | None) -> None:
    """Check the id that a caller gives a run; None for a new one."""
    if run_id is not None and not checks.text("run_id", run_id).isprintable():
        raise checks.wrong("run_id", "has a character that cannot be shown")


def check_sizes(batch_size: int, max_concurrency: int | None, linger: float, max_waiting: int) -> None:
    """Check the numbers that a batcher works with."""
    checks.number("batch_size", batch_size, 1, MAX_BATCH, whole=True)
    if max_concurrency is not None:
        checks.number("max_concurrency", max_concurrency, 1, whole=True)
    checks.number("linger", linger, 0)
    checks.number("max_waiting", max_waiting, 1, whole=True)
