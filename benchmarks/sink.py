"""A loopback server of almost no cost, beside which a benchmark's CPU time is the client's alone."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from contextlib import AbstractContextManager

from benchmarks import harness

_GUEST = b'"value":'


class _Connection(asyncio.Protocol):
    """Counts the guests in each body, and calls every job completed, with one guest in ``one_in`` failed.

    The emulator, which checks everything as Thanx does, would be the slower side.
    """

    received = 0
    jobs = 0
    one_in = 0

    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n") + 4) > 3:
            head = self._buffer[:end].decode("latin-1")
            length = int(head.lower().partition("content-length:")[2].split("\r", 1)[0] or 0)
            if len(self._buffer) < end + length:
                return
            self._answer(head, bytes(self._buffer[end : end + length]))
            del self._buffer[: end + length]

    def _answer(self, head: str, body: bytes) -> None:
        path = head.split(" ", 2)[1].partition("?")[0]
        if path == "/received":
            self._reply(200, {"received": _Connection.received})
        elif head.startswith("POST"):
            count = body.replace(b": ", b":").count(_GUEST)
            _Connection.received += count
            _Connection.jobs += 1
            self._reply(202, _job(f"job{_Connection.jobs}x{count}", "pending", count))
        else:
            job_id = path.rpartition("/")[2]
            self._reply(200, _job(job_id, "completed", int(job_id.rpartition("x")[2])))

    def _reply(self, status: int, payload: dict[str, object]) -> None:
        body = json.dumps(payload).encode()
        head = (
            f"HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)


def _job(job_id: str, state: str, count: int) -> dict[str, object]:
    indices = range(0, count, _Connection.one_in) if _Connection.one_in else ()
    job: dict[str, object] = {"id": job_id, "state": state, "total_count": count}
    if state == "completed":
        counts = {"success_count": count - len(indices), "failure_count": len(indices)}
        failures = [
            {"identifier_index": index, "identifier_type": "email", "error": "User not found"}
            for index in indices
        ]
        job |= {"processed_count": count, **counts, "summary": {**counts, "failures": failures}}
    return {"issuance_job": job}


def received(url: str) -> int:
    """How many guests have arrived since the server was started."""
    with urllib.request.urlopen(f"{url}/received") as answer:
        return int(json.load(answer)["received"])


def sink(one_in: int = 0) -> AbstractContextManager[str]:
    """The server in a process of its own, by its URL."""
    return harness.server("benchmarks.sink", str(one_in))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    _Connection.one_in = int(sys.argv[1])
    asyncio.run(_serve())
