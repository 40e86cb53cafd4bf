"""Makes job handles, with one poller for each job of a client, and takes in webhook events."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from thanx_async.jobs._handle import JobHandle
from thanx_async.jobs._poller import JobPoller, JobService, WebhookSigns
from thanx_async.models import IssuanceJob

if TYPE_CHECKING:
    from thanx_async.webhooks import Event

_MAX_EARLY = 1024


class JobRegistry:
    """The jobs of one client that have a handle, and early webhook events for other jobs."""

    def __init__(self, service: JobService) -> None:
        self._service = service
        self._pollers: WeakValueDictionary[str, JobPoller] = WeakValueDictionary()
        self._early: OrderedDict[str, WebhookSigns] = OrderedDict()

    def handle(self, job_id: str, merchant_id: str, *, start: int = 0, total: int = 0) -> JobHandle:
        """A handle on the job with this id, without a request.

        Args:
            job_id, merchant_id: identify the job at Thanx.
            start: the position in the input of the job's first identifier.
            total: the number of identifiers in the job, 0 if unknown.
        """
        poller = self._poller(job_id, merchant_id)
        return JobHandle(job_id, merchant_id, poller=poller, start=start, total=total)

    def accepted(self, job: IssuanceJob, *, merchant_id: str, start: int = 0, total: int = 0) -> JobHandle:
        """The handle on a job that Thanx has just accepted. Arguments as for `handle`."""
        poller = self._poller(job.id, merchant_id)
        poller.update(job, accepted=True)
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
        """Take in a webhook event, which may come before the job has a handle."""
        from thanx_async.webhooks import RewardIssued, UnknownEvent  # the caller has loaded it already

        if isinstance(event, UnknownEvent):
            return
        if isinstance(event, RewardIssued):
            self._signs(event.issuance_job_id).add(event.identifier.index)
        else:
            self.ended(event.issuance_job_id)

    def ended(self, job_id: str) -> None:
        """A webhook, here or at another process, has reported that the job has ended."""
        self._signs(job_id).over = True
        if poller := self._pollers.get(job_id):
            # Events of other workers' jobs tell nothing of how many of one's own come.
            self._service.schedule.heard()
            poller.hint()

    def _signs(self, job_id: str) -> WebhookSigns:
        if poller := self._pollers.get(job_id):
            return poller.signs
        signs = self._early.setdefault(job_id, WebhookSigns())
        if len(self._early) > _MAX_EARLY:
            self._early.popitem(last=False)
        return signs
