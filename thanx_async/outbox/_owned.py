"""`OwnedLane`: a lane whose lease this process holds. Cuts its batches, sends them and follows their jobs."""

from __future__ import annotations

import asyncio

import attrs

from thanx_async._core.escaping import get_logger
from thanx_async._core.tasks import changed
from thanx_async.batching import Batch, Chunk, Guard, min_interval, refused_in_doubt
from thanx_async.identifiers import MAX_BATCH
from thanx_async.ledger import (
    TOO_OLD,
    BatchOutcome,
    BatchRecord,
    BatchState,
    Cut,
    LaneLedger,
    LaneView,
    RunRecord,
)
from thanx_async.limiter import LimiterStatus
from thanx_async.outbox._following import LaneFollower
from thanx_async.outbox._lane_guard import LaneGuard
from thanx_async.outbox._sender import LaneSender
from thanx_async.outbox._trust import LaneTrust
from thanx_async.outbox._upkeep import LaneUpkeep

_log = get_logger("thanx_async.outbox")

_LOOK = 0.1
_LEAD = 0.02  # seconds by which a batch joins the queue early, so that a poll does not take the slot
_RECHECK = 0.25
_FIRST_WAIT = 5.0
_MAX_WAIT = 60.0


@attrs.frozen
class DrainSettings:
    """The settings of a drain; see `Outbox.drain`."""

    guard: Guard
    linger: float
    until_empty: bool


class OwnedLane:
    """A lane while this process holds its lease. A task for each batch lasts until the batch's job has ended.

    Args:
        ledger: the ledger, where the lane is claimed.
        lane: the lane.
        sender: sends its batches.
        settings: how to drain.
    """

    def __init__(
        self, ledger: LaneLedger, lane: RunRecord, sender: LaneSender, settings: DrainSettings
    ) -> None:
        self._ledger = ledger
        self._lane = lane
        self._sender = sender
        self._settings = settings
        self._group = asyncio.TaskGroup()
        self._open: dict[Batch, asyncio.Task[None]] = {}
        self._delivering: set[Batch] = set()
        self._recalled: set[Batch] = set()
        self._change = asyncio.Event()
        self._answers = asyncio.Event()
        self._error: Exception | None = None
        self._next_up: Batch | None = None
        self._guard = LaneGuard(settings.guard, ledger, lane.run_id)
        self._trust = LaneTrust(ledger, lane, sender.target.jobs.trust)
        self._follower = LaneFollower(
            ledger, self._trust, self._guard, self._hold, until_empty=settings.until_empty
        )
        self._upkeep = LaneUpkeep(ledger, lane, sender.limiter)

    @property
    def _replay_within(self) -> float:
        return self._upkeep.lane.replayed_within(self._ledger.replay_within)

    async def drain(self) -> None:
        """Send whoever waits, until the drain fails or, if it is meant to end, until nothing is left.

        Raises:
            Exception: what stopped the drain. Requests in flight have been answered, and their fate recorded.
        """
        async with self._group:
            try:
                await self._take_up()
                await self._cut_batches()
            except Exception as error:  # noqa: BLE001 - the batches in flight end first
                self._fail(error)
            finally:
                self._sender.turns.leave(self)
        if failure := self._error or self._follower.error:
            await self._upkeep.note_end(failure)
            raise failure

    async def _take_up(self) -> None:
        """Start the batches that an earlier owner has left open."""
        await self._trust.learn()
        for record in await self._ledger.open_batches(self._lane.run_id):
            if record.state is BatchState.ACCEPTED or record.held is None:
                await self._take_up_batch(record)

    async def _take_up_batch(self, record: BatchRecord, told: BatchOutcome | None = None) -> None:
        batch = self._batch(record)
        if told is not None:
            batch.set_fallback(told)
        batch.adopt(record, self._sender.target.recorded(record), held=False, keep_values=False)
        if batch.handle is None:
            await self._sender.recorder.restore(batch)
            self._recalled.add(batch)
        self._start(batch)

    async def _cut_batches(self) -> None:
        while self._error is None:
            self._change.clear()
            view = await self._ledger.view(self._lane.run_id, MAX_BATCH)
            for job_id in view.heard:
                await self._hear(job_id)
            await self._trust.take_relayed(self._sender.target.jobs)
            for record, told in await self._trust.doubted():
                await self._take_up_batch(record, told)
            await self._upkeep.do()
            if self._settings.until_empty and not (view.waiting or self._open):
                return
            if (wait := self._wait_for_turn(view)) <= 0 and (
                size := await self._guard.size_allowed(self._open)
            ):
                await self._cut(size)
                continue
            if wait <= 0:
                self._leave_turn()
            await changed(self._change, wait if wait > 0 else _LOOK)

    async def _hear(self, job_id: str) -> None:
        """A job has ended, or somebody has found out that it is the job of a held batch."""
        self._sender.target.jobs.ended(job_id)
        if job_id in {batch.job_id for batch in self._open}:
            return
        record = await self._ledger.batch_of(job_id)
        if (
            record is not None
            and (record.run_id, record.state, record.held) == (self._lane.run_id, BatchState.ACCEPTED, None)
            and record.number not in {batch.number for batch in self._open}
        ):
            await self._take_up_batch(record)

    def _wait_for_turn(self, view: LaneView) -> float:
        """Seconds until a batch may be cut: it is due, it is the lane's turn, and the limits allow a request.

        It is cut as late as possible, since guests still come.
        """
        if self._next_up is not None:
            return _LOOK
        status = self._sender.limiter.status()
        if (due := self._wait_to_be_due(view, status)) > 0:
            self._leave_turn()
            return min(due, _LOOK)
        if not self._sender.turns.is_turn_of(self, self._change.set):
            return _LOOK
        return min(status.held_for - _LEAD, _RECHECK)

    def _wait_to_be_due(self, view: LaneView, status: LimiterStatus) -> float:
        if not view.waiting or len(self._delivering) >= self._sender.concurrency or self._must_wait():
            return _LOOK
        if view.waiting >= MAX_BATCH:
            return 0.0
        since_cut = asyncio.get_running_loop().time() - self._sender.turns.last_cut
        return max(self._settings.linger - view.waited, min_interval(status) - since_cut)

    def _leave_turn(self) -> None:
        self._next_up = None
        self._sender.turns.leave(self)

    def _must_wait(self) -> bool:
        """Whether a batch was cut and not sent yet, so that new guests wait for the next batch; or a batch of
        an earlier owner was not answered yet.

        The answer may be that Thanx knows other guests under its key. Then nothing more must be sent.
        """
        return bool(self._recalled) or any(map(self._is_queued, self._delivering))

    def _is_queued(self, batch: Batch) -> bool:
        delivery = batch.delivery
        return batch in self._delivering and not (delivery.on_wire or delivery.in_doubt)

    def _has_changed(self) -> None:
        """A batch is sent, or ends. If it is the one that was cut in the lane's turn, the turn is over."""
        if self._next_up is not None and not self._is_queued(self._next_up):
            self._leave_turn()
        self._change.set()

    async def _cut(self, size: int) -> None:
        if self._has_failed():
            return
        cut = await self._ledger.cut(self._lane.run_id, size, self._sender.target.encode)
        if cut is None:
            self._leave_turn()
            return
        if self._has_failed():
            await self._ledger.withdraw(self._lane.run_id, cut.batch.number)
            return
        batch = self._next_up = self._start_cut(cut)
        self._sender.turns.last_cut = asyncio.get_running_loop().time()
        self._guard.started(batch)

    def _start_cut(self, cut: Cut) -> Batch:
        batch = self._batch(cut.batch)
        batch.replay(cut.body)
        self._start(batch)
        return batch

    def _batch(self, record: BatchRecord) -> Batch:
        chunk = Chunk(record.number, record.positions, [])
        batch = Batch(chunk, record.run_id, on_send=self._has_changed)
        batch.limit_age(record.recorded_at, self._replay_within)
        return batch

    def _start(self, batch: Batch) -> None:
        if batch.handle is None:
            self._delivering.add(batch)
        if len(batch.positions) > 1:
            batch.let_split(True)
        task = self._group.create_task(self._process(batch))
        self._open[batch] = task
        task.add_done_callback(lambda _: self._end(batch))

    def _end(self, batch: Batch) -> None:
        """End a task. A done callback, because a task cancelled before its start runs no ``finally``."""
        del self._open[batch]
        self._delivering.discard(batch)
        self._recalled.discard(batch)
        self._has_changed()

    async def _process(self, batch: Batch) -> None:
        try:
            if batch.handle is None:
                await self._send(batch)
            if batch.handle is not None:
                await self._follower.follow(batch, batch.handle)
        except Exception as error:  # noqa: BLE001 - any error stops the drain
            self._fail(error)

    async def _send(self, batch: Batch) -> None:
        """Send a batch, again and again while it is in doubt and not too old."""
        wait, hurried = _FIRST_WAIT, False
        while not batch.delivery.is_too_old:
            if await self._is_sent(batch):
                self._answers.set()
                return
            hurried = await self._waited(wait, hurried=hurried)
            if not batch.is_in_doubt:
                return  # its guests wait again
            wait = min(_MAX_WAIT, 2 * wait)
            await self._sender.recorder.restore(batch)
        await self._hold(batch, TOO_OLD)

    async def _hold(self, batch: Batch, reason: str) -> None:
        """Give up a batch until it is settled by hand."""
        await self._ledger.hold(batch.run_id, batch.number, reason)
        _log.error("batch %d of %s is held, settle it: %s", batch.number, batch.run_id, reason)

    async def _is_sent(self, batch: Batch) -> bool:
        """Try to send a batch. Returns whether its guests are provided for."""
        self._delivering.add(batch)
        try:
            error = await self._sender.attempt(batch)
        finally:
            self._delivering.discard(batch)
            self._has_changed()
        self._recalled.discard(batch)
        if error is not None:
            _log.info("batch with key %s was not accepted: %s", batch.key, type(error).__name__)
        if code := refused_in_doubt(batch):
            await self._hold(batch, f"Thanx refused it with {code} when it was sent again")
            return True
        for half in self._sender.recorder.take_halves(batch):
            self._start_cut(half)
        return error is None

    async def _waited(self, seconds: float, *, hurried: bool) -> bool:
        """Wait, or only until Thanx accepts another batch. Returns whether that cut the wait short.

        A batch that fails all the same is not hurried again at once, so that it does not double the requests.
        """
        if hurried:
            await asyncio.sleep(seconds)
            return False
        self._answers.clear()
        await changed(self._answers, seconds)
        return self._answers.is_set()

    def _has_failed(self) -> bool:
        """Whether anything has stopped the drain. A batch may have done so at any time."""
        return self._error is not None

    def _fail(self, error: Exception) -> None:
        """Stop the drain. Requests on the wire are answered first."""
        if self._error is None:
            self._error = error
        for batch, task in self._open.items():
            batch.stop()
            if not batch.delivery.on_wire and task is not asyncio.current_task():
                task.cancel()
        self._change.set()
