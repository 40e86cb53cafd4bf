"""Answers without end: only their start is read, and the request stays in doubt."""

import asyncio
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import attrs
import pytest

from tests.helpers import FAST, ONCE, TARGET, guests
from thanx_async import BadRequestError, InvalidResponseError, ServerError, ThanxClient, ThanxError
from thanx_async.emulator import Emulator

pytestmark = pytest.mark.realtime
LARGEST = 2**24
BUFFERS = 2**26
"""More than the sockets of both sides hold on their way."""

CHUNKED = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
SCOPES = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"scopes":[]}'


@attrs.define
class Flood:
    """A server whose first answer does not end until the client hangs up; later ones are short."""

    head: bytes
    pieces: Iterator[bytes]
    url: str = ""
    sent: int = 0
    connections: int = 0
    hung_up: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await (self.pour(writer) if self.sent == 0 else self.answer(writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.hung_up.set()
        finally:
            writer.close()

    async def pour(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self.head + b"\r\n")
        for piece in self.pieces:
            writer.write(piece)
            self.sent += len(piece)
            await writer.drain()

    async def answer(self, writer: asyncio.StreamWriter) -> None:
        writer.write(SCOPES)
        await writer.drain()


@asynccontextmanager
async def flood(status: int, headers: bytes, pieces: Iterator[bytes]) -> AsyncIterator[Flood]:
    made = Flood(b"HTTP/1.1 %d X\r\n%s" % (status, headers), pieces)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as listening:
        made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield made


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def blanks() -> Iterator[bytes]:
    while True:
        yield b" " * 2**16


def chunked() -> Iterator[bytes]:
    return map(chunk, blanks())


def bomb(window: int) -> Iterator[bytes]:
    """A gigabyte of blanks, in a thousandth of it: a full flush makes each part readable by itself."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    first, other = (packer.compress(b" " * 2**20) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return map(chunk, [first, *[other] * 2**10])


async def issue(url: str) -> None:
    async with ThanxClient("c", "t", base_url=url, retry=ONCE) as client:
        await client.issue_rewards(**TARGET, identifiers=guests(2), idempotency_key="key-1")


ENDLESS = {
    "chunks": (CHUNKED, chunked),
    "a length that is far too large": (b"Content-Length: 999999999999999\r\n", blanks),
    "no length": (b"Connection: close\r\n", blanks),
}


@pytest.mark.parametrize(("headers", "pieces"), ENDLESS.values(), ids=ENDLESS)
async def test_an_endless_answer(headers: bytes, pieces: Callable[[], Iterator[bytes]]) -> None:
    """It ends after 16 MiB, in doubt and with its key, and the connection with it."""
    async with flood(202, headers, pieces()) as server:
        with pytest.raises(InvalidResponseError, match="more than 16,777,216 bytes") as caught:
            await issue(server.url)
        await server.hung_up.wait()
    assert (caught.value.in_doubt, caught.value.idempotency_key) == (True, "key-1")
    assert caught.value.status == 202
    assert len(caught.value.body_start) == 200
    assert LARGEST < server.sent < LARGEST + BUFFERS


@pytest.mark.parametrize(("status", "kind"), [(400, BadRequestError), (503, ServerError)])
async def test_an_endless_error(status: int, kind: type[ThanxError]) -> None:
    """The error follows from its status, and no more of it is read than of any answer."""
    async with flood(status, CHUNKED, chunked()) as server:
        with pytest.raises(kind) as caught:
            await issue(server.url)
        await server.hung_up.wait()
    assert caught.value.in_doubt == (status == 503)
    assert LARGEST < server.sent < LARGEST + BUFFERS


async def test_a_connection_with_more_to_come_is_not_used_again() -> None:
    """The next request has a connection of its own, and its own answer."""
    async with (
        flood(200, CHUNKED, chunked()) as server,
        ThanxClient("c", "t", base_url=server.url, retry=ONCE) as client,
    ):
        with pytest.raises(InvalidResponseError):
            await client.get_scopes()
        await server.hung_up.wait()
        assert await client.get_scopes() == frozenset()
        assert await client.get_scopes() == frozenset()
    assert server.connections == 2


@pytest.mark.parametrize(
    ("encoding", "window"), [("gzip", zlib.MAX_WBITS + 16), ("deflate", zlib.MAX_WBITS), ("deflate", -15)]
)
@pytest.mark.parametrize("status", [202, 400])
async def test_a_bomb(encoding: str, window: int, status: int) -> None:
    """What decodes to a gigabyte is not decoded to its end, whatever the status."""
    headers = CHUNKED + f"Content-Encoding: {encoding}\r\n".encode()
    expected: type[ThanxError] = InvalidResponseError if status == 202 else BadRequestError
    async with flood(status, headers, bomb(window)) as server:
        tracemalloc.start()
        try:
            with pytest.raises(expected) as caught:
                await issue(server.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (caught.value.in_doubt, caught.value.idempotency_key) == (status == 202, "key-1")
    assert peak < 2**29


async def test_the_longest_answer_fits() -> None:
    """A job of 10,000 failures with long reasons is read to its end."""
    reason = "no such guest; " * 64
    async with (
        Emulator(limits=[], speed=FAST, fails=lambda kind, value: reason) as emulator,
        ThanxClient("c", "t", base_url=emulator.url) as client,
    ):
        handle = await client.issue_rewards(**TARGET, identifiers=guests(10_000))
        emulator.advance(60)
        job = await handle.refresh()
    assert job.summary is not None
    assert len(job.summary.failures) == 10_000
    assert {row.error for row in job.summary.failures} == {reason}
