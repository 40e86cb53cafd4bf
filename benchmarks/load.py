"""Load on a service that speaks as the README's do, from a process beside it; prints as JSON how it went."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from collections.abc import Sequence
from urllib.parse import quote, urlsplit

import attrs

from benchmarks.held import milliseconds

_MOST_CONNECTIONS = 2_000
_IDLE = 2.0  # servers close connections that are idle for some seconds; one must not ask on them just then


def guest(number: int) -> str:
    """One in a hundred is junk, one in a hundred nobody whom Thanx knows."""
    return {98: f"unknown{number}@example.com", 99: f"junk{number}"}.get(
        number % 100, f"guest{number}@example.com"
    )


@attrs.define(eq=False)
class Asked:
    """One request, and its answer once it is there; times are on the loop's clock."""

    request: bytes
    due: float
    status: int | None = None
    answer: object = None
    seconds: float = 0.0


class _Connection(asyncio.Protocol):
    """Asks one thing at a time."""

    def __init__(self, load: Load) -> None:
        self.idle_since = 0.0
        self._load = load
        self._received = bytearray()
        self._asked: Asked | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, asked: Asked) -> None:
        self._asked = asked
        self._transport.write(asked.request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or self._asked is None:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
        if len(body) < length:
            return
        asked, self._asked = self._asked, None
        self._received.clear()
        asked.status, asked.answer = int(head.split(b" ", 2)[1]), json.loads(body)
        self._load.ended(asked)
        self._load.rest(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self._asked is not None:
            self._load.ended(self._asked)
        self._load.lost(self)

    def close(self) -> None:
        self._transport.abort()


class Load:
    """Sends each request when it is due, on an idle connection or a new one, and notes the answer."""

    def __init__(self, url: str) -> None:
        self.most_in_flight = 0
        parts = urlsplit(url)
        self._address = parts.hostname or "127.0.0.1", parts.port or 80
        self._idle: deque[_Connection] = deque()
        self._connections = 0
        self._in_flight = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()

    def rest(self, connection: _Connection) -> None:
        """Keep a connection for the next request."""
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        self._change.set()

    def lost(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._connections -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        self._change.set()

    def ended(self, asked: Asked) -> None:
        """Note that the answer is there, or that none will come."""
        asked.seconds = asyncio.get_running_loop().time() - asked.due
        self._in_flight -= 1
        self._change.set()

    async def run(self, requests: Sequence[bytes], seconds: float) -> list[Asked]:
        """Send the requests, and wait for the last answer."""
        started = asyncio.get_running_loop().time()
        every = seconds / len(requests)
        all_asked = [Asked(request, started + number * every) for number, request in enumerate(requests)]
        for asked in all_asked:
            await self._until(asked.due)
            self._ask(asked)
        while self._in_flight:
            await self._changed()
        return all_asked

    def close(self) -> None:
        """Close the connections, which are all idle."""
        for connection in list(self._idle):
            connection.close()

    async def _until(self, due: float) -> None:
        """Wait until a request is due, and there is a connection for it."""
        if (wait := due - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(wait)
        while not self._idle and self._connections >= _MOST_CONNECTIONS:
            await self._changed()

    async def _changed(self) -> None:
        self._change.clear()
        await self._change.wait()

    def _ask(self, asked: Asked) -> None:
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        fresh = asyncio.get_running_loop().time() - _IDLE
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > fresh:
                connection.ask(asked)
                return
            connection.close()
        self._connections += 1
        task = asyncio.create_task(self._open(asked))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, asked: Asked) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), *self._address)
        except OSError:
            self._connections -= 1
            self.ended(asked)
        else:
            connection.ask(asked)


def thank(name: str) -> bytes:
    """Ask for a reward."""
    body = json.dumps({"email": name}).encode()
    head = "POST /thanks HTTP/1.1\r\nHost: load\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str) -> bytes:
    """Get a path."""
    return f"GET {path} HTTP/1.1\r\nHost: load\r\n\r\n".encode()


def summary(all_asked: Sequence[Asked]) -> dict[str, object]:
    """Statuses, and milliseconds until the answer."""
    statuses = Counter(str(asked.status) for asked in all_asked)
    return {"statuses": statuses, **milliseconds([asked.seconds for asked in all_asked])}


async def _thanks(url: str, count: int, seconds: float) -> dict[str, object]:
    load, names = Load(url), [guest(number) for number in range(count)]
    begun = asyncio.get_running_loop().time()
    asked = await load.run([thank(name) for name in names], seconds)
    took = asyncio.get_running_loop().time() - begun
    wrong = sum(row.status != (202 if "@" in name else 422) for name, row in zip(names, asked, strict=True))
    jobs = {row.answer["job"] for row in asked if isinstance(row.answer, dict) and "job" in row.answer}
    known = [name for name in names if "@" in name]
    outcomes = await load.run([get(f"/thanks?email={quote(name)}") for name in known], seconds)
    load.close()
    for name, row in zip(known, outcomes, strict=True):
        reason = "User not found" if name.startswith("unknown") else None
        wrong += (row.status, row.answer) != (200, {"issued": reason is None, "reason": reason})
    return {
        **summary(asked),
        "wrong": wrong,
        "jobs": len(jobs),
        "seconds": took,
        "most_in_flight": load.most_in_flight,
    }


async def _gets(url: str, count: int, seconds: float, path: str) -> dict[str, object]:
    load = Load(url)
    asked = await load.run([get(path)] * count, seconds)
    load.close()
    return summary(asked)


def main(url: str, count: str, seconds: str, *path: str) -> None:
    """Ask for a reward for each of ``count`` guests, spread evenly over so many seconds whatever the service
    does, then for each guest's outcome. With a path, only get that, as often as it would have asked."""
    work = _gets(url, int(count), float(seconds), *path) if path else _thanks(url, int(count), float(seconds))
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main(*sys.argv[1:])
