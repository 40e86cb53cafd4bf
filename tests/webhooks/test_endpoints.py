import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from socket import create_server

import aiohttp
import pytest
import uvicorn
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.helpers import SECRET, completed, now, sign, until
from thanx_async import ConfigurationError
from thanx_async.webhooks import Event, RewardBatchCompleted, aiohttp_handler, asgi_app

BODY = completed("job1")
SIGNED = {"X-Thanx-Signature": sign(BODY)}
HUGE = b" " * (5 * 2**20 + 1)
Reply = tuple[int, str, str | None]
Post = Callable[..., Awaitable[Reply]]


class Listener:
    """Stands for a client."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def listener() -> Listener:
    return Listener()


async def drive(app: object, method: str, body: AsyncIterator[bytes], headers: dict[str, str]) -> Reply:
    """One request to an ASGI application, as a server would make it."""
    sent: list[MutableMapping[str, object]] = []

    async def receive() -> MutableMapping[str, object]:
        async for chunk in body:
            return {"type": "http.request", "body": chunk, "more_body": True}
        return {"type": "http.request", "more_body": False}

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(message)

    assert callable(app)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await app({"type": "http", "method": method, "headers": raw}, receive, send)
    start, end = sent
    answer = dict(start["headers"])  # type: ignore[call-overload]  # pairs, by the specification
    assert int(answer[b"content-length"]) == len(end["body"])  # type: ignore[arg-type]  # bytes, likewise
    allowed = answer[b"allow"].decode() if b"allow" in answer else None
    return start["status"], end["body"].decode(), allowed  # type: ignore[attr-defined,return-value]  # likewise


async def chunked(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def never() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


@pytest.fixture(params=["aiohttp", "asgi"])
async def post(request: pytest.FixtureRequest, listener: Listener) -> AsyncIterator[Post]:
    """Sends a request to either endpoint; gives status, text and the Allow header."""
    if request.param == "asgi":
        app = asgi_app(listener, SECRET)

        async def post_asgi(
            *body: bytes, method: str = "POST", source: AsyncIterator[bytes] | None = None, **headers: str
        ) -> Reply:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            return await drive(app, method, source or chunked(*body), fields)

        yield post_asgi
        return
    application = web.Application()
    application.router.add_route("*", "/hook", aiohttp_handler(listener, SECRET))
    async with TestClient(TestServer(application)) as http:

        async def post_aiohttp(
            *body: bytes, method: str = "POST", source: AsyncIterator[bytes] | None = None, **headers: str
        ) -> Reply:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            data = source or chunked(*body)
            async with http.request(method, "/hook", data=data, headers=fields) as response:
                return response.status, await response.text(), response.headers.get("Allow")

        yield post_aiohttp


async def test_a_signed_event_is_told(post: Post, listener: Listener) -> None:
    """However the body is cut on the way, the event comes once, and the answer is an empty 200."""
    assert await post(BODY[:10], b"", BODY[10:], X_Thanx_Signature=sign(BODY)) == (200, "", None)
    assert [type(event) for event in listener.events] == [RewardBatchCompleted]


async def test_wrong_requests_are_told_why(post: Post, listener: Listener) -> None:
    """401 without a valid signature, 400 for what is no event, 405 for other methods: nothing is told."""
    status, text, _ = await post(BODY)
    assert (status, text) == (401, "the header X-Thanx-Signature is missing")
    assert (await post(BODY, X_Thanx_Signature=sign(BODY, "other")))[0] == 401
    assert (await post(b"x", X_Thanx_Signature=sign(b"x")))[:2] == (400, "the body is not JSON")
    assert (await post(BODY, method="PUT", X_Thanx_Signature=sign(BODY)))[::2] == (405, "POST")
    assert listener.events == []


async def test_a_body_without_end_is_not_read(post: Post, listener: Listener) -> None:
    """More than 5 MB is refused without a look at the signature."""
    status, text, _ = await post(HUGE[: 2**20], *[HUGE[: 2**20]] * 5, X_Thanx_Signature=sign(HUGE))
    assert (status, text) == (413, "the body has more than 5,242,880 bytes")
    assert listener.events == []


async def test_a_body_that_does_not_come(post: Post) -> None:
    """A sender that stops in the middle does not hold the endpoint for ever."""
    begun = now()
    assert (await post(source=never(), X_Thanx_Signature=sign(BODY)))[0] == 408
    assert now() - begun < 15


@pytest.mark.parametrize("hangs", [True, False])
async def test_the_application_cannot_hold_the_answer(
    listener: Listener, caplog: pytest.LogCaptureFixture, hangs: bool
) -> None:
    """An application that hangs or fails is logged, without a guest's value, and the 200 comes in time."""
    seen: list[Event] = []

    async def on_event(event: Event) -> None:
        seen.append(event)
        if hangs:
            await asyncio.Event().wait()
        raise ValueError("jane@example.com")

    app = asgi_app(listener, SECRET, on_event=on_event)
    begun = now()
    with caplog.at_level(logging.ERROR):
        assert (await drive(app, "POST", chunked(BODY), SIGNED))[0] == 200
    assert now() - begun < 15
    assert seen == listener.events
    error = "TimeoutError" if hangs else "ValueError"
    assert caplog.messages == [f"on_event failed on RewardBatchCompleted: {error}"]
    assert "jane" not in caplog.text


async def test_who_has_gone_gets_no_answer(listener: Listener) -> None:
    """A disconnection in the middle of the body ends the request quietly."""
    messages: list[MutableMapping[str, object]] = [
        {"type": "http.request", "body": BODY[:5], "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> MutableMapping[str, object]:
        return messages.pop(0)

    async def send(message: MutableMapping[str, object]) -> None:
        raise AssertionError(message)

    scope: dict[str, object] = {"type": "http", "method": "POST", "headers": []}
    await asgi_app(listener, SECRET)(scope, receive, send)
    assert (messages, listener.events) == ([], [])


async def test_websockets_are_closed(listener: Listener) -> None:
    """The application is no websocket."""
    sent: list[MutableMapping[str, object]] = []

    async def receive() -> MutableMapping[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, object]) -> None:
        sent.append(message)

    await asgi_app(listener, SECRET)({"type": "websocket", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_an_empty_secret_is_found_at_the_start(listener: Listener) -> None:
    """An endpoint that would take anything is not made, and the secret is in no repr."""
    for make in (aiohttp_handler, asgi_app):
        with pytest.raises(ConfigurationError, match="secret is empty"):
            make(listener, "")


@pytest.mark.realtime
async def test_under_uvicorn(listener: Listener) -> None:
    """The application runs by itself under a real server, lifespan included."""
    socket = create_server(("127.0.0.1", 0))
    config = uvicorn.Config(asgi_app(listener, SECRET), lifespan="on", log_config=None, ws="none")
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve([socket]))
        await until(lambda: server.started)
        port = socket.getsockname()[1]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            for body, headers, status in ((BODY, SIGNED, 200), (BODY, {}, 401), (HUGE, SIGNED, 413)):
                async with http.post("/any", data=chunked(body), headers=headers) as response:
                    assert response.status == status
            async with http.get("/any") as response:
                assert (response.status, response.headers["Allow"]) == (405, "POST")
        server.should_exit = True
    assert [type(event) for event in listener.events] == [RewardBatchCompleted]
