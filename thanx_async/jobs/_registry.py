"""All jobs of one client: one poller for each that somebody waits for, under one schedule."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from thanx_async.jobs._handle import JobHandle
from thanx_async.jobs._poller import JobPoller, JobService, WebhookSigns
from thanx_async.models import IssuanceJob

if TYPE_CHECKING:
    from thanx_async.webhooks import Event

_EARLY = 1024


class JobRegistry:
    """The jobs of one client that somebody has a handle on, and what was heard of others before that."""

    def __init__(self, service: JobService) -> None:
        self._service = service
        self._pollers: WeakValueDictionary[str, JobPoller] = WeakValueDictionary()
        self._early: OrderedDict[str, WebhookSigns] = OrderedDict()

    def handle(self, job_id: str, merchant_id: str, *, start: int = 0, total: int = 0) -> JobHandle:
        """A handle on a job, by its id."""
        poller = self._poller(job_id, merchant_id)
        return JobHandle(job_id, merchant_id, poller=poller, start=start, total=total)

    def accepted(self, job: IssuanceJob, *, merchant_id: str, start: int = 0, total: int = 0) -> JobHandle:
        """The handle on a job that was just accepted."""
        poller = self._poller(job.id, merchant_id)
        poller.saw(job, accepted=True)
        return JobHandle(job.id, merchant_id, poller=poller, start=start, total=total)

    def begin_anew(self) -> None:
        """The loop on which the jobs were waited for is gone, and whoever waited there with it."""
        self._pollers.clear()
        self._service.begin_anew()

    def _poller(self, job_id: str, merchant_id: str) -> JobPoller:
        poller = self._pollers.get(job_id)
        if poller is None:
            signs = self._early.pop(job_id, None) or WebhookSigns()
            if signs.over:
                self._service.schedule.heard()
            poller = self._pollers[job_id] = JobPoller(job_id, merchant_id, self._service, signs)
        return poller

    def notify(self, event: Event) -> None:
        """Take in a webhook's event, also of a job that nobody has a handle on yet."""
        from thanx_async.webhooks import RewardIssued, UnknownEvent  # loaded by who made the event

        if isinstance(event, UnknownEvent):
            return
        job_id = event.issuance_job_id
        poller = self._pollers.get(job_id)
        signs = poller.signs if poller else self._early.setdefault(job_id, WebhookSigns())
        if isinstance(event, RewardIssued):
            signs.add(event.identifier.index)
        else:
            signs.over = True
            if poller:  # events of other workers' jobs tell nothing of how many of one's own come
                self._service.schedule.heard()
                poller.hint()
        if len(self._early) > _EARLY:
            self._early.popitem(last=False)
