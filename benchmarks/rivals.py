"""What a user would write, or generate, without thanx_async: no checks, no normalising, no accounts.

Each gives plain guests in batches of 10,000 to a server, at most `AT_ONCE` requests at a time.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Sequence
from uuid import uuid4

import aiohttp
import httpx
import orjson

AT_ONCE = 5
_BATCH = 10_000
_PATH = "/partner/campaigns/issue"
_TARGET = {"campaign_id": "camp_abc123", "merchant_id": "k2lye10h32l5wzo", "variant_id": "var_treat1"}
_HEADERS = {
    "Authorization": "Bearer token",
    "X-ClientId": "client",
    "Accept-Version": "v4.0",
    "Content-Type": "application/json",
    "User-Agent": "benchmark/1.0.0",
}


def _payload(guests: Sequence[str]) -> dict[str, object]:
    identifiers = [{"type": "email" if "@" in guest else "phone", "value": guest} for guest in guests]
    return {**_TARGET, "identifiers": identifiers}


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


async def generated_client(url: str, guests: Sequence[str], package: str) -> None:
    """A client that openapi-python-client has made from `openapi.json`, used as its README says."""
    generated, models = importlib.import_module(package), importlib.import_module(f"{package}.models")
    call = importlib.import_module(f"{package}.api.default.issue_rewards")
    semaphore = asyncio.Semaphore(AT_ONCE)
    client = generated.AuthenticatedClient(
        base_url=url, token="token", headers=_HEADERS, raise_on_unexpected_status=True
    )
    async with client:

        async def send(first: int) -> str:
            async with semaphore:
                identifiers = [
                    models.Identifier(
                        models.IdentifierType.EMAIL if "@" in guest else models.IdentifierType.PHONE, guest
                    )
                    for guest in guests[first : first + _BATCH]
                ]
                body = models.IssueRewards(**_TARGET, identifiers=identifiers)
                answer = await call.asyncio(client=client, body=body, x_idempotency_key=str(uuid4()))
                return str(answer.issuance_job.id)

        await asyncio.gather(*(send(first) for first in range(0, len(guests), _BATCH)))
