"""The client: one short method for each endpoint."""

from __future__ import annotations

import os
from collections.abc import Iterable
from ipaddress import ip_address
from itertools import islice
from types import TracebackType
from typing import Self, TypedDict, Unpack
from uuid import uuid4
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from thanx_async import wire
from thanx_async._polling import PollSchedule
from thanx_async._transport import Delivery, Transport
from thanx_async._version import __version__
from thanx_async.errors import ConfigurationError, InvalidIdentifierError
from thanx_async.identifiers import MAX_BATCH, normalise
from thanx_async.jobs import JobHandle, JobWatch
from thanx_async.limiter import Lane, LocalRateLimiter, RateLimiter
from thanx_async.models import Environment, IssuanceJob
from thanx_async.retry import RetryPolicy

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


class ThanxClient:
    """A connection to the Thanx Partner API, used as ``async with ThanxClient(...) as client``.

    Args:
        client_id, access_token: the credential, from Thanx.
        environment: the sandbox, unless said otherwise.
        base_url: overrides the environment; HTTPS, or a loopback address.
        user_agent: names the partner, as ``{partner}/1.0.0``, so that Thanx can find its requests.
        session: a session of yours, which stays open; its own TLS settings are not used, since
            certificates are always checked (set SSL_CERT_FILE to trust a private authority).
        timeout: limits of one attempt.
        retry: how often, and after what waits, a request is sent again.
        limiter: spends the rate limits of the credential; a `LocalRateLimiter` of its own by default.
            Clients with the same credential must share one.

    Raises:
        ConfigurationError: an argument is unusable; the message says which and why.
    """

    def __init__(
        self,
        client_id: str,
        access_token: str,
        *,
        environment: Environment = Environment.SANDBOX,
        base_url: str | None = None,
        user_agent: str = f"thanx-async/{__version__}",
        session: aiohttp.ClientSession | None = None,
        timeout: aiohttp.ClientTimeout = DEFAULT_TIMEOUT,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        limiter: RateLimiter | None = None,
    ) -> None:
        self.base_url = _checked_url(base_url or str(environment))
        self.limiter: RateLimiter = limiter or LocalRateLimiter()
        headers = {
            "Authorization": f"Bearer {_header('access_token', access_token)}",
            "X-ClientId": _header("client_id", client_id),
            "Accept-Version": wire.API_VERSION,
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": _header("user_agent", user_agent, spaces=True),
        }
        self._transport = Transport(
            self.base_url, headers, session=session, timeout=timeout, retry=retry, limiter=self.limiter
        )
        self._schedule = PollSchedule(min(limit.requests / limit.seconds for limit in self.limiter.limits))
        self._watches: WeakValueDictionary[str, JobWatch] = WeakValueDictionary()

    @classmethod
    def from_env(cls, **overrides: Unpack[ClientOptions]) -> Self:
        """Make a client from THANX_CLIENT_ID, THANX_ACCESS_TOKEN and, optionally, THANX_BASE_URL or
        THANX_ENVIRONMENT (``sandbox``, the default, or ``production``).

        Raises:
            ConfigurationError: a variable is missing or wrong; the message names it.
        """
        options = overrides.copy()
        if "base_url" not in options and "environment" not in options:
            options["base_url"] = os.environ.get("THANX_BASE_URL") or None
            options["environment"] = _environment(os.environ.get("THANX_ENVIRONMENT") or "sandbox")
        if "client_id" not in options:
            options["client_id"] = _variable("THANX_CLIENT_ID")
        if "access_token" not in options:
            options["access_token"] = _variable("THANX_ACCESS_TOKEN")
        return cls(**options)

    def __repr__(self) -> str:
        return f"<ThanxClient {self.base_url} {self.limiter!r}>"

    async def __aenter__(self) -> Self:
        self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def issue_rewards(
        self,
        *,
        campaign_id: str,
        merchant_id: str,
        variant_id: str,
        identifiers: Iterable[object],
        idempotency_key: str | None = None,
    ) -> JobHandle:
        """Issue one request's worth of rewards: 1 to 10,000 identifiers, as `Identifier.parse` takes them.

        They are sent as given, in this order; `AsyncBatcher` takes any number and drops duplicates.
        Without an ``idempotency_key`` one is made. After an error that is ``in_doubt``, call again with the
        error's ``idempotency_key`` and the same identifiers: Thanx then answers as the first time, and
        issues nothing twice.

        Raises:
            InvalidIdentifierError: with the position; nothing was sent.
            ConfigurationError: no identifiers, or too many; nothing was sent.
            APIError, TransportError: what the last attempt ended in.
        """
        values = _values(identifiers)
        body = wire.issue_body(campaign_id, merchant_id, variant_id, values)
        request = wire.issue_rewards(body, idempotency_key or str(uuid4()))
        job = await self.deliver(request, Delivery())
        return self.accepted(job, merchant_id=merchant_id, total=len(values))

    async def deliver(self, request: wire.Request, delivery: Delivery) -> IssuanceJob:
        """Send a prepared Issue Rewards request, keeping ``delivery`` true at every moment."""
        return await self._transport.call(request, delivery.accept, delivery=delivery)

    async def get_issuance_job(self, job_id: str, *, merchant_id: str) -> IssuanceJob:
        """A snapshot of a job; it waits its turn behind issuing."""
        return await self._transport.call(
            wire.get_issuance_job(job_id, merchant_id), wire.decode_job, lane=Lane.POLL
        )

    async def revoke_issuance_job(self, job_id: str, *, merchant_id: str) -> IssuanceJob:
        """Take back the rewards of a completed or failed job.

        It has no idempotency key, so it is sent again only after a refusal or when it certainly did not
        arrive. After another error, look at the job's state before you repeat it.
        """
        return await self._transport.call(wire.revoke_issuance_job(job_id, merchant_id), wire.decode_job)

    def job(self, job_id: str, *, merchant_id: str) -> JobHandle:
        """Attach to a job by its id; no request is made."""
        return JobHandle(job_id, merchant_id, watch=self._watch(job_id, merchant_id))

    def accepted(self, job: IssuanceJob, *, merchant_id: str, start: int = 0, total: int = 0) -> JobHandle:
        """The handle of a job that was just accepted."""
        watch = self._watch(job.id, merchant_id)
        watch.saw(job)
        return JobHandle(job.id, merchant_id, watch=watch, start=start, total=total)

    def _watch(self, job_id: str, merchant_id: str) -> JobWatch:
        watch = self._watches.get(job_id)
        if watch is None:
            watch = self._watches[job_id] = JobWatch(job_id, merchant_id, self, self._schedule)
        return watch


def _values(identifiers: Iterable[object]) -> list[str]:
    if isinstance(identifiers, str | bytes):
        raise ConfigurationError("identifiers must be several, such as a list, not one text")
    items = list(islice(identifiers, MAX_BATCH + 1))
    if not items:
        raise ConfigurationError("identifiers is empty: a request needs at least one")
    if len(items) > MAX_BATCH:
        raise ConfigurationError(
            f"more than {MAX_BATCH:,} identifiers, which one request may not hold: use AsyncBatcher"
        )
    values = []
    for position, item in enumerate(items):
        try:
            values.append(normalise(item))
        except InvalidIdentifierError as error:
            raise InvalidIdentifierError(f"identifiers[{position}]: {error.reason}") from None
    return values


def _checked_url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError as error:
        raise ConfigurationError("base_url is not a URL") from error
    if url.user or url.password or url.query_string or url.fragment:
        raise ConfigurationError("base_url must be just a scheme, a host and perhaps a path")
    if not url.host or not (url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.host))):
        raise ConfigurationError("base_url must begin with https:// (http:// only on a loopback address)")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _header(name: str, value: str, *, spaces: bool = False) -> str:
    if not value:
        raise ConfigurationError(f"{name} is empty")
    if not value.isascii() or not value.isprintable() or (not spaces and " " in value):
        raise ConfigurationError(f"{name} has a character that a header may not hold, such as a line end")
    return value


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigurationError(f"the environment variable {name} is not set")
    return value


def _environment(name: str) -> Environment:
    try:
        return Environment[name.upper()]
    except KeyError:
        raise ConfigurationError("THANX_ENVIRONMENT must be sandbox or production") from None
