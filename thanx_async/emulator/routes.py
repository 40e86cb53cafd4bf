"""The endpoints, strict about headers, scopes and bodies."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import orjson
from aiohttp import web

from thanx_async.emulator.state import Refused, State, new_campaign

_Handler = Callable[[web.Request], Awaitable[web.Response]]
_ISSUE_FIELDS = ("campaign_id", "merchant_id", "variant_id", "identifiers")


class Routes:
    """The handlers, over one state and one credential."""

    def __init__(
        self, state: State, *, client_id: str | None, access_token: str | None, scopes: frozenset[str]
    ) -> None:
        self.epoch = datetime.now(UTC)
        self._state = state
        self._client_id = client_id
        self._access_token = access_token
        self._scopes = scopes
        self._answers: dict[str, tuple[str, bytes]] = {}

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
                raise Refused(403, "FORBIDDEN", "the scope rewards.issue is missing")
            return await handler(request)

        return self._checked(check)

    def _checked(self, handler: _Handler) -> _Handler:
        async def check(request: web.Request) -> web.Response:
            self._check_headers(request)
            return await handler(request)

        return check

    def _check_headers(self, request: web.Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        client_id = request.headers.get("X-ClientId", "")
        if scheme != "Bearer" or not token or token != (self._access_token or token):
            raise Refused(401, "AUTHENTICATION_GENERIC", "the access token is not accepted")
        if not client_id or client_id != (self._client_id or client_id):
            raise Refused(401, "AUTHENTICATION_GENERIC", "the client id is not accepted")
        if request.headers.get("Accept-Version") != "v4.0":
            raise Refused(400, "BAD_REQUEST", "the header Accept-Version must be v4.0")
        if request.content_type != "application/json" or "Content-Type" not in request.headers:
            raise Refused(400, "BAD_REQUEST", "the header Content-Type must be application/json")
        if not request.headers.get("User-Agent"):
            raise Refused(400, "BAD_REQUEST", "the header User-Agent is missing")

    async def _issue(self, request: web.Request) -> web.Response:
        raw = await request.read()
        body = _object(raw)
        for name in _ISSUE_FIELDS:
            if name not in body:
                raise Refused(400, "BAD_REQUEST", f"{name} is missing")
        if unknown := sorted(set(body) - set(_ISSUE_FIELDS)):
            raise Refused(400, "BAD_REQUEST", f"{unknown[0][:50]} is no parameter of this endpoint")
        key = request.headers.get("X-Idempotency-Key")
        digest = hashlib.sha256(raw).hexdigest()
        if key in self._answers:
            first, answer = self._answers[key]
            if first != digest:
                message = "this idempotency key was used with another body"
                raise Refused(422, "UNPROCESSABLE_ENTITY", message)
            return _json(answer, 202)
        now = _now()
        job = self._state.issue(body, now)
        answer = orjson.dumps({"issuance_job": job.as_json(now, self.epoch)})
        if key is not None:
            self._answers[key] = digest, answer
        return _json(answer, 202)

    async def _job(self, request: web.Request) -> web.Response:
        job = self._state.job(request.match_info["id"], request.query.get("merchant_id"))
        return _json(orjson.dumps({"issuance_job": job.as_json(_now(), self.epoch)}))

    async def _revoke(self, request: web.Request) -> web.Response:
        body = _object(await request.read())
        job = self._state.job(request.match_info["id"], body.get("merchant_id"))
        self._state.revoke(job, _now())
        return _json(orjson.dumps({"issuance_job": job.as_json(_now(), self.epoch)}), 202)

    async def _create_campaign(self, request: web.Request) -> web.Response:
        fields = _object(await request.read()).get("campaign")
        if not isinstance(fields, dict):
            raise Refused(400, "BAD_REQUEST", "campaign is missing or not an object")
        self._state.check_merchant(fields.get("merchant_id"))
        campaign = new_campaign(fields, len(self._state.campaigns) + 1)
        self._state.campaigns[str(campaign["id"])] = campaign
        return _json(orjson.dumps({"campaign": campaign}))

    async def _campaigns(self, request: web.Request) -> web.Response:
        return self._page(request, "campaigns", list(self._state.campaigns.values()))

    async def _campaign(self, request: web.Request) -> web.Response:
        campaign = self._state.campaigns.get(request.match_info["id"])
        if campaign is None:
            raise Refused(404, "RESOURCE_NOT_FOUND", "there is no such campaign")
        return _json(orjson.dumps({"campaign": campaign}))

    async def _templates(self, request: web.Request) -> web.Response:
        return self._page(request, "reward_templates", self._state.templates)

    async def _template(self, request: web.Request) -> web.Response:
        self._state.check_merchant(request.query.get("merchant_id"))
        for template in self._state.templates:
            if template["id"] == request.match_info["id"]:
                return _json(orjson.dumps({"reward_template": template}))
        raise Refused(404, "RESOURCE_NOT_FOUND", "there is no such reward template")

    async def _merchants(self, _: web.Request) -> web.Response:
        return _json(orjson.dumps({"merchants": self._state.merchants}))

    async def _list_scopes(self, _: web.Request) -> web.Response:
        return _json(orjson.dumps({"scopes": sorted(self._scopes)}))

    def _page(self, request: web.Request, name: str, rows: list[dict[str, object]]) -> web.Response:
        self._state.check_merchant(request.query.get("merchant_id"))
        page = _number(request, "page", 1, 1_000_000)
        size = _number(request, "per_page", 10, 100)
        pagination = {"current_page": page, "per_page": size, "total_pages": -(-len(rows) // size)}
        shown = rows[(page - 1) * size : page * size]
        return _json(orjson.dumps({name: shown, "pagination": pagination}))


def refusal(status: int, code: str, message: str) -> web.Response:
    """An answer with the error envelope."""
    return _json(orjson.dumps({"error": {"code": code, "message": message}}), status)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


def _now() -> float:
    return asyncio.get_running_loop().time()


def _object(raw: bytes) -> dict[str, object]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Refused(400, "BAD_REQUEST", "the body is not JSON") from None
    if not isinstance(body, dict):
        raise Refused(400, "BAD_REQUEST", "the body must be a JSON object")
    return body


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise Refused(400, "BAD_REQUEST", f"{name} must be a number from 1 to {most:,}")
    return int(text)
