"""What every ledger does, wherever it is stored: on the real clock."""
# ruff: noqa: S608 - the statements are the tests' own

import asyncio
import gc
import os
import pickle
import socket
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time
from typing import Any

import attrs
import pytest

from tests.helpers import guests, recording, until
from tests.ledger.stores import AnyLedger, Place, PostgresPlace, SQLitePlace
from tests.ledger.test_store import BODY, RUN, batch, cut
from tests.servers import PASSWORD, PostgresServer
from thanx_async import BatchError, ConfigurationError, LedgerError, ThanxClient
from thanx_async._batches import SERVICE_RUNS
from thanx_async.emulator import Emulator
from thanx_async.errors import LeaseError
from thanx_async.ledger import (
    BatchOutcome,
    BatchRecord,
    BatchState,
    EndedJob,
    RelayLedger,
    RunProgress,
    Trust,
    TrustLedger,
    digest_of,
)
from thanx_async.ledger._owner import Owner
from thanx_async.postgres import init

pytestmark = pytest.mark.realtime
DONE = BatchOutcome("completed", 2, ((1, "User not found"),))
SERVICE = attrs.evolve(RUN, run_id=f"{SERVICE_RUNS}{'0' * 32}")
APRIL = attrs.evolve(RUN, run_id="april")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("_sqlite_history", "_postgres_history"):
        monkeypatch.setattr(f"thanx_async.ledger.{backend}._CHUNK", 3)


@pytest.fixture(params=["sqlite", "postgres"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for a ledger of each kind, where nothing was recorded."""
    if request.param == "sqlite":
        return SQLitePlace(tmp_path)
    server: PostgresServer = request.getfixturevalue("postgres")
    name: str = request.getfixturevalue("database")
    await init(server.dsn(name))
    return PostgresPlace(server, name)


@pytest.fixture
async def ledger(place: Place) -> AsyncIterator[AnyLedger]:
    async with place.ledger() as opened:
        yield opened


def of(run_id: str, number: int) -> BatchRecord:
    return attrs.evolve(batch(number), run_id=run_id)


async def only(ledger: AnyLedger) -> BatchRecord:
    [found] = await ledger.batches(RUN.run_id)
    return found


async def sent(ledger: AnyLedger, run_id: str, batches: int, *, finished: int) -> None:
    """A run with so many batches, the first of which are finished, the others in doubt."""
    await ledger.claim(attrs.evolve(RUN, run_id=run_id))
    for number in range(batches):
        await ledger.record(of(run_id, number), BODY)
        if number < finished:
            await ledger.accept(run_id, number, f"{run_id}-{number}")
    await ledger.finish(run_id, dict.fromkeys(range(finished), DONE))


async def test_a_batch_and_its_states(ledger: AnyLedger) -> None:
    """A batch is in doubt with its bytes, then accepted, then finished, and never goes back."""
    created = await ledger.claim(RUN)
    assert attrs.evolve(created, created_at=0, changed_at=0) == RUN
    recorded = await ledger.record(batch(), BODY)
    assert await only(ledger) == recorded
    assert list(recorded.positions) == [1, 4, 5]
    assert (recorded.state, recorded.job()) == (BatchState.IN_DOUBT, None)
    assert await ledger.body("march", 0) == BODY
    assert await ledger.record(batch(), BODY) == recorded
    assert await ledger.record(batch(body=b"other"), b"other") == recorded
    await ledger.accept("march", 0, "job1")
    await ledger.accept("march", 0, "job1")
    await ledger.withdraw("march", 0)
    await ledger.finish("march", {0: DONE})
    await ledger.accept("march", 0, "job1")
    found = await only(ledger)
    assert (found.state, found.job_id, found.outcome) == (BatchState.FINISHED, "job1", DONE)
    job = found.job()
    assert job is not None
    assert (job.success_count, job.failure_count, job.is_finished) == (2, 1, True)


async def test_several_batches_at_once(place: Place, ledger: AnyLedger) -> None:
    """Several batches are recorded in one transaction: all of them, or none. Known ones stay as they are."""
    await ledger.claim(RUN)
    await ledger.record(batch(), BODY)
    await ledger.accept("march", 0, "job")
    first, second = await ledger.record_all([(batch(), BODY), (batch(1), BODY)])
    assert (first.state, first.job_id) == (BatchState.ACCEPTED, "job")
    assert (second.key, second.state) == ("key-1", BatchState.IN_DOUBT)
    assert await ledger.batches("march") == [first, second]
    assert await ledger.body("march", 1) == BODY
    with pytest.raises(LedgerError):
        await ledger.record_all([(batch(2), BODY), (of("april", 0), BODY)])  # not claimed
    async with place.ledger() as other:
        assert await other.batches("march") == [first, second]


async def test_two_jobs_for_one_batch_are_an_alarm(ledger: AnyLedger) -> None:
    """A key that Thanx had forgotten shows itself by a second job, and is reported."""
    await ledger.claim(RUN)
    await ledger.record(batch(), BODY)
    await ledger.accept("march", 0, "job1")
    with pytest.raises(LedgerError, match=r"is job job1, and was now accepted as job job2 too"):
        await ledger.accept("march", 0, "job2")
    with pytest.raises(LedgerError, match="not recorded any more"):
        await ledger.accept("march", 7, "job2")


async def test_bytes_go_with_the_doubt(ledger: AnyLedger) -> None:
    """Bytes are kept for as long as the batch is in doubt, whatever ends the doubt."""
    await ledger.claim(RUN)
    for number in range(3):
        await ledger.record(batch(number), BODY)
    assert await ledger.body("march", 2) == BODY
    await ledger.accept("march", 0, "job1")
    await ledger.withdraw("march", 1)
    await ledger.finish("march", {2: BatchOutcome("refused", 0)})
    for number in range(3):
        with pytest.raises(LedgerError, match=f"bytes of batch {number} of run 'march' are not in"):
            await ledger.body("march", number)
    assert [row.number for row in await ledger.batches("march")] == [0, 2]


async def test_a_large_batch(ledger: AnyLedger) -> None:
    """A full batch of long addresses with gaps between them is read as it was written."""
    items = [item for number in range(10_000) for item in (f"{'x' * 60}{number}@example.com", "junk")]
    body = bytes(range(256)) * 12_000
    large = attrs.evolve(batch(body=body), positions=cut(list[object](items)))
    await ledger.claim(RUN)
    recorded = await ledger.record(large, body)
    assert await only(ledger) == recorded
    assert list(recorded.positions) == list(range(0, 20_000, 2))
    assert await ledger.body("march", 0) == body
    assert digest_of(body) == recorded.digest


async def test_reasons_of_any_text(ledger: AnyLedger) -> None:
    """Whatever text Thanx gives as a reason is kept, and runs can still be counted."""
    outcome = BatchOutcome("completed", 1, ((0, "a\0b"), (2, 'é "\U0001f600" \\u0000 \u2028')))
    await sent(ledger, "march", 1, finished=0)
    await ledger.accept("march", 0, "job1")
    await ledger.finish("march", {0: outcome})
    assert (await only(ledger)).outcome == outcome
    [row] = await ledger.progress()
    assert (row.issued, row.to_take_back) == (1, 1)


async def test_runs_are_counted_by_the_store(ledger: AnyLedger) -> None:
    """Its counts are those of the batches, for every state, and a job leads to its batch."""
    await sent(ledger, "march", 4, finished=2)
    await ledger.accept("march", 2, "job3")
    await ledger.finish("march", {1: BatchOutcome("revoked", 0)})
    await ledger.claim(APRIL)
    assert [run.run_id for run in await ledger.runs()] == ["march", "april"]
    march, april = await ledger.progress()
    assert april == RunProgress(april.run, 0, 0, 0, 0, 0)
    assert march == RunProgress(march.run, in_doubt=1, accepted=1, finished=2, issued=2, to_take_back=2)
    assert march == RunProgress.of(march.run, await ledger.batches("march"))
    batch_of_job = await ledger.batch_of("job3")
    assert batch_of_job is not None
    assert (batch_of_job.number, batch_of_job.state) == (2, BatchState.ACCEPTED)
    assert await ledger.batch_of("nobody's") is None
    assert await ledger.run("nobody's") is None


async def test_doubts_of_all_runs(ledger: AnyLedger) -> None:
    """Batches in doubt are found in the order in which they were recorded, whatever their run."""
    await ledger.claim(RUN)
    await ledger.claim(APRIL)
    for run_id, number in (("april", 5), ("march", 7), ("april", 6), ("march", 8)):
        await ledger.record(of(run_id, number), BODY)
    await ledger.accept("march", 7, "job1")
    found = [(row.run_id, row.number) for row in await ledger.in_doubt()]
    assert found == [("april", 5), ("april", 6), ("march", 8)]


async def test_a_run_that_changes_hands(place: Place) -> None:
    """A claim holds against others until it is given back, and whoever does not hold it records nothing."""
    async with place.ledger() as one, place.ledger() as two:
        await one.claim(RUN)
        with pytest.raises(LeaseError, match=f"by process {os.getpid()} on {socket.gethostname()}"):
            await two.claim(RUN)
        with pytest.raises(
            LeaseError, match=r"\(this process\)\. Another batcher, drain or ledger of this process"
        ):
            await one.claim(RUN)
        with pytest.raises(LeaseError, match="taken over"):
            await two.record(batch(), BODY)
        await two.release("march")
        await one.record(batch(), BODY)
        await one.release("march")
        await two.claim(RUN)
        with pytest.raises(LeaseError, match="taken over by another process"):
            await one.record(batch(1), BODY)
    async with place.ledger() as three:
        await three.claim(RUN)


async def test_a_lease_that_has_run_out(place: Place) -> None:
    """Another process goes on with the run, and the one that had it changes nothing that the other sends."""
    async with place.ledger() as one, place.ledger() as two:
        await one.claim(RUN)
        await one.record(batch(), BODY)
        await expire(place)
        await two.claim(RUN)
        for refused in (one.record(batch(1), BODY), one.withdraw("march", 0)):
            with pytest.raises(LeaseError, match="taken over by another process"):
                await refused
        await one.release("march")
        assert [row.state for row in await two.batches("march")] == [BatchState.IN_DOUBT]
        await two.withdraw("march", 0)
        assert await two.batches("march") == []


async def test_claims_at_the_same_time(place: Place) -> None:
    """Of any number of processes that claim a new run one gets it, and the others are told."""
    ledgers = [place.ledger() for _ in range(6)]
    for one in ledgers:
        await one.__aenter__()
    results = await asyncio.gather(*[one.claim(RUN) for one in ledgers], return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == [*["LeaseError"] * 5, "RunRecord"]
    for one in ledgers:
        await one.aclose()


async def expire(place: Place) -> None:
    """Let all leases run out."""
    past = "0" if isinstance(place, SQLitePlace) else "clock_timestamp() - interval '1 s'"
    await place.sql(f"UPDATE thanx.runs SET owned_until = {past}")


async def test_a_run_stays_revoked(place: Place, ledger: AnyLedger) -> None:
    """A process that has lost its run, and saves it as it was, does not unsay a revocation."""
    mine = await ledger.claim(RUN)
    await expire(place)
    async with place.ledger() as other:
        await other.save_run(attrs.evolve(await other.claim(RUN), revoked_at=5.0))
        await ledger.save_run(attrs.evolve(mine, total=10, batches=1))
        found = await other.run("march")
    assert found is not None
    assert (found.total, found.batches, found.revoked_at) == (10, 1, 5.0)
    assert found.changed_at >= mine.changed_at


async def test_claims_are_renewed(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long nothing is recorded, a run stays with its process; a beat that fails is not the last."""
    monkeypatch.setattr("thanx_async.ledger._sqlite._RENEWS_EVERY", 0.01)
    monkeypatch.setattr("thanx_async.ledger._postgres._RENEWS_EVERY", 0.01)
    in_a_while = "9e9" if isinstance(place, SQLitePlace) else "'2100-01-01'"
    is_renewed = f"SELECT count(*) FROM thanx.runs WHERE run_id = 'march' AND owned_until < {in_a_while}"
    async with place.ledger() as ledger:
        await ledger.claim(RUN)
        await ledger.claim(APRIL)
        await place.sql("UPDATE thanx.runs SET owner = 'someone else 1 p c' WHERE run_id = 'april'")
        await place.sql("ALTER TABLE thanx.runs RENAME COLUMN owned_until TO hidden")
        await until(lambda: "leases of runs were not renewed" in caplog.text)
        await place.sql("ALTER TABLE thanx.runs RENAME COLUMN hidden TO owned_until")
        await place.sql(f"UPDATE thanx.runs SET owned_until = {in_a_while}")
        while await place.sql(is_renewed) != "1":
            await asyncio.sleep(0.01)
        assert await place.sql(is_renewed.replace("march", "april")) == "0"


@pytest.mark.parametrize(
    ("owner", "dead"),
    [
        (Owner.new(), False),
        (attrs.evolve(Owner.new(), process="earlier"), True),
        (attrs.evolve(Owner.new(), pid=2**22 + 1), True),
        (attrs.evolve(Owner.new(), pid=1, process="init"), False),
        (attrs.evolve(Owner.new(), host="elsewhere", pid=2**22 + 1), False),
    ],
)
async def test_only_the_dead_lose_a_claim(
    ledger: AnyLedger, place: Place, owner: Owner, *, dead: bool
) -> None:
    """A claim of a process that is certainly gone is taken over at once, any other is respected."""
    assert Owner.unpacked(owner.packed()) == owner
    await ledger.claim(RUN)
    await ledger.release("march")
    later = "9e9" if isinstance(place, SQLitePlace) else "clock_timestamp() + interval '20 s'"
    await place.sql(f"UPDATE thanx.runs SET owner = '{owner.packed()}', owned_until = {later}")
    if dead:
        await ledger.claim(RUN)
    else:
        with pytest.raises(LeaseError, match=r"try again in \d+ s"):
            await ledger.claim(RUN)


async def test_settings_are_kept(ledger: AnyLedger) -> None:
    """A run takes over new settings only while it has no batches and was not revoked."""
    other = attrs.evolve(RUN, campaign_id="camp2", canary=3)
    for run in (RUN, other, other, RUN):
        claimed = await ledger.claim(run)
        assert attrs.evolve(claimed, created_at=0, changed_at=0) == run
        await ledger.release("march")
    await ledger.claim(RUN)
    await ledger.record(batch(), BODY)
    await ledger.release("march")
    with pytest.raises(LedgerError, match=r"other settings: campaign_id 'camp2' instead of 'camp'\. Nothing"):
        await ledger.claim(other)
    assert (await ledger.claim(attrs.evolve(RUN, canary=5))).canary is None
    april = await ledger.claim(APRIL)
    await ledger.save_run(attrs.evolve(april, revoked_at=5.0))
    await ledger.release("april")
    with pytest.raises(LedgerError, match="other settings"):
        await ledger.claim(attrs.evolve(other, run_id="april"))
    assert (await ledger.claim(APRIL)).revoked_at == 5.0


async def test_complete_runs_are_forgotten(place: Place) -> None:
    """After its time a complete run is gone, and its id is refused, since issuing it again would be a second
    reward for everybody."""
    async with place.ledger() as ledger:
        await sent(ledger, "march", 10, finished=10)
        await ledger.save_run(attrs.evolve(RUN, total=10, batches=10))
    async with place.ledger() as ledger:
        assert len(await ledger.runs()) == 1
    async with place.ledger(keep_for=0) as ledger:
        await gone(place, "runs")
        assert await ledger.progress() == []
        assert await ledger.run("march") is None
        assert await place.sql("SELECT count(*) FROM thanx.batches") == "0"
        with pytest.raises(LedgerError, match=r"'march' was complete on 20.*give another run_id"):
            await ledger.claim(RUN)
    assert await place.sql("SELECT count(*) FROM thanx.runs") == "0"


async def gone(place: Place, table: str) -> None:
    """Wait until a table is empty."""
    async with asyncio.timeout(60):
        while await place.sql(f"SELECT count(*) FROM thanx.{table}") != "0":
            await asyncio.sleep(0.02)


async def forgotten(place: Place, keep_for: float) -> None:
    """Open a ledger, and wait until it has deleted what is old enough; a complete run shows that it has."""
    async with place.ledger() as ledger:
        await sent(ledger, "shown", 1, finished=1)
        await ledger.save_run(attrs.evolve(RUN, run_id="shown", total=10, batches=1))
    await place.sql("UPDATE thanx.runs SET changed_at = 0 WHERE run_id = 'shown'")
    async with place.ledger(keep_for=keep_for):
        async with asyncio.timeout(60):
            while await place.sql("SELECT count(*) FROM thanx.runs WHERE run_id = 'shown'") != "0":
                await asyncio.sleep(0.02)
    await place.sql("DELETE FROM thanx.forgotten WHERE run_id = 'shown'")


async def test_what_is_not_complete_is_kept(place: Place) -> None:
    """Whoever goes on with a run needs all of its batches, the finished ones too, however old they are."""
    async with place.ledger() as ledger:
        await sent(ledger, "unsent", 2, finished=2)
        await sent(ledger, "doubtful", 2, finished=1)
        await ledger.save_run(attrs.evolve(RUN, run_id="doubtful", total=10, batches=2))
        await sent(ledger, "short", 2, finished=2)
        await ledger.save_run(attrs.evolve(RUN, run_id="short", total=10, batches=3))
        await sent(ledger, "claimed", 2, finished=2)
        await ledger.save_run(attrs.evolve(RUN, run_id="claimed", total=10, batches=2))
        for run_id in ("unsent", "doubtful", "short"):
            await ledger.release(run_id)
        await forgotten(place, 0)
        left = {run.run_id for run in await ledger.runs()}
        assert left == {"unsent", "doubtful", "short", "claimed"}
    assert await place.sql("SELECT count(*) FROM thanx.batches") == "8"


async def test_services_forget_as_they_go(place: Place) -> None:
    """Of a service that runs on, finished batches go after their time, and what is in doubt stays; once the
    service is over and nothing is left, its run goes."""
    async with place.ledger() as ledger:
        await sent(ledger, SERVICE.run_id, 10, finished=10)
        await ledger.record(of(SERVICE.run_id, 10), BODY)
        old = time() - 100
        await place.sql(f"UPDATE thanx.runs SET created_at = {old}, changed_at = {old}")
        await place.sql(f"UPDATE thanx.batches SET recorded_at = {old} WHERE number <> 9")
        await forgotten(place, 50)
        assert [row.number for row in await ledger.batches(SERVICE.run_id)] == [9, 10]
        await ledger.withdraw(SERVICE.run_id, 10)
        await place.sql(f"UPDATE thanx.batches SET recorded_at = {old}")
    async with place.ledger(keep_for=50):
        await gone(place, "runs")


async def test_it_forgets_by_the_hour(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that stays open goes on forgetting."""
    for backend in ("_sqlite", "_postgres"):
        monkeypatch.setattr(f"thanx_async.ledger.{backend}._RENEWS_EVERY", 0.01)
        monkeypatch.setattr(f"thanx_async.ledger.{backend}._FORGETS_EVERY", 0.02)
    async with place.ledger(keep_for=0) as ledger:
        await sent(ledger, "march", 2, finished=2)
        await ledger.save_run(attrs.evolve(RUN, total=10, batches=2))
        await ledger.release("march")
        await gone(place, "runs")


@pytest.mark.parametrize("name", ["keep_for", "replay_within"])
@pytest.mark.parametrize("value", [-1, "90", None, timedelta(days=-1)])
async def test_a_time_that_cannot_be(place: Place, name: str, value: Any) -> None:
    """An impossible time is refused by name."""
    with pytest.raises(ConfigurationError, match=f"{name} must be a number from 0"):
        place.ledger(**{name: value})


async def test_cancelled_work_is_done_all_the_same(ledger: AnyLedger) -> None:
    """A cancellation waits for the write under way; a claim that nobody gets is given back."""
    await ledger.claim(RUN)
    task = asyncio.create_task(ledger.record(batch(), BODY))
    await asyncio.sleep(0)
    task.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await ledger.batches("march")) == 1
    await ledger.release("march")
    claiming = asyncio.create_task(ledger.claim(RUN))
    await asyncio.sleep(0)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    await ledger.claim(RUN)


async def test_another_loop_is_refused(ledger: AnyLedger) -> None:
    """Who uses a ledger from another thread's loop is told so at once, and the ledger goes on."""
    await ledger.claim(RUN)
    errors: list[ConfigurationError] = []

    async def use() -> None:
        with pytest.raises(ConfigurationError) as caught:
            await ledger.record(batch(), BODY)
        errors.append(caught.value)
        with pytest.raises(ConfigurationError, match="belongs to it"):
            async with ledger:
                pass

    thread = threading.Thread(target=asyncio.run, args=[use()])
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "the ledger is open on another event loop" in str(errors[0])
    assert await ledger.batches("march") == []
    await ledger.record(batch(), BODY)


async def test_blocks_may_be_nested(place: Place) -> None:
    """An inner block, also one that begins while the outer one is opening, closes nothing for the outer."""
    ledger = place.ledger()

    async def use() -> int:
        async with ledger:
            return len(await ledger.runs())

    async with ledger:
        assert await use() == 0
        await ledger.claim(RUN)
    assert list(await asyncio.gather(use(), use())) == [1, 1]
    with pytest.raises(ConfigurationError, match="not open: use it as `async with"):
        await ledger.runs()


async def test_it_can_be_opened_again(place: Place) -> None:
    """After closing it opens anew, its claims are free, and closing twice does no harm."""
    ledger = place.ledger()
    for _ in range(2):
        await ledger.__aenter__()
        await ledger.claim(RUN)
        await ledger.aclose()
        await ledger.aclose()
    async with ledger:
        assert len(await ledger.runs()) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of the loop's connections
async def test_after_a_dead_loop(place: Place) -> None:
    """A ledger whose loop was closed says so, and opens anew on another, where its claims are free."""
    ledger = place.ledger()

    async def begin() -> None:
        await ledger.__aenter__()
        await ledger.claim(RUN)

    async def again() -> None:
        with pytest.raises(ConfigurationError, match="event loop that is closed: open it again"):
            await ledger.runs()
        async with ledger:
            await ledger.claim(RUN)

    await asyncio.to_thread(asyncio.run, begin())
    await asyncio.to_thread(asyncio.run, again())
    gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("by_hand", [True, False])
async def test_a_forked_child_takes_nothing_away(place: Place, ledger: AnyLedger, *, by_hand: bool) -> None:
    """A child that inherits an open ledger cannot use it, and closing it there leaves the parent its claims
    and its bytes."""
    await ledger.claim(RUN)
    await ledger.record(batch(), BODY)
    child = os.fork()
    if child == 0:
        try:
            asyncio.events._set_running_loop(None)
            asyncio.run(_as_a_child(ledger, by_hand=by_hand))
        except BaseException:  # noqa: BLE001 - told by the exit status
            os._exit(1)
        os._exit(0)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert status == 0
    async with place.ledger() as other:
        with pytest.raises(LeaseError, match="being worked on by process"):
            await other.claim(RUN)
    assert await ledger.body("march", 0) == BODY
    await ledger.record(batch(1), BODY)


async def _as_a_child(ledger: AnyLedger, *, by_hand: bool) -> None:
    with pytest.raises(ConfigurationError, match="before this process was forked"):
        await ledger.runs()
    await (ledger.aclose() if by_hand else ledger.__aexit__(None, None, None))
    async with ledger:
        assert len(await ledger.runs()) == 1
        with pytest.raises(
            LeaseError, match=r"being worked on by process \d+ on \S+\. If that process is gone"
        ):
            await ledger.claim(RUN)


async def test_a_cancelled_opening(place: Place) -> None:
    """Who is cancelled while opening has no ledger, and can open it again."""
    ledger = place.ledger()
    task = asyncio.create_task(ledger.__aenter__())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "not open" in repr(ledger)
    async with ledger:
        assert await ledger.runs() == []


async def test_what_it_tells_of_itself(place: Place) -> None:
    """Its repr names the store without a password, and it says why it cannot be pickled."""
    ledger = place.ledger()
    assert repr(ledger).endswith(" (not open)>")
    assert PASSWORD not in repr(ledger)
    async with ledger:
        assert "not open" not in repr(ledger)
    with pytest.raises(ConfigurationError, match="give each process its"):
        pickle.dumps(ledger)


async def test_from_one_process_to_the_next(place: Place, emulator: Emulator, client: ThanxClient) -> None:
    """A run that stopped goes on in another process, and is taken back by a third: one reward for each."""
    names = guests(60)

    def failing() -> Any:
        yield from names[:35]
        raise OSError("the file is gone")

    async with place.ledger() as ledger:
        with pytest.raises(BatchError):
            await recording(client, ledger).issue(failing(), run_id="march")
    async with place.ledger() as ledger:
        run = await recording(client, ledger).issue(names, run_id="march")
        assert (await run.wait()).issued == len(names)
    assert emulator.reward_counts() == dict.fromkeys(names, 1)
    async with place.ledger() as ledger:
        again = await recording(client, ledger).resume("march")
        assert (await again.wait()).issued == len(names)
        await again.revoke()
        [row] = await ledger.progress()
        assert (row.finished, row.to_take_back, row.run.revoked_at is not None) == (6, 0, True)
    assert emulator.jobs_accepted == 6


async def test_an_issued_file_is_not_issued_again(
    place: Place, emulator: Emulator, client: ThanxClient
) -> None:
    """A run id that was forgotten is refused before anything is sent."""
    async with place.ledger() as ledger:
        await (await recording(client, ledger).issue(guests(20), run_id="march")).wait()
    async with place.ledger(keep_for=0) as ledger:
        await gone(place, "runs")
        with pytest.raises((LedgerError, BatchError), match="has forgotten its batches"):
            await recording(client, ledger).issue(guests(20), run_id="march")
    assert set(emulator.reward_counts().values()) == {1}


async def test_trust_in_events_is_shared(place: Place) -> None:
    """What processes learn adds up for each credential, and a disagreement is never forgotten."""
    async with place.ledger() as one, place.ledger() as other:
        assert isinstance(one, TrustLedger)
        assert await one.exchange_trust("https://a", "c", Trust()) == Trust()
        assert await one.exchange_trust("https://a", "c", Trust(2, 1)) == Trust(2, 1)
        assert await other.exchange_trust("https://a", "c", Trust(1, 0)) == Trust(3, 1)
        assert await other.exchange_trust("https://b", "c", Trust()) == Trust()
        assert (await other.exchange_trust("https://a", "c", Trust(broken=True))).broken
    async with place.ledger() as later:
        assert await later.exchange_trust("https://a", "c", Trust(1, 1)) == Trust(4, 2, broken=True)


async def test_an_outcome_that_an_event_told(ledger: AnyLedger) -> None:
    """It is marked as such, in the batch and in its job, until a poll's outcome replaces it."""
    await ledger.claim(RUN)
    await ledger.record(batch(), BODY)
    await ledger.accept("march", 0, "job1")
    told = attrs.evolve(DONE, by_event=True)
    await ledger.finish("march", {0: told})
    recorded = await only(ledger)
    assert recorded.outcome == told
    assert (job := recorded.job()) is not None
    assert job.by_event
    await ledger.finish("march", {0: DONE})
    assert (await only(ledger)).outcome == DONE


async def test_events_are_relayed(place: Place) -> None:
    """What a process hears reaches the one whose run has the job, once, also if it came before the answer."""
    event = EndedJob("job1", "completed", "m1", 3, 3, 0, datetime(2026, 11, 24, tzinfo=UTC))
    async with place.ledger() as owner, place.ledger() as hearing:
        assert isinstance(owner, RelayLedger)
        await owner.claim(RUN)
        await owner.record(batch(), BODY)
        await hearing.relay(event)
        await hearing.relay(attrs.evolve(event, issued=0, failed=3))
        await hearing.relay(attrs.evolve(event, job_id="job2", timestamp=None))
        assert await owner.relayed("march") == []
        await owner.accept("march", 0, "job1")
        assert await owner.relayed("march") == [event]
        assert await owner.relayed("march") == []
        assert await owner.relayed("april") == []
    assert "@" not in await place.sql("SELECT * FROM thanx.events")
