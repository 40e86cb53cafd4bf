"""All jobs of one client: one poller for each that somebody waits for, under one schedule."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from thanx_async.jobs._poller import JobService, JobWatch, Signs
from thanx_async.jobs._schedule import PollSchedule
from thanx_async.jobs._turns import Turns

if TYPE_CHECKING:
    from thanx_async.webhooks import Event

_EARLY = 1024


class JobWatches:
    """The watches of one client, by job id, under one schedule."""

    def __init__(self, service: JobService) -> None:
        self.schedule = PollSchedule(service.limiter.limits)
        self.turns = Turns(service.limiter)
        self._service = service
        self._watches: WeakValueDictionary[str, JobWatch] = WeakValueDictionary()
        self._early: OrderedDict[str, Signs] = OrderedDict()

    def get(self, job_id: str, merchant_id: str) -> JobWatch:
        watch = self._watches.get(job_id)
        if watch is None:
            signs = self._early.pop(job_id, None) or Signs()
            watch = self._watches[job_id] = JobWatch(
                job_id, merchant_id, self._service, self.schedule, self.turns, signs
            )
        return watch

    def notify(self, event: Event) -> None:
        """Take in a webhook's event, also of a job that nobody has a handle on yet."""
        from thanx_async.webhooks import RewardIssued, UnknownEvent  # loaded by who made the event

        if isinstance(event, UnknownEvent):
            return
        job_id = event.issuance_job_id
        watch = self._watches.get(job_id)
        signs = watch.signs if watch else self._early.setdefault(job_id, Signs())
        if isinstance(event, RewardIssued):
            signs.add(event.identifier.index)
        else:
            signs.over = True
            self.schedule.heard()
            if watch:
                watch.hint()
        if len(self._early) > _EARLY:
            self._early.popitem(last=False)
