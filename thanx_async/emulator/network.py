"""The network between Thanx and its client: proxies and connections, and their faults."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
from contextlib import suppress

from aiohttp import web

from thanx_async.emulator.answers import Refused, html_response, raw_response
from thanx_async.emulator.faults import Fault, ScriptedAnswer

_LINGER = "hh" if os.name == "nt" else "ii"


def instead(fault: Fault) -> web.Response:
    """The answer to a request that Thanx does not act on. After a reset the client never sees it."""
    match fault:
        case Fault.HTML_502:
            return html_response(502, "Bad Gateway")
        case Fault.ERROR_500:
            return Refused(500, "something went wrong").response()
    return web.Response(status=499)


def scripted(answer: ScriptedAnswer) -> web.Response:
    """The answer that the script gives."""
    status = 200 if answer.status is None else answer.status
    if answer.body is not None or status < 400:
        return raw_response(status, answer.body or b"", answer.content_type, answer.headers)
    response = Refused(status, "so says the script").response()
    response.headers.update(answer.headers)
    return response


def too_many(retry_after: float | None = None) -> web.Response:
    """A 429 answer. Retry-After is in whole seconds."""
    response = Refused(429, "the rate limit is exceeded").response()
    if retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(retry_after))
    return response


async def deliver(
    request: web.Request, response: web.Response, fault: Fault | None, closing: asyncio.Event
) -> web.StreamResponse:
    """Send an answer to the client, subject to the fault."""
    match fault:
        case Fault.ANSWER_LOST:
            await _abandoned(request, closing)
            _reset(request)
        case Fault.RESET_BEFORE | Fault.RESET_AFTER:
            _reset(request)
        case Fault.HTML_504:
            return html_response(504, "Gateway Timeout")
        case Fault.TRUNCATED:
            return await _half(request, response)
    return response


async def _abandoned(request: web.Request, closing: asyncio.Event) -> None:
    """Wait until the client gives up, or the emulator closes."""
    while request.transport is not None and not request.transport.is_closing() and not closing.is_set():
        try:
            async with asyncio.timeout(1):
                await closing.wait()
        except TimeoutError:
            continue


async def _half(request: web.Request, response: web.Response) -> web.StreamResponse:
    """Send the head and half of the body."""
    body = response.body if isinstance(response.body, bytes) else b""
    headers = {**response.headers, "Content-Length": str(len(body))}
    broken = web.StreamResponse(status=response.status, headers=headers)
    with suppress(ConnectionResetError):  # the client did not wait for it
        await broken.prepare(request)
        await broken.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return broken


def _reset(request: web.Request) -> None:
    """Cut the connection with a TCP reset."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(_LINGER, 1, 0))
    transport.abort()
