"""What a user would write or generate without thanx_async, to be measured beside it: no checks, no report."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from uuid import uuid4

import aiohttp
import httpx
import orjson

from benchmarks.issuing import AT_ONCE, HEADERS, TARGET

Send = Callable[[str, Sequence[str]], Coroutine[object, object, None]]

_PACKAGE = "thanx_generated"
_BATCH = 10_000
_PATH = "/partner/campaigns/issue"


def _payload(guests: Sequence[str]) -> dict[str, object]:
    identifiers = [{"type": "email" if "@" in guest else "phone", "value": guest} for guest in guests]
    return {**TARGET, "identifiers": identifiers}


async def _in_batches(guests: Sequence[str], send: Callable[[Sequence[str]], Awaitable[str]]) -> None:
    """Batches of 10,000, as many at a time as a semaphore lets through."""
    semaphore = asyncio.Semaphore(AT_ONCE)

    async def one(first: int) -> str:
        async with semaphore:
            return await send(guests[first : first + _BATCH])

    await asyncio.gather(*(one(first) for first in range(0, len(guests), _BATCH)))


async def issue_at_once(session: aiohttp.ClientSession, url: str, guests: Sequence[str]) -> str:
    """One request for some guests with aiohttp and orjson."""
    body, key = orjson.dumps(_payload(guests)), {"X-Idempotency-Key": str(uuid4())}
    async with session.post(url + _PATH, data=body, headers=key) as response:
        response.raise_for_status()
        return str(orjson.loads(await response.read())["issuance_job"]["id"])


async def aiohttp_orjson(url: str, guests: Sequence[str]) -> None:
    """A hand-written loop with aiohttp, orjson and a semaphore."""
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        await _in_batches(guests, partial(issue_at_once, session, url))


async def httpx_json(url: str, guests: Sequence[str]) -> None:
    """The same with httpx and the standard library's json."""
    async with httpx.AsyncClient(headers=HEADERS, timeout=60) as session:

        async def send(batch: Sequence[str]) -> str:
            body, key = json.dumps(_payload(batch)).encode(), {"X-Idempotency-Key": str(uuid4())}
            response = await session.post(url + _PATH, content=body, headers=key)
            response.raise_for_status()
            return str(response.json()["issuance_job"]["id"])

        await _in_batches(guests, send)


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
        client = root.AuthenticatedClient(
            base_url=url, token="token", headers=HEADERS, raise_on_unexpected_status=True
        )

        async def send(batch: Sequence[str]) -> str:
            answer = await call.asyncio(client=client, body=payload(batch), x_idempotency_key=str(uuid4()))
            return str(answer.issuance_job.id)

        async with client:
            await _in_batches(guests, send)

    return send_all
