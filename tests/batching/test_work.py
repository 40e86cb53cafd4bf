"""Work grows with what has happened, not with what is kept: counted in calls and objects."""

import asyncio
import gc
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

import orjson
import pytest

import thanx_async
from tests.helpers import FAST, LOST, TARGET, USUAL, batcher, guests, impatient, recording
from thanx_async import AsyncBatcher, BatchError, Guard, IssuanceRun
from thanx_async._batches import BatchOutcome
from thanx_async._core.columns import GrowingNumbered, Numbered
from thanx_async.batching import Chunker, RunAccount
from thanx_async.batching._batch import Batch
from thanx_async.emulator import Emulator, Faults, JobSpeed
from thanx_async.http import wire

T = TypeVar("T")

BATCHING = str(Path(thanx_async.__file__).parent / "batching")
FAILED = [(index, "User not found") for index in range(10_000)]


def calls(work: Callable[[], T]) -> tuple[int, T]:
    """How many functions of any kind are entered, generators at each step."""
    count = 0

    def see(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(see)
    try:
        result = work()
    finally:
        sys.setprofile(None)
    return count, result


def settled_run(jobs: int, failures: int) -> IssuanceRun:
    """A run whose jobs have all ended with failures."""
    account = RunAccount("march", Chunker(failures, deduplicate=False))
    for chunk in account.chunker.feed(guests(jobs * failures)):
        batch = Batch(chunk, "march")
        account.add([batch])
        batch.settle(BatchOutcome("completed", 0, FAILED[:failures]))
    return IssuanceRun(account)


async def calls_of_a_guarded_run(batches: int) -> int:
    """The calls in the batching of a run of that many batches, and of its guard."""
    count = 0

    def see(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(BATCHING)

    async with Emulator(limits=[], speed=JobSpeed(1000, 0.1)) as emulator, impatient(emulator.url) as client:
        guard = Guard(max_rewards=10_000, max_failure_rate=0.5)
        sender = AsyncBatcher(client, **TARGET, batch_size=1, max_concurrency=4, guard=guard)
        sys.setprofile(see)
        try:
            run = await sender.issue(guests(batches))
        finally:
            sys.setprofile(None)
        assert len(run.handles) == batches
    return count


async def test_a_guard_does_not_walk_all_batches() -> None:
    """Twice as many batches are about twice the work."""
    few, many = await calls_of_a_guarded_run(250), await calls_of_a_guarded_run(500)
    assert many < 2.3 * few


async def test_a_failure_is_no_object() -> None:
    """A job of 10,000 failures gives the garbage collector next to nothing to walk."""
    failures = [
        {"identifier_index": index, "identifier_type": "email", "error": error} for index, error in FAILED
    ]
    job = {
        "id": "job1",
        "state": "completed",
        "summary": {"success_count": 0, "failure_count": 10_000, "failures": failures},
    }
    text = orjson.dumps({"issuance_job": job})
    account = RunAccount("march", Chunker())
    (chunk,) = account.chunker.feed(guests(10_000))
    batch = Batch(chunk, "march")
    gc.collect()
    before = len(gc.get_objects())
    decoded = wire.decode_job(orjson.loads(text))
    assert decoded.summary is not None
    batch.settle(BatchOutcome("completed", 0, decoded.summary.failures.errors))
    account.add([batch])
    report = account.report()
    gc.collect()
    assert len(gc.get_objects()) - before < 200
    assert len(report.failed) == len(decoded.summary.failures) == 10_000
    assert report.failed[-1].identifier == "guest9999@example.com"


async def test_a_report_makes_no_rows() -> None:
    """The calls of a report grow with the batches, not with the failures; those of a repr with neither."""
    few, many, more = settled_run(10, 10), settled_run(10, 1000), settled_run(1000, 10)
    for run in (few, many, more):
        run.report()
    assert calls(few.report)[0] == calls(many.report)[0]
    assert len({calls(run.__repr__)[0] for run in (few, many, more)}) == 1
    assert repr(many) == repr(more) == "<IssuanceRun march: 10,000 failed>"


async def test_the_sums_are_the_report() -> None:
    """At every moment of a run with trouble, what a repr counts is what the report counts."""
    seen: set[str] = set()

    def check(run: IssuanceRun) -> None:
        counts = run._account.counts()
        assert counts == run.report().counts
        seen.update(fate for fate, count in counts.items() if count)

    async with (
        Emulator(limits=[], speed=FAST, faults=Faults(seed=3, job_fails=0.3)) as emulator,
        impatient(emulator.url) as client,
    ):
        emulator.script(*[USUAL] * 8, LOST)
        sender = AsyncBatcher(client, **TARGET, batch_size=10, max_concurrency=2, on_progress=check)
        unknown = [f"unknown{number}@example.com" for number in range(50)]
        with pytest.raises(BatchError) as caught:
            await sender.issue(["junk", "guest1@example.com", *guests(30), *unknown, *guests(200, start=30)])
        await caught.value.run.wait()
        check(caught.value.run)
    assert seen == {"issued", "failed", "rejected", "duplicates", "unsent", "in_doubt", "unfinished"}


async def test_a_job_that_ended_settles_its_batch() -> None:
    """A repr is up to date although nobody has asked for a report, whoever polled the job."""
    async with Emulator(limits=[], speed=FAST) as emulator, impatient(emulator.url) as client:
        run = await batcher(client).issue([*guests(9), "unknown@example.com"])
        assert "10 unfinished" in repr(run)
        await run.handles[0]
        assert repr(run) == f"<IssuanceRun {run.run_id}: 9 issued, 1 failed>"


async def test_a_restored_run_counts_on() -> None:
    """A run that was pickled while it stood has the same counts."""
    async with Emulator(limits=[], speed=FAST) as emulator, impatient(emulator.url) as client:
        run = await recording(client, None).issue(["junk", *guests(25), "unknown@example.com"])
        await run.handles[0]
        restored = pickle.loads(pickle.dumps(run))  # noqa: S301 - its own
        assert restored.report().counts["unfinished"] == 26  # its handles have no client
        run.report()
        restored = pickle.loads(pickle.dumps(run))  # noqa: S301 - its own
    assert repr(restored) == repr(run)
    assert restored.report() == run.report()


def test_a_report_is_a_snapshot() -> None:
    """Rows that come later are not in it."""
    account = RunAccount("march", Chunker())
    account.chunker.feed(["junk", *guests(2), "guest1@example.com"])
    report = account.report()
    account.chunker.feed(["trash", "guest0@example.com"])
    assert (len(report.rejected), len(list(report.rejected)), len(report.duplicates)) == (1, 1, 1)
    assert len(account.report().rejected) == 2


async def test_rows_are_a_sequence() -> None:
    """Places, slices and comparisons work as in a list."""
    report = settled_run(3, 4).report()
    rows = list(report.failed)
    assert [row.position for row in rows] == list(range(12))
    assert report.failed == rows
    assert report.failed != rows[1:]
    assert (report.failed[5], report.failed[-1]) == (rows[5], rows[-1])
    assert list(report.failed[3:9:2]) == rows[3:9:2]
    assert rows[7] in report.failed
    with pytest.raises(IndexError):
        report.failed[12]
    assert repr(report.failed) == "<12 rows>"
    assert pickle.loads(pickle.dumps(report)) == report  # noqa: S301 - its own


def test_numbered_pairs() -> None:
    """Pairs keep their order, and sorted ones are found by their number, the last of several."""
    growing = GrowingNumbered([(5, "b"), (2, "a"), (5, "a")])
    pairs = growing.view()
    growing.append(7, "c")
    assert list(pairs) == [(5, "b"), (2, "a"), (5, "a")]
    found = pairs.by_number()
    assert list(found) == [(2, "a"), (5, "a")]
    assert [found.get(number) for number in (1, 2, 5, 7)] == [None, "a", "a", None]
    assert hash(found) == hash(Numbered.of(found)) == hash(((2, "a"), (5, "a")))


async def test_a_guarded_run_is_settled_while_it_waits() -> None:
    """The sums of the guard follow the jobs to their end, and nothing is left that could have a reward."""
    async with Emulator(limits=[], speed=FAST) as emulator, impatient(emulator.url) as client:
        sender = recording(client, None, guard=Guard(max_rewards=30))
        run = await sender.issue(["unknown@example.com", *guests(29)])
        await asyncio.gather(*run.handles)
        await asyncio.sleep(0)
        assert run._account.tally.sum.possible == 29
