"""The border to aiohttp: stops its retries, reads whole answers, and maps its exceptions to our errors."""

from __future__ import annotations

import aiohttp
from yarl import URL

from thanx_async._core.errors import (
    APIError,
    ConnectionFailedError,
    InvalidResponseError,
    RequestTimeoutError,
    TransportError,
)
from thanx_async.http import _wire as wire

_ERRORS = 400
_START = 200
_LARGEST = 2**24
"""Bytes of an answer, decoded. One of 10,000 failures with long reasons fits."""
_SECRET = 8


def once() -> aiohttp.ClientMiddlewareType:
    """A middleware that sends a request only once.

    aiohttp repeats a GET on its own if the connection breaks, and the rate limiter would not count that.
    """
    sent = False

    async def middleware(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        nonlocal sent
        if sent:
            raise aiohttp.ServerDisconnectedError
        sent = True
        return await handler(request)

    return middleware


async def read(response: aiohttp.ClientResponse, token: str) -> wire.Answer:
    """The whole answer; where it repeats the token, it does so no longer."""
    received = bytearray()
    try:
        async for chunk in response.content.iter_any():
            received += chunk
            if len(received) > _LARGEST:
                raise _too_large(response, _without(bytes(received[:_START]), token))
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        if response.status >= _ERRORS:
            raise wire.api_error(wire.Answer(response.status, response.headers, b"")) from error
        if not isinstance(error, aiohttp.ClientPayloadError):
            raise
        raise InvalidResponseError(
            f"HTTP {response.status}: the answer broke off after {len(received)} bytes",
            status=response.status,
            body_start=_without(bytes(received[:_START]), token),
        ) from error
    return wire.Answer(response.status, response.headers, _without(bytes(received), token))


def _without(body: bytes, token: str) -> bytes:
    """The body without the token; a very short one may be part of any word."""
    return body.replace(token.encode(), b"[masked]") if len(token) >= _SECRET else body


def _too_large(response: aiohttp.ClientResponse, start: bytes) -> APIError | InvalidResponseError:
    """The rest is not read: a server may send gigabytes, or a few bytes that become gigabytes."""
    if response.status >= _ERRORS:
        return wire.api_error(wire.Answer(response.status, response.headers, b""))
    return InvalidResponseError(
        f"HTTP {response.status}: the answer has more than {_LARGEST:,} bytes",
        status=response.status,
        body_start=start,
    )


def transport_error(error: Exception, url: URL) -> TransportError:
    """The library's error for an exception of aiohttp; in doubt unless no connection was made."""
    host = f"{url.host}:{url.port}"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return RequestTimeoutError(f"no connection to {host} within the timeout", in_doubt=False)
    if isinstance(error, TimeoutError):
        return RequestTimeoutError(f"no answer from {host} within the timeout")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ConnectionFailedError(f"cannot connect to {host}: {error.os_error}", in_doubt=False)
    return ConnectionFailedError(f"the connection to {host} broke before the answer ({type(error).__name__})")
