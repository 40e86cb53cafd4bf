"""What fails before the first byte has left is not in doubt, and says what it is."""

import asyncio
import socket
import ssl
import subprocess
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.helpers import LOST, ONCE, TARGET, guests, until
from thanx_async import (
    ConfigurationError,
    ConnectionFailedError,
    RequestTimeoutError,
    RetryPolicy,
    ThanxClient,
    ThanxError,
)
from thanx_async.client import DEFAULT_TIMEOUT
from thanx_async.emulator import Emulator

pytestmark = pytest.mark.realtime
REMOTE = "https://api.thanx.example"


async def issue(
    url: str,
    session: aiohttp.ClientSession | None = None,
    *,
    retry: RetryPolicy = ONCE,
    timeout: aiohttp.ClientTimeout = DEFAULT_TIMEOUT,
) -> None:
    async with ThanxClient(
        "c", "s3cret-token", base_url=url, session=session, retry=retry, timeout=timeout
    ) as client:
        await client.issue_rewards(**TARGET, identifiers=guests(2), idempotency_key="key-1")


@asynccontextmanager
async def server(answer: bytes, seen: list[bytes]) -> AsyncIterator[str]:
    """Listens, answers whatever comes with the same bytes, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(65_536))
        writer.write(answer)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(407, ConfigurationError), (403, ConnectionFailedError), (502, ConnectionFailedError)],
)
async def test_a_proxy_that_does_not_connect(status: int, kind: type[ThanxError]) -> None:
    """The proxy's answer to CONNECT is named, and is not taken for Thanx's; 407 is not tried again."""
    seen: list[bytes] = []
    async with (
        server(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status, seen) as proxy,
        aiohttp.ClientSession(proxy=proxy) as session,
    ):
        with pytest.raises(kind, match=rf"proxy .*HTTP {status}") as caught:
            await issue(REMOTE, session, retry=ONCE if status != 407 else RetryPolicy())
    assert not caught.value.in_doubt
    assert len(seen) == 1
    assert b"s3cret" not in seen[0]


async def test_a_proxy_that_hangs_up() -> None:
    """A connection to the proxy that ends before the tunnel is made has carried nothing to Thanx."""
    async with server(b"", []) as proxy, aiohttp.ClientSession(proxy=proxy) as session:
        with pytest.raises(ConnectionFailedError, match="before anything was sent") as caught:
            await issue(REMOTE, session)
    assert not caught.value.in_doubt


@pytest.mark.parametrize("by", ["auth", "netrc"])
async def test_a_session_with_credentials(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """A session whose credentials exclude the access token is named as what is wrong."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        given = aiohttp.ClientSession(
            auth=aiohttp.BasicAuth("me", "mine") if by == "auth" else None, trust_env=by == "netrc"
        )
        async with given as session:
            with pytest.raises(ConfigurationError, match="has credentials of its own") as caught:
                await issue(emulator.url, session)
    assert (caught.value.in_doubt, caught.value.argument) == (False, "session")
    assert emulator.requests == []


class Replacing(aiohttp.ClientRequest):
    """Takes its credentials from somewhere else, as aiohttp before 3.13 does from netrc files."""

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]  # whatever aiohttp passes
        self.headers["Authorization"] = "Basic bWU6bWluZQ=="


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_session_that_replaces_the_token(emulator: Emulator, method: str) -> None:
    """No request leaves with other credentials than Thanx's, and middlewares of the session still work."""
    passed: list[str] = []

    async def passing(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        passed.append(request.method)
        return await handler(request)

    session = aiohttp.ClientSession(trust_env=True, request_class=Replacing, middlewares=[passing])
    async with session, ThanxClient("c", "t", base_url=emulator.url, session=session, retry=ONCE) as client:
        with pytest.raises(ConfigurationError, match="has credentials of its own") as caught:
            await (client.get_scopes() if method == "GET" else issue(emulator.url, session))
    assert not caught.value.in_doubt
    assert (emulator.requests, passed) == ([], [])
    async with aiohttp.ClientSession(trust_env=True, middlewares=[passing]) as session:
        await issue(emulator.url, session)
    assert passed == ["POST"]


async def test_an_executor_that_is_shut_down() -> None:
    """Where names cannot be looked up any more, that is said at once."""
    pool = ThreadPoolExecutor()
    asyncio.get_running_loop().set_default_executor(pool)
    pool.shutdown()
    connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(ConfigurationError, match="cannot schedule new futures") as caught:
            await issue(REMOTE, session, retry=RetryPolicy())
    assert not caught.value.in_doubt


class Resolver(AbstractResolver):
    """Looks names up as the test wants it."""

    def __init__(self, look: Callable[[], Awaitable[object]]) -> None:
        self._look = look
        self.asked = asyncio.Event()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.set()
        await self._look()
        return []

    async def close(self) -> None: ...


async def too_long() -> None:
    raise UnicodeError("label too long")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_whatever_the_lookup_raises() -> None:
    """Errors that are none of aiohttp's own are errors of the library as well."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver(too_long))) as session:
        with pytest.raises(ConfigurationError, match="label too long") as caught:
            await issue(REMOTE, session)
    assert not caught.value.in_doubt


@pytest.mark.parametrize("url", [f"https://{'a' * 70}.example.com", "https://a..example.com"])
async def test_a_host_that_cannot_be(url: str) -> None:
    """A host name that no lookup could take is no URL."""
    with pytest.raises(ConfigurationError, match="base_url is not a URL"):
        await issue(url)


async def test_a_timeout_before_the_connection() -> None:
    """Time that is over while the connection is being made leaves nothing in doubt."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Resolver(for_ever))) as session:
        with pytest.raises(RequestTimeoutError, match="no connection to") as caught:
            await issue(REMOTE, session, timeout=aiohttp.ClientTimeout(total=0.05))
    assert not caught.value.in_doubt


async def test_a_cancellation_before_the_connection() -> None:
    """Who is cancelled while the connection is being made is told of no doubt."""
    resolver = Resolver(for_ever)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session:
        task = asyncio.create_task(issue(REMOTE, session))
        await resolver.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    assert not hasattr(caught.value, "__notes__")


async def test_doubt_outlasts_what_was_not_sent(emulator: Emulator) -> None:
    """Where an attempt was lost and the next one cannot begin, the request stays in doubt, with its key."""
    session = aiohttp.ClientSession()
    client = ThanxClient("c", "t", base_url=emulator.url, session=session, retry=RetryPolicy(base_delay=0.1))
    emulator.script(LOST)
    task = asyncio.create_task(client.issue_rewards(**TARGET, identifiers=guests(2), idempotency_key="key-1"))
    await until(lambda: emulator.requests)
    await session.close()
    with pytest.raises(ConfigurationError, match="session given to ThanxClient is closed") as caught:
        await task
    assert (caught.value.in_doubt, caught.value.idempotency_key) == (True, "key-1")


async def test_a_handshake_that_fails_says_why() -> None:
    """Errors of TLS that have no words of their own are named by their kind."""
    async with server(b"", []) as url:
        port = url.rpartition(":")[2]
        with pytest.raises(ConnectionFailedError, match=r"cannot connect to localhost:\d+: \w") as caught:
            await issue(f"https://localhost:{port}")
    assert not caught.value.in_doubt


async def test_a_private_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSL_CERT_FILE counts also where it is set after aiohttp was imported."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    try:
        await asyncio.to_thread(subprocess.run, make + subject, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl here")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    answer = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"scopes":[]}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with await asyncio.start_server(
        serve, "localhost", 0, ssl=context, family=socket.AF_INET
    ) as listening:
        url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
        async with ThanxClient("c", "t", base_url=url, retry=ONCE) as client:
            with pytest.raises(ConnectionFailedError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get_scopes()
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with ThanxClient("c", "t", base_url=url, retry=ONCE) as client:
            assert await client.get_scopes() == frozenset()


@pytest.mark.parametrize("by", ["environment", "session"])
async def test_no_proxy_sees_the_token(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Requests to a loopback address go there, not in plain text to a proxy that a session would use."""
    seen: list[bytes] = []
    async with server(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n", seen) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        given = (
            aiohttp.ClientSession(trust_env=True)
            if by == "environment"
            else aiohttp.ClientSession(proxy=proxy)
        )
        async with given as session:
            await issue(emulator.url, session)
    assert seen == []
    assert len(emulator.requests) == 1
