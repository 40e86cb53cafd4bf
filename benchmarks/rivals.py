"""What a user would write, or generate, without thanx_async: no checks, no normalising, no accounts.

Each gives plain guests in batches of 10,000 to a server, at most `AT_ONCE` requests at a time.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from uuid import uuid4

import aiohttp
import httpx
import orjson

from benchmarks.issuing import AT_ONCE, TARGET

Send = Callable[[str, Sequence[str]], Coroutine[object, object, None]]

_PACKAGE = "thanx_generated"
_BATCH = 10_000
_PATH = "/partner/campaigns/issue"
_HEADERS = {
    "Authorization": "Bearer token",
    "X-ClientId": "client",
    "Accept-Version": "v4.0",
    "Content-Type": "application/json",
    "User-Agent": "benchmark/1.0.0",
}


def _payload(guests: Sequence[str]) -> dict[str, object]:
    identifiers = [{"type": "email" if "@" in guest else "phone", "value": guest} for guest in guests]
    return {**TARGET, "identifiers": identifiers}


async def issue_one(session: aiohttp.ClientSession, url: str, guest: str) -> str:
    """A request for a single guest."""
    key = {"X-Idempotency-Key": str(uuid4())}
    async with session.post(url + _PATH, data=orjson.dumps(_payload([guest])), headers=key) as response:
        response.raise_for_status()
        return str(orjson.loads(await response.read())["issuance_job"]["id"])


async def aiohttp_orjson(url: str, guests: Sequence[str]) -> None:
    """A hand-written loop with aiohttp, orjson and a semaphore."""
    semaphore = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession(headers=_HEADERS) as session:

        async def send(first: int) -> str:
            async with semaphore:
                body = orjson.dumps(_payload(guests[first : first + _BATCH]))
                key = {"X-Idempotency-Key": str(uuid4())}
                async with session.post(url + _PATH, data=body, headers=key) as response:
                    response.raise_for_status()
                    return str(orjson.loads(await response.read())["issuance_job"]["id"])

        await asyncio.gather(*(send(first) for first in range(0, len(guests), _BATCH)))


async def httpx_json(url: str, guests: Sequence[str]) -> None:
    """The same with httpx and the standard library's json."""
    semaphore = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(headers=_HEADERS, timeout=60) as session:

        async def send(first: int) -> str:
            async with semaphore:
                body = json.dumps(_payload(guests[first : first + _BATCH])).encode()
                key = {"X-Idempotency-Key": str(uuid4())}
                response = await session.post(url + _PATH, content=body, headers=key)
                response.raise_for_status()
                return str(response.json()["issuance_job"]["id"])

        await asyncio.gather(*(send(first) for first in range(0, len(guests), _BATCH)))


def generate(directory: str) -> None:
    """Make a client from `openapi.json` with openapi-python-client."""
    description = str(Path(__file__).with_name("openapi.json"))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", description]
    command += ["--meta", "none", "--output-path", f"{directory}/{_PACKAGE}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def generated(directory: str) -> Send:
    """The client that `generate` made, used as its README says: an object for each guest."""
    sys.path.insert(0, directory)
    root, models = importlib.import_module(_PACKAGE), importlib.import_module(f"{_PACKAGE}.models")
    call = importlib.import_module(f"{_PACKAGE}.api.default.issue_rewards")

    def payload(guests: Sequence[str]) -> object:
        kinds = models.IdentifierType
        identifiers = [
            models.Identifier(kinds.EMAIL if "@" in guest else kinds.PHONE, guest) for guest in guests
        ]
        return models.IssueRewards(**TARGET, identifiers=identifiers)

    async def send_all(url: str, guests: Sequence[str]) -> None:
        semaphore = asyncio.Semaphore(AT_ONCE)
        client = root.AuthenticatedClient(
            base_url=url, token="token", headers=_HEADERS, raise_on_unexpected_status=True
        )

        async def send(first: int) -> str:
            async with semaphore:
                body, key = payload(guests[first : first + _BATCH]), str(uuid4())
                answer = await call.asyncio(client=client, body=body, x_idempotency_key=key)
                return str(answer.issuance_job.id)

        async with client:
            await asyncio.gather(*(send(first) for first in range(0, len(guests), _BATCH)))

    return send_all
