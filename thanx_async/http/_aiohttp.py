"""The border to aiohttp: stops its retries, reads whole answers, and maps its exceptions to our errors."""

from __future__ import annotations

import io
from collections.abc import Callable

import aiohttp
from yarl import URL

from thanx_async._core.errors import (
    ConfigurationError,
    ConnectionFailedError,
    RequestTimeoutError,
    ThanxError,
    without_frames,
)
from thanx_async.http import _wire as wire

SURELY_UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    ValueError,
    TypeError,
    RuntimeError,
)
"""Errors that come before a connection is made."""

_ERRORS = 400
_LARGEST = 2**24
"""Bytes of an answer, decoded. One of 10,000 failures with long reasons fits."""


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


async def keeps_token(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A middleware that sends nothing with other credentials than Thanx's.

    aiohttp before 3.13 replaces the header by what a netrc file has for the host.
    """
    if not request.headers.get("Authorization", "").startswith("Bearer "):
        raise ValueError("the session has replaced AUTHORIZATION")
    return await handler(request)


async def read(response: aiohttp.ClientResponse, mask: Callable[[bytes], bytes]) -> wire.Answer:
    """The whole answer.

    Args:
        response: its status and headers have arrived.
        mask: removes the token from a body that repeats it.
    """
    received = bytearray()
    broken = await _receive(response, received)
    answer = wire.Answer(response.status, response.headers, mask(bytes(received)))
    received.clear()
    if broken is None:
        return answer
    if response.status >= _ERRORS:
        raise wire.api_error(wire.Answer(response.status, response.headers, b"")) from broken
    if isinstance(broken, _TooLarge):
        what = f"the answer has more than {_LARGEST:,} bytes"
    elif isinstance(broken, aiohttp.ClientPayloadError):
        what = f"the answer broke off after {len(answer.body)} bytes"
    else:
        raise broken
    raise wire.invalid(answer, f": {what}") from broken


async def _receive(response: aiohttp.ClientResponse, received: bytearray) -> Exception | None:
    """Receive the body. Returns the error that ended it early.

    A server may send gigabytes, or a few bytes that become gigabytes: the rest of these is not read.
    """
    try:
        async for chunk in response.content.iter_any():
            received += chunk[: _LARGEST + 1 - len(received)]
            if len(received) > _LARGEST:
                return _TooLarge()
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        return without_frames(error)
    return None


class _TooLarge(Exception):  # noqa: N818 - never raised
    """An answer has too many bytes."""


class Upload(io.BytesIO):
    """The body of a request, which tells when it is asked for: the connection is made by then, and nothing
    of the request has left before."""

    def __init__(self, body: bytes, begin: Callable[[], None]) -> None:
        super().__init__(body)
        self._begin = begin

    def read(self, size: int | None = -1, /) -> bytes:
        self._begin()
        return super().read(size)


def error_of(error: Exception, url: URL, *, begun: bool) -> ThanxError:
    """What an error of aiohttp means for the request.

    Args:
        begun: bytes of the request may have left.
    """
    if begun:
        return _unanswered(error, f"{url.host}:{url.port}")
    return _unsent(error, f"{url.host}:{url.port}")


def _unanswered(error: Exception, what: str) -> ThanxError:
    if isinstance(error, TimeoutError):
        return RequestTimeoutError(f"no answer from {what} within the timeout")
    return ConnectionFailedError(f"the connection to {what} broke before the answer ({type(error).__name__})")


def _unsent(error: Exception, what: str) -> ThanxError:
    """What waiting may mend is a `TransportError`, so that it is tried again."""
    match error:
        case TimeoutError():
            return RequestTimeoutError(f"no connection to {what} within the timeout", in_doubt=False)
        case aiohttp.ClientConnectorError():
            # An error of a certificate has no other in releases of aiohttp before 3.13.
            why = _words(getattr(error, "certificate_error", None) or error.os_error)
            return ConnectionFailedError(f"cannot connect to {what}: {why}", in_doubt=False)
        case aiohttp.ClientHttpProxyError(status=407):
            return ConfigurationError(
                f"the proxy does not connect to {what} without its credentials (HTTP 407): give them to the"
                " session",
                argument="session",
            )
        case aiohttp.ClientHttpProxyError():
            text = f"the proxy did not connect to {what} (HTTP {error.status})"
            return ConnectionFailedError(text, in_doubt=False)
        case ValueError() if "AUTHORIZATION" in str(error).upper():
            return ConfigurationError(
                "the session given to ThanxClient has credentials of its own (auth, or netrc with trust_env),"
                " which exclude Thanx's access token: give one without",
                argument="session",
            )
        case ValueError() | TypeError() | RuntimeError():
            return ConfigurationError(f"nothing could be sent to {what}: {_words(error)}")
    return ConnectionFailedError(
        f"the connection to {what} broke before anything was sent ({type(error).__name__})", in_doubt=False
    )


def _words(error: BaseException) -> str:
    """What an error says, which for some errors of TLS is nothing but their kind."""
    return str(error) or type(error).__name__
