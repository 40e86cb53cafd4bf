"""`ThanxClient`: one short method for each endpoint of the Thanx Partner API."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, TypedDict, TypeVar, Unpack
from uuid import uuid4

import aiohttp

from thanx_async._core import checks
from thanx_async.http import (
    USER_AGENT,
    Delivery,
    ReadinessCheck,
    Transport,
    catalogue,
    check_parts,
    checked_url,
    environment,
    header,
    readiness,
    unpicklable,
    url_of,
    variable,
    wire,
)
from thanx_async.identifiers import checked_values
from thanx_async.instrumentation import Hook, log_record
from thanx_async.jobs import EventTrust, JobHandle, JobRegistry, JobService
from thanx_async.limiter import Lane, LocalRateLimiter, RateLimiter
from thanx_async.models import (
    Campaign,
    Environment,
    Events,
    IssuanceJob,
    Merchant,
    NewCampaign,
    RewardTemplate,
    check_target,
)
from thanx_async.retry import RetryPolicy

if TYPE_CHECKING:
    from thanx_async.webhooks import Event

T = TypeVar("T")

DEFAULT_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)


class ClientOptions(TypedDict, total=False):
    """The arguments of `ThanxClient`, for `ThanxClient.from_env`."""

    client_id: str
    access_token: str
    environment: Environment
    base_url: str | None
    user_agent: str
    session: aiohttp.ClientSession | None
    timeout: aiohttp.ClientTimeout
    retry: RetryPolicy
    limiter: RateLimiter | None
    hook: Hook
    events: Events


class ThanxClient:
    """A connection to the Thanx Partner API, used as ``async with ThanxClient(...) as client``.

    It belongs to the event loop on which it was opened. It can be opened again after it was closed, or after
    its loop was; blocks may be nested, and the outermost closes it.

    Args:
        client_id, access_token: the credential from Thanx.
        environment: sandbox or production; the sandbox by default.
        base_url: overrides the environment. HTTPS, or a loopback address.
        user_agent: names the partner, as ``{partner}/1.0.0``, so that Thanx can find its requests.
        session: your own session, which the client does not close. Its TLS settings are not used, because
            certificates are always verified; set SSL_CERT_FILE to trust a private authority.
        timeout: the timeout of one attempt.
        retry: how often, and after which delays, a request is sent again.
        limiter: keeps the rate limits of the credential; a new `LocalRateLimiter` by default. Clients with
            the same credential must share a limiter.
        hook: gets a record of each request, wait, retry, batch and job. By default they are logged.
        events: ``Events.OUTCOME`` lets the signed event that a job has ended tell its outcome, so that no
            poll is needed (see `notify`). By default it is a hint, and one poll tells the outcome.

    Raises:
        ConfigurationError: an argument is unusable; the message tells which one, and why.
    """

    def __init__(
        self,
        client_id: str,
        access_token: str,
        *,
        environment: Environment = Environment.SANDBOX,
        base_url: str | None = None,
        user_agent: str = USER_AGENT,
        session: aiohttp.ClientSession | None = None,
        timeout: aiohttp.ClientTimeout = DEFAULT_TIMEOUT,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        limiter: RateLimiter | None = None,
        hook: Hook = log_record,
        events: Events = Events.HINT,
    ) -> None:
        self.base_url: str = checked_url(url_of(environment) if base_url is None else base_url)
        check_parts(session, timeout, retry, limiter, hook)
        checks.kind("events", isinstance(events, Events), "Events.HINT or Events.OUTCOME", events)
        self.client_id = client_id
        self.limiter: RateLimiter = LocalRateLimiter() if limiter is None else limiter
        self.hook = hook
        self._transport = Transport(
            self.base_url,
            _headers(client_id, access_token, user_agent),
            session=session,
            timeout=timeout,
            retry=retry,
            limiter=self.limiter,
            hook=hook,
        )
        trust = EventTrust(is_active=events is Events.OUTCOME)
        self._job_service = JobService(self._transport, self.limiter, hook, trust)
        self._jobs = JobRegistry(self._job_service)

    @classmethod
    def from_env(cls, **overrides: Unpack[ClientOptions]) -> Self:
        """Make a client from environment variables.

        THANX_CLIENT_ID and THANX_ACCESS_TOKEN are required. THANX_USER_AGENT is optional, and so is
        THANX_BASE_URL or THANX_ENVIRONMENT (``sandbox``, the default, or ``production``).

        Args:
            overrides: arguments of `ThanxClient`, which replace the variables.

        Raises:
            ConfigurationError: a variable is missing or wrong; the message names it.
        """
        options = overrides.copy()
        if "base_url" not in options and "environment" not in options:
            options["base_url"] = os.environ.get("THANX_BASE_URL") or None
            options["environment"] = environment(os.environ.get("THANX_ENVIRONMENT") or "sandbox")
        if "client_id" not in options:
            options["client_id"] = variable("THANX_CLIENT_ID")
        if "access_token" not in options:
            options["access_token"] = variable("THANX_ACCESS_TOKEN")
        options.setdefault("user_agent", os.environ.get("THANX_USER_AGENT") or USER_AGENT)
        return cls(**options)

    def __repr__(self) -> str:
        return f"<ThanxClient {self.base_url} {self.limiter!r}>"

    def __reduce__(self) -> NoReturn:
        raise unpicklable()

    async def __aenter__(self) -> Self:
        if self._transport.session.is_lost:
            self._jobs.begin_anew()
        await self._transport.session.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if await self._transport.session.leave():
            await self._jobs.audits.close()

    async def aclose(self) -> None:
        """Close it, as the end of the outermost ``async with`` does; it can be opened again.

        For hosts that have hooks for start and end in place of a block: ``await client.__aenter__()`` in the
        one, and ``await client.aclose()`` in the other.
        """
        await self._transport.session.close()
        await self._jobs.audits.close()

    async def issue_rewards(
        self,
        *,
        campaign_id: str,
        merchant_id: str,
        variant_id: str,
        identifiers: Iterable[object],
        idempotency_key: str | None = None,
    ) -> JobHandle:
        """Issue rewards to 1 to 10,000 guests in one request.

        Identifiers are sent as given, in the same order. `AsyncBatcher` takes any number of guests, and drops
        duplicates.

        After an error that is ``in_doubt``, call again with the error's ``idempotency_key`` and the same
        identifiers. Thanx then repeats its first answer, and issues nothing twice.

        Args:
            campaign_id, merchant_id, variant_id: what to issue. Source: Issue Rewards reference page.
            identifiers: values that `Identifier.parse` takes.
            idempotency_key: identifies the request; a new one by default.

        Raises:
            InvalidIdentifierError: an identifier is invalid; the message tells its position. Nothing was
                sent.
            ConfigurationError: there are no identifiers, or too many. Nothing was sent.
            APIError, TransportError: the error that ended the last attempt.
        """
        check_target(campaign_id, merchant_id, variant_id)
        values = checked_values(identifiers)
        body = wire.issue_body(campaign_id, merchant_id, variant_id, values)
        key = str(uuid4()) if idempotency_key is None else header("idempotency_key", idempotency_key)
        request, total = wire.issue_rewards(body, key), len(values)
        guests = self._jobs.guests(values)
        del identifiers, values  # tools that record the local variables of errors would record guests
        job = await self._transport.deliver(request, Delivery(), lane=Lane.INTERACTIVE)
        return self._jobs.accepted(job, merchant_id=merchant_id, total=total, guests=guests)

    async def get_issuance_job(self, job_id: str, *, merchant_id: str) -> IssuanceJob:
        """Fetch a snapshot of a job. Like every request that only reads, it waits behind issuing."""
        return await self._job_service.look(job_id, merchant_id)

    async def revoke_issuance_job(self, job_id: str, *, merchant_id: str) -> IssuanceJob:
        """Revoke the rewards of a completed or failed job.

        The request has no idempotency key, so it is sent again only after a refusal, or if it certainly did
        not arrive. After any other error, check the job's state before you repeat the call.

        Raises:
            UnprocessableError: the job is still running, or is revoked already.
            APIError, TransportError: the error that ended the last attempt.
        """
        return await self._job_service.revoke(job_id, merchant_id, Lane.INTERACTIVE)

    def job(self, job_id: str, *, merchant_id: str) -> JobHandle:
        """Attach to a job by its id, without a request."""
        checks.text("job_id", job_id)
        checks.text("merchant_id", merchant_id)
        return self._jobs.handle(job_id, merchant_id)

    def notify(self, event: Event) -> None:
        """Pass a webhook event to the client, so that callers who wait for its job poll it at once.

        Call this on the event loop. Events may come twice, late, or before the job has a handle. While events
        keep arriving, polls are only a fallback.

        With ``Events.OUTCOME`` the event itself tells the outcome, without a poll, once polls have confirmed
        three events of the credential, one of them with failures. The event must be about a job that this
        client knows to be accepted, and its counts, time, merchant and guests must agree with what was sent;
        otherwise it is a hint. One in a hundred of these jobs is polled all the same, while half of the rate
        limit is free. After one disagreement, which is logged as an error, events are hints for good, and
        what they told is polled. Whoever knows the webhook secret could report guests as failed.

        Args:
            event: the event from `webhooks.verify`.
        """
        from thanx_async.webhooks import Event  # the caller has loaded it already

        checks.kind("event", isinstance(event, Event), "an event, from webhooks.verify", event)
        self._jobs.notify(event)

    def list_campaigns(self, *, merchant_id: str) -> AsyncGenerator[Campaign, None]:
        """Iterate over all campaigns of a merchant; one request for every hundred."""
        return catalogue.pages(
            "/partner/campaigns",
            merchant_id,
            lambda request: self._get(request, catalogue.decode_campaigns),
        )

    async def get_campaign(self, campaign_id: str) -> Campaign:
        """Fetch a campaign with its variants."""
        return await self._get(catalogue.campaign(campaign_id), catalogue.decode_campaign)

    async def create_campaign(self, campaign: NewCampaign) -> Campaign:
        """Create a campaign.

        The request has no idempotency key: after an error that is ``in_doubt``, list the campaigns before
        you repeat the call.
        """
        checks.kind("campaign", isinstance(campaign, NewCampaign), "a NewCampaign", campaign)
        request = catalogue.create_campaign(campaign)
        return await self._transport.call(request, catalogue.decode_campaign, lane=Lane.INTERACTIVE)

    def list_reward_templates(self, *, merchant_id: str) -> AsyncGenerator[RewardTemplate, None]:
        """Iterate over all reward templates of a merchant; one request for every hundred."""
        return catalogue.pages(
            "/partner/reward_templates",
            merchant_id,
            lambda request: self._get(request, catalogue.decode_templates),
        )

    async def get_reward_template(self, template_id: str, *, merchant_id: str) -> RewardTemplate:
        """Fetch a reward template."""
        return await self._get(catalogue.template(template_id, merchant_id), catalogue.decode_template)

    async def list_merchants(self) -> list[Merchant]:
        """Fetch the merchants that the credential can act for."""
        return await self._get(catalogue.merchants(), catalogue.decode_merchants)

    async def get_scopes(self) -> frozenset[str]:
        """Fetch the scopes of the credential. Issuing needs ``rewards.issue``."""
        return await self._get(catalogue.scopes(), catalogue.decode_scopes)

    async def check(
        self, *, campaign_id: str, merchant_id: str, variant_id: str
    ) -> tuple[ReadinessCheck, ...]:
        """Check whether this credential can issue these rewards now: three requests, and nothing is issued.

        For a readiness probe: ``all(check.ok for check in await client.check(...))``. What cannot be checked,
        since Thanx gives no answer, counts as not ok. Retries follow the client's `RetryPolicy`.

        Returns:
            The checks of the credential, its scope, the merchant, the campaign and the variant, in this
            order. Those that depend on a failed one are left out.
        """
        check_target(campaign_id, merchant_id, variant_id)
        checked = readiness(
            campaign_id,
            merchant_id,
            variant_id,
            get_scopes=self.get_scopes,
            list_merchants=self.list_merchants,
            get_campaign=self.get_campaign,
        )
        return tuple([check async for check in checked])

    async def _get(self, request: wire.Request, decoder: Callable[[object], T]) -> T:
        return await self._transport.call(request, decoder, lane=Lane.POLL)


def _headers(client_id: str, access_token: str, user_agent: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {header('access_token', access_token)}",
        "X-ClientId": header("client_id", client_id),
        "Accept-Version": wire.API_VERSION,
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": header("user_agent", user_agent, spaces=True),
    }


def internals(client: ThanxClient) -> tuple[Transport, JobRegistry]:
    """The client's transport and job registry, for `AsyncBatcher`."""
    return client._transport, client._jobs  # noqa: SLF001 - the class is in this module
