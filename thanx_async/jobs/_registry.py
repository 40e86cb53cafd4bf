"""Makes job handles, with one poller for each job of a client, and takes in webhook events."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from thanx_async._batches import EndedJob
from thanx_async.jobs._audits import Audits
from thanx_async.jobs._claims import Claim, Guests, Sent
from thanx_async.jobs._handle import JobHandle
from thanx_async.jobs._poller import JobPoller, JobService, WebhookSigns
from thanx_async.jobs._trust import EventTrust
from thanx_async.models import IssuanceJob

if TYPE_CHECKING:
    from thanx_async.webhooks import Event

_MAX_EARLY = 1024
_MAX_EARLY_FAILURES = 1_000_000


class JobRegistry:
    """The jobs of one client that have a handle, and early webhook events for other jobs."""

    def __init__(self, service: JobService) -> None:
        self._service = service
        self._pollers: WeakValueDictionary[str, JobPoller] = WeakValueDictionary()
        self._early: OrderedDict[str, WebhookSigns] = OrderedDict()

    @property
    def trust(self) -> EventTrust:
        """The trust in events that tell outcomes."""
        return self._service.trust

    @property
    def audits(self) -> Audits:
        """The polls of some of the jobs whose outcome an event has told."""
        return self._service.audits

    def handle(self, job_id: str, merchant_id: str, *, start: int = 0, total: int = 0) -> JobHandle:
        """A handle on the job with this id, without a request.

        Args:
            job_id, merchant_id: identify the job at Thanx.
            start: the position in the input of the job's first identifier.
            total: the number of identifiers in the job, 0 if unknown.
        """
        poller = self._poller(job_id, merchant_id)
        return JobHandle(job_id, merchant_id, poller=poller, start=start, total=total)

    def accepted(
        self,
        job: IssuanceJob,
        *,
        merchant_id: str,
        start: int = 0,
        total: int = 0,
        guests: Guests | None = None,
    ) -> JobHandle:
        """The handle on a job that Thanx has just accepted. Arguments as for `handle`.

        Args:
            guests: the job's guests, so that an event can tell the outcome; None if they are not known.
        """
        poller = self._poller(job.id, merchant_id)
        poller.update(job, accepted=True)
        poller.expect(Sent(job, merchant_id, total, guests))
        return JobHandle(job.id, merchant_id, poller=poller, start=start, total=total)

    def recorded(self, job: IssuanceJob, *, merchant_id: str, start: int = 0, total: int = 0) -> JobHandle:
        """The handle on a job that an earlier process has recorded as accepted. Arguments as for `handle`.

        Args:
            job: the recorded job; while it is not finished, only its id and times are known.
        """
        if job.is_finished:
            return self.accepted(job, merchant_id=merchant_id, start=start, total=total)
        handle = self.handle(job.id, merchant_id, start=start, total=total)
        self._poller(job.id, merchant_id).expect(Sent(job, merchant_id, total))
        return handle

    def guests(self, values: Sequence[str]) -> Guests | None:
        """What `accepted` keeps of the guests of a job; None if every outcome is polled."""
        return Guests.of(values) if self.trust.is_active else None

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
            self.ended(event.issuance_job_id, Claim.of(event) if self.trust.is_active else None)

    def ended(self, job_id: str, claim: Claim | None = None) -> None:
        """A webhook, here or at another process, has reported that the job has ended.

        Args:
            job_id: the job.
            claim: what the event told of the outcome.
        """
        signs = self._signs(job_id)
        signs.over = True
        if claim is not None:
            signs.hear(claim)
        if poller := self._pollers.get(job_id):
            # Events of other workers' jobs tell nothing of how many of one's own come.
            self._service.schedule.heard()
            poller.hint()
            poller.weigh()
        elif claim is not None:
            self._bound_early()

    def relayed(self, job: EndedJob) -> None:
        """An event has reached another process, which cannot tell which guests it names."""
        self.ended(job.job_id, Claim.relayed(job) if self.trust.is_active else None)

    def _bound_early(self) -> None:
        """Forget the oldest early events if they name too many guests."""
        sizes = [sum(len(claim.failures) for claim in signs.claims) for signs in self._early.values()]
        excess = sum(sizes) - _MAX_EARLY_FAILURES
        for size in sizes:
            if excess <= 0:
                return
            self._early.popitem(last=False)
            excess -= size

    def _signs(self, job_id: str) -> WebhookSigns:
        if poller := self._pollers.get(job_id):
            return poller.signs
        signs = self._early.setdefault(job_id, WebhookSigns())
        if len(self._early) > _MAX_EARLY:
            self._early.popitem(last=False)
        return signs
