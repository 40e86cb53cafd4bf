"""The endpoints, strict about headers, scopes and bodies."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence

import orjson
from aiohttp import web

from thanx_async.emulator.answers import Refused, json_response, raw_response
from thanx_async.emulator.credentials import Credentials
from thanx_async.emulator.guests import Guests
from thanx_async.emulator.jobs import Job
from thanx_async.emulator.state import State
from thanx_async.emulator.webhooks import Post

_Handler = Callable[[web.Request], Awaitable[web.Response]]
_ISSUE_FIELDS = ("campaign_id", "merchant_id", "variant_id", "identifiers")


class Routes:
    """The handlers of one emulator."""

    def __init__(self, state: State, post: Post, *, credentials: Credentials, scopes: frozenset[str]) -> None:
        self._state = state
        self._post = post
        self._credentials = credentials
        self._scopes = scopes

    def table(self) -> list[web.RouteDef]:
        scoped, free = self._scoped, self._checked
        partner = "/partner"
        return [
            web.post(f"{partner}/campaigns/issue", scoped(self._issue)),
            web.get(f"{partner}/issuance_jobs/{{id}}", scoped(self._job)),
            web.post(f"{partner}/issuance_jobs/{{id}}/revoke", scoped(self._revoke)),
            web.post(f"{partner}/campaigns", scoped(self._create_campaign)),
            web.get(f"{partner}/campaigns", scoped(self._campaigns)),
            web.get(f"{partner}/campaigns/{{id}}", scoped(self._campaign)),
            web.get(f"{partner}/reward_templates", scoped(self._templates)),
            web.get(f"{partner}/reward_templates/{{id}}", scoped(self._template)),
            web.get(f"{partner}/merchants", free(self._merchants)),
            web.get(f"{partner}/scopes", free(self._list_scopes)),
        ]

    def _scoped(self, handler: _Handler) -> _Handler:
        async def check(request: web.Request) -> web.Response:
            if "rewards.issue" not in self._scopes:
                raise Refused(403, "the scope rewards.issue is missing")
            return await handler(request)

        return self._checked(check)

    def _checked(self, handler: _Handler) -> _Handler:
        async def check(request: web.Request) -> web.Response:
            self._check_headers(request)
            return await handler(request)

        return check

    def _check_headers(self, request: web.Request) -> None:
        self._credentials.check(request.headers)
        if request.headers.get("Accept-Version") != "v4.0":
            raise Refused(400, "the header Accept-Version must be v4.0")
        if request.content_type != "application/json" or "Content-Type" not in request.headers:
            raise Refused(400, "the header Content-Type must be application/json")
        if not request.headers.get("User-Agent"):
            raise Refused(400, "the header User-Agent is missing")

    async def _issue(self, request: web.Request) -> web.Response:
        raw = await request.read()
        key, digest = request.headers.get("X-Idempotency-Key"), hashlib.sha256(raw).hexdigest()
        answer = self._state.answered(key, digest)
        if answer is None:
            answer = await self._start_job(raw, key, digest)
        return raw_response(202, answer)

    async def _start_job(self, raw: bytes, key: str | None, digest: str) -> bytes:
        body = _object(raw)
        _check_fields(body)
        self._state.catalogue.check_merchant(body["merchant_id"])
        campaign = self._state.catalogue.campaign(body["campaign_id"])
        self._state.catalogue.check_variant(campaign, body["variant_id"])
        await asyncio.sleep(0)  # parsing 10,000 guests takes milliseconds, and the client may share the loop
        guests = Guests.parse(body["identifiers"])
        await asyncio.sleep(0)
        known = self._state.answered(key, digest)  # a retry may have overtaken this request
        if known is not None:
            return known
        job = self._state.issue(str(body["campaign_id"]), str(body["variant_id"]), guests)
        answer = orjson.dumps(self._envelope(job, job.created))
        self._state.remember(key, digest, answer)
        await self._post.announce(job, guests, campaign)
        return answer

    def _envelope(self, job: Job, now: float) -> dict[str, object]:
        return {"issuance_job": job.as_json(self._state.clock, now)}

    async def _job(self, request: web.Request) -> web.Response:
        job = self._state.job(request.match_info["id"], request.query.get("merchant_id"))
        return json_response(self._envelope(job, self._state.clock.now()))

    async def _revoke(self, request: web.Request) -> web.Response:
        body = _object(await request.read())
        job = self._state.job(request.match_info["id"], body.get("merchant_id"))
        return json_response(self._envelope(job, self._state.revoke(job)), 202)

    async def _create_campaign(self, request: web.Request) -> web.Response:
        body = _object(await request.read())
        return json_response({"campaign": self._state.catalogue.create(body.get("campaign"))})

    async def _campaigns(self, request: web.Request) -> web.Response:
        now = self._state.clock.wall(self._state.clock.now())
        return self._page(request, "campaigns", self._state.catalogue.active(now))

    async def _campaign(self, request: web.Request) -> web.Response:
        return json_response({"campaign": self._state.catalogue.campaign(request.match_info["id"])})

    async def _templates(self, request: web.Request) -> web.Response:
        return self._page(request, "reward_templates", self._state.catalogue.listed_templates())

    async def _template(self, request: web.Request) -> web.Response:
        self._state.catalogue.check_merchant(request.query.get("merchant_id"))
        return json_response({"reward_template": self._state.catalogue.template(request.match_info["id"])})

    async def _merchants(self, _: web.Request) -> web.Response:
        return json_response({"merchants": self._state.catalogue.merchants})

    async def _list_scopes(self, _: web.Request) -> web.Response:
        return json_response({"scopes": sorted(self._scopes)})

    def _page(self, request: web.Request, name: str, rows: Sequence[object]) -> web.Response:
        self._state.catalogue.check_merchant(request.query.get("merchant_id"))
        page = _number(request, "page", 1, 1_000_000)
        size = _number(request, "per_page", 10, 100)
        pagination = {"current_page": page, "per_page": size, "total_pages": -(-len(rows) // size)}
        return json_response({name: rows[(page - 1) * size : page * size], "pagination": pagination})


def _object(raw: bytes) -> dict[str, object]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Refused(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object")
    return body


def _check_fields(body: dict[str, object]) -> None:
    for name in _ISSUE_FIELDS:
        if name not in body:
            raise Refused(400, f"{name} is missing")


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most and len(text) < 9):
        raise Refused(400, f"{name} must be a number from 1 to {most:,}")
    return int(text)
