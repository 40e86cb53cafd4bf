"""Ready-made endpoints for webhooks: a handler for aiohttp.web, and an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Protocol

import attrs

from thanx_async._batches import EndedJob
from thanx_async._core import checks
from thanx_async._core.errors import SignatureError, WebhookError
from thanx_async._core.escaping import get_logger
from thanx_async.webhooks._events import (
    MAX_BODY,
    SIGNATURE,
    Event,
    RewardBatchCompleted,
    Secret,
    check_secret,
    verify,
)

if TYPE_CHECKING:
    from aiohttp import web

_log = get_logger("thanx_async.webhooks")

_READING = 5.0
_NOTIFYING = 1.5
_LISTENING = 8.0  # with the others less than the 15 s after which Thanx gives up

Listener = Callable[[Event], Awaitable[object]]
Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, object], Receive, Send], Awaitable[None]]


class Notified(Protocol):
    """Receives the events of an endpoint: a `ThanxClient`, or an outbox."""

    def notify(self, event: Event) -> Awaitable[None] | None:
        """Take an event."""


class Relay(Protocol):
    """Tells whichever process waits for a job that it has ended: a `SQLiteLedger`, or a `PostgresLedger`."""

    async def relay(self, job: EndedJob) -> None:
        """Take in what an event told of a job, without its guests."""


@attrs.frozen
class _Endpoint:
    """The handling of requests that both kinds of endpoint share."""

    client: Notified = attrs.field()
    secret: Secret = attrs.field(repr=False)
    on_event: Listener | None = attrs.field()
    relay: Relay | None = attrs.field()

    @client.validator
    def _check_client(self, _: object, value: object) -> None:
        checks.kind("client", hasattr(value, "notify"), "a ThanxClient", value)

    @on_event.validator
    def _check_listener(self, _: object, value: object) -> None:
        if value is not None:
            checks.kind("on_event", callable(value), "callable with an event", value)

    @relay.validator
    def _check_relay(self, _: object, value: object) -> None:
        if value is not None:
            checks.has("relay", value, "an open SQLiteLedger(path)", "relay")

    @secret.validator
    def _check_secret(self, _: object, value: object) -> None:
        check_secret(value)

    async def answer(
        self, method: str, chunks: AsyncIterable[bytes], signature: str | None
    ) -> tuple[int, str]:
        """The status and body of the answer, in less than 15 s."""
        if method != "POST":
            return 405, "webhooks are sent with POST"
        try:
            async with asyncio.timeout(_READING):
                body = await _read(chunks)
        except TimeoutError:
            return 408, "the body did not come in time"
        if body is None:
            return 413, f"the body has more than {MAX_BODY:,} bytes"
        try:
            event = verify(body, signature, self.secret)
        except SignatureError as error:
            return 401, str(error)
        except WebhookError as error:
            return 400, str(error)
        await self._hand_over(event)
        await self._tell(event)
        return 200, ""

    async def _hand_over(self, event: Event) -> None:
        """Notify the client, or the outbox, and other processes. What is lost here is polled."""
        try:
            async with asyncio.timeout(_NOTIFYING):
                if (taking := self.client.notify(event)) is not None:
                    await taking
                if self.relay is not None and isinstance(event, RewardBatchCompleted):
                    await self.relay.relay(event.without_guests())
        except Exception as error:  # noqa: BLE001 - whatever the outbox's store raises, the event was received
            _log.error("notify failed on %s: %s", type(event).__name__, type(error).__name__)

    async def _tell(self, event: Event) -> None:
        """Call the application's listener. Thanx doesn't learn if it is slow or fails."""
        if self.on_event is None:
            return
        try:
            async with asyncio.timeout(_LISTENING):
                await self.on_event(event)
        except Exception as error:  # noqa: BLE001 - whatever the listener raises, the event was received
            # No message and no traceback: both may hold a guest's value.
            _log.error("on_event failed on %s: %s", type(event).__name__, type(error).__name__)


async def _read(chunks: AsyncIterable[bytes]) -> bytes | None:
    """The body, None once it is too large."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)


def aiohttp_handler(
    client: Notified, secret: Secret, *, on_event: Listener | None = None, relay: Relay | None = None
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler for aiohttp.web: ``app.router.add_post("/webhooks/thanx", aiohttp_handler(client, secret))``.

    It answers 200 to events, 401 to a wrong signature, and 400, 405, 408 or 413 to other requests.

    Args:
        client: gets each event by `ThanxClient.notify`.
        secret: the webhook secret from Thanx.
        on_event: awaited with each event, including unknown ones and duplicates. It is cancelled after 8 s,
            so put longer work in a queue of your own. Its errors are logged by type only.
        relay: an open ledger, where the counts of a job that has ended are written for whichever process
            waits for the job in `IssuanceRun.wait`, or drains its outbox, with ``Events.OUTCOME``. Nothing
            about a guest is written, so such an event is believed only if nobody has failed; otherwise it is
            a hint.
    """
    from aiohttp import web

    endpoint = _Endpoint(client, secret, on_event, relay)

    async def handle(request: web.Request) -> web.StreamResponse:
        status, text = await endpoint.answer(
            request.method, request.content.iter_any(), request.headers.get(SIGNATURE)
        )
        headers = {"Allow": "POST"} if status == 405 else None
        return web.Response(status=status, text=text, headers=headers)

    return handle


def asgi_app(
    client: Notified, secret: Secret, *, on_event: Listener | None = None, relay: Relay | None = None
) -> ASGIApp:
    """An ASGI application, to be mounted or served on its own. It takes any path.

    Arguments and answers are the same as for `aiohttp_handler`.
    """
    endpoint = _Endpoint(client, secret, on_event, relay)

    async def app(scope: MutableMapping[str, object], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _serve(endpoint, scope, receive, send)

    return app


class _Disconnected(Exception):  # noqa: N818 - not an error: there is no one to answer
    """The other side disconnected in the middle of the body."""


async def _serve(
    endpoint: _Endpoint, scope: MutableMapping[str, object], receive: Receive, send: Send
) -> None:
    try:
        status, text = await endpoint.answer(str(scope["method"]), _chunks(receive), _signature(scope))
    except _Disconnected:
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
    if status == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode("ascii")})


def _signature(scope: MutableMapping[str, object]) -> str | None:
    headers = scope["headers"]
    if isinstance(headers, list | tuple):
        for name, value in headers:
            if name == SIGNATURE.lower().encode():
                return bytes(value).decode("latin-1")
    return None


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        chunk = message.get("body", b"")
        yield chunk if isinstance(chunk, bytes) else b""
        more = bool(message.get("more_body"))


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
