"""A plain HTTP client of the emulator, and a receiver of its webhooks."""

import asyncio
import json

import aiohttp
import attrs
from aiohttp import web

from tests.helpers import SECRET, TARGET, until
from tests.helpers import sign as signature
from thanx_async.emulator import sign

HEADERS = {
    "X-ClientId": "{client_id}",
    "Accept-Version": "v4.0",
    "Content-Type": "application/json",
    "Authorization": "Bearer {access_token}",
    "X-Idempotency-Key": "550e8400-e29b-41d4-a716-446655440000",
    "User-Agent": "curl/8.5.0",
}
ISSUE = "/partner/campaigns/issue"
Json = dict[str, object]


async def call(
    http: aiohttp.ClientSession,
    method: str,
    path: str,
    *,
    body: str = "",
    headers: dict[str, str] | None = None,
) -> tuple[int, Json]:
    async with http.request(method, path, data=body or None, headers=headers) as response:
        return response.status, await response.json()


def code(answer: Json) -> object:
    error = answer["error"]
    assert isinstance(error, dict)
    assert error["message"]
    return error["code"]


def body(*guests: str) -> str:
    rows = ", ".join(f'{{"type": "email", "value": "{guest}"}}' for guest in guests)
    target = ", ".join(f'"{name}": "{value}"' for name, value in TARGET.items())
    return f'{{{target}, "identifiers": [{rows}]}}'


@attrs.define
class Receiver:
    """An endpoint that keeps what it gets; ``status`` is its answer, after ``delay`` seconds."""

    url: str = ""
    status: int = 200
    delay: float = 0
    events: list[Json] = attrs.field(factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def take(self, request: web.Request) -> web.Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        raw = await request.read()
        assert request.headers["X-Thanx-Signature"] == signature(raw) == sign(raw, SECRET)
        assert request.content_type == "application/json"
        self.events.append(json.loads(raw))
        await asyncio.sleep(self.delay)
        self.at_once -= 1
        return web.Response(status=self.status)

    async def has(self, count: int) -> None:
        """Wait for so many events."""
        await until(lambda: len(self.events) >= count)

    def data(self, kind: str) -> list[Json]:
        return [data_of(event) for event in self.events if event.get("event") == kind]


def data_of(event: Json) -> Json:
    data = event["data"]
    assert isinstance(data, dict)
    return data
