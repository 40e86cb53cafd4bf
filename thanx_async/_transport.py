"""Sending: the session, the only retry loop, and the border where aiohttp's errors become ours."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Callable, Mapping
from typing import TypeVar

import aiohttp
from yarl import URL

from thanx_async import wire
from thanx_async.errors import (
    APIError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidResponseError,
    RateLimitedError,
    RequestTimeoutError,
    TransportError,
)
from thanx_async.limiter import Lane, RateLimiter, Slot
from thanx_async.models import IssuanceJob
from thanx_async.retry import RetryPolicy

T = TypeVar("T")

_LARGE_BODY = 2**20


class Delivery:
    """The fate of one Issue Rewards request, true at every moment.

    ``job`` is set as soon as Thanx has accepted it. ``in_doubt``: it was sent, and what became of it is
    not known. ``on_wire``: it is being sent or answered right now. Set ``closing`` to allow no further
    attempt.
    """

    __slots__ = ("closing", "in_doubt", "job", "on_wire")

    def __init__(self) -> None:
        self.job: IssuanceJob | None = None
        self.in_doubt = False
        self.on_wire = False
        self.closing = False

    def accept(self, payload: object) -> IssuanceJob:
        self.job = wire.decode_job(payload)
        return self.job


class Transport:
    """Sends requests, each attempt through the limiter, with the very same bytes every time."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        session: aiohttp.ClientSession | None,
        timeout: aiohttp.ClientTimeout,
        retry: RetryPolicy,
        limiter: RateLimiter,
    ) -> None:
        self._base_url = base_url
        self._headers = headers
        self._session = session
        self._owns_session = session is None
        self._tls: ssl.SSLContext | bool = (
            ssl.create_default_context() if session and base_url.startswith("https:") else True
        )
        self._timeout = timeout
        self._retry = retry
        self._limiter = limiter

    def open(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        if self._owns_session and self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def call(
        self,
        request: wire.Request,
        decoder: Callable[[object], T],
        *,
        lane: Lane = Lane.ISSUE,
        delivery: Delivery | None = None,
    ) -> T:
        """Send until there is an answer, or the retry policy gives up."""
        delivery = delivery or Delivery()
        session = self._usable_session()
        attempt = 0
        while True:
            try:
                async with self._limiter.slot(lane) as slot:
                    return await self._attempt(session, request, decoder, slot, delivery)
            except RateLimitedError as error:
                if delivery.closing:
                    raise _explained(error, request, delivery) from error.__cause__
            except (APIError, TransportError) as error:
                attempt += 1
                wait = self._wait(request, attempt, error)
                if wait is None or delivery.closing:
                    raise _explained(error, request, delivery) from error.__cause__
                await asyncio.sleep(wait)

    def _usable_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise ConfigurationError(
                "the client is not open: use it as `async with ThanxClient(...) as client`"
            )
        if self._session.closed:
            raise ConfigurationError("the session given to ThanxClient is closed")
        return self._session

    def _wait(self, request: wire.Request, attempt: int, error: APIError | TransportError) -> float | None:
        if error.in_doubt and not request.repeatable:
            return None
        return self._retry.delay(attempt, error)

    async def _attempt(
        self,
        session: aiohttp.ClientSession,
        request: wire.Request,
        decoder: Callable[[object], T],
        slot: Slot,
        delivery: Delivery,
    ) -> T:
        doubted = delivery.in_doubt
        delivery.on_wire = delivery.in_doubt = True
        try:
            result = wire.decode(await self._send(session, request, slot), decoder)
            delivery.in_doubt = False
        except (APIError, TransportError) as error:
            delivery.in_doubt = doubted or error.in_doubt
            raise
        finally:
            delivery.on_wire = False
        return result

    async def _send(self, session: aiohttp.ClientSession, request: wire.Request, slot: Slot) -> wire.Answer:
        url = URL(self._base_url + request.path, encoded=True).with_query(request.params)
        body = request.body
        headers = dict(self._headers)
        if request.idempotency_key is not None:
            headers["X-Idempotency-Key"] = request.idempotency_key
        try:
            async with session.request(
                request.method,
                url,
                data=io.BytesIO(body) if body and len(body) > _LARGE_BODY else body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
                raise_for_status=False,
                ssl=self._tls,
            ) as response:
                slot.answered(response.status, response.headers)
                return await _read(response)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise _transport_error(error, url) from error


async def _read(response: aiohttp.ClientResponse) -> wire.Answer:
    received = bytearray()
    try:
        async for chunk in response.content.iter_any():
            received += chunk
    except aiohttp.ClientPayloadError as error:
        if response.status == 429:
            raise RateLimitedError(429, None, "Too Many Requests") from error
        raise InvalidResponseError(
            f"HTTP {response.status}: the answer broke off after {len(received)} bytes",
            status=response.status,
            body_start=bytes(received[:200]),
        ) from error
    return wire.Answer(response.status, response.headers, bytes(received))


def _transport_error(error: Exception, url: URL) -> TransportError:
    what = f"{url.host}:{url.port}"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return RequestTimeoutError(f"no connection to {what} within the timeout", in_doubt=False)
    if isinstance(error, TimeoutError):
        return RequestTimeoutError(f"no answer from {what} within the timeout")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectionFailedError(f"cannot connect to {what}: {error.os_error}", in_doubt=False)
    return ConnectionFailedError(f"the connection to {what} broke before the answer ({type(error).__name__})")


def _explained(
    error: APIError | TransportError, request: wire.Request, delivery: Delivery
) -> APIError | TransportError:
    error.idempotency_key = request.idempotency_key
    error.in_doubt = delivery.in_doubt
    if delivery.in_doubt and request.idempotency_key:
        error.add_note(
            "In doubt: Thanx may have acted on this. Repeat it with the same identifiers and idempotency key"
            f" {request.idempotency_key}."
        )
    return error
