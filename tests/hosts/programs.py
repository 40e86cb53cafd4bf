"""The README's services and worker as processes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aiohttp

from tests.helpers import HANGS, SECRET, environment, program, until
from thanx_async.emulator import Emulator

SERVICES = {"aiohttp": program("async def shut_down"), "fastapi": program("uvicorn.run")}
WORKER = program("async def receive")
EXIT_AFTER_SIGTERM = {"aiohttp": 0, "fastapi": -15}
"""aiohttp ends as if nothing had happened; uvicorn raises the signal again once everything is closed."""


def in_batches_of(size: int, host: str) -> str:
    """The service of a host, but a batch waits until it is full, however long its guests take to come."""
    usual, patience = "ledger=ledger,\n", ", timeout=10)"
    assert usual in SERVICES[host]
    assert patience in SERVICES[host]
    text = SERVICES[host].replace(usual, f"{usual} batch_size={size}, linger=3600,\n")
    return text.replace(patience, ", timeout=3600)")


class Process:
    """A program that runs in a folder of its own; what it prints goes into files there."""

    def __init__(self, text: str, folder: Path, emulator: Emulator, **variables: str) -> None:
        self._out, self._err = folder / "out.txt", folder / "err.txt"
        (folder / "program.py").write_text(text)
        with self._out.open("w") as out, self._err.open("w") as err:
            self.popen = subprocess.Popen(
                [sys.executable, "-W", "error", "program.py"],
                cwd=folder,
                env=environment(emulator.url, THANX_WEBHOOK_SECRET=SECRET, PYTHONUNBUFFERED="1", **variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def complaints(self) -> list[str]:
        """Standard error without uvicorn's own news and the log of retries and batches in trouble."""
        news = ("INFO: ", "POST /partner/", "GET /partner/", "run service-")
        return [line for line in self.err.splitlines() if not line.startswith(news)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()

    def terminate(self) -> None:
        self.popen.terminate()

    async def ended(self) -> int:
        """The exit code."""
        return await asyncio.to_thread(self.popen.wait, HANGS)


class Service(Process):
    """A service and how to talk to it; ``answers`` are those that came, by guest."""

    def __init__(self, host: str, folder: Path, emulator: Emulator, text: str | None = None) -> None:
        self.host = host
        self.port = 0
        self.answers: dict[str, tuple[int, Mapping[str, object]]] = {}
        self.unanswered: list[str] = []
        super().__init__(text or SERVICES[host], folder, emulator, PORT="0")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listening(self) -> None:
        """Until it has told which port it was given."""
        await until(lambda: self.popen.poll() is not None or self._told_port())
        told = self._told_port()
        assert told, self.err
        self.port = int(told[1])

    def _told_port(self) -> re.Match[str] | None:
        return re.search(r"running on http://127\.0\.0\.1:(\d+)\s", self.out + self.err, re.IGNORECASE)

    async def thank(self, http: aiohttp.ClientSession, guest: str) -> int | None:
        """Ask for a reward; the status, None where the connection ended without an answer."""
        try:
            async with http.post(f"{self.url}/thanks", json={"email": guest}) as response:
                self.answers[guest] = response.status, await response.json()
                return response.status
        except aiohttp.ClientError:
            self.unanswered.append(guest)
            return None

    async def outcome(self, http: aiohttp.ClientSession, guest: str) -> object:
        async with http.get(f"{self.url}/thanks", params={"email": guest}) as response:
            return await response.json()

    def having(self, status: int) -> list[str]:
        """The guests who got this status."""
        return [guest for guest, (found, _) in self.answers.items() if found == status]


@asynccontextmanager
async def serving(
    host: str, folder: Path, emulator: Emulator, text: str | None = None
) -> AsyncIterator[tuple[Service, aiohttp.ClientSession]]:
    """The service of a host, ready, and a session that opens a connection for each request."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    with Service(host, folder, emulator, text) as service:
        await service.listening()
        async with aiohttp.ClientSession(connector=connector) as http:
            yield service, http
