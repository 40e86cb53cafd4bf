"""Answers in Thanx's format: JSON, and the error envelope."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import web

CODES = {
    400: "BAD_REQUEST",
    401: "AUTHENTICATION_GENERIC",
    403: "FORBIDDEN",
    404: "RESOURCE_NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    422: "UNPROCESSABLE_ENTITY",
    429: "TOO_MANY_REQUESTS",
    500: "GENERIC_ERROR",
}


class Refused(Exception):  # noqa: N818 - an answer, not a failure of the emulator
    """A refusal with the error envelope. ``code`` is by default the documented code of the status."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status: int = status
        self.message: str = message
        self.code: str = code or CODES.get(status, "GENERIC_ERROR")

    def response(self) -> web.Response:
        return json_response({"error": {"code": self.code, "message": self.message}}, self.status)


def json_response(payload: object, status: int = 200) -> web.Response:
    return raw_response(status, orjson.dumps(payload))


def raw_response(
    status: int,
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    return web.Response(status=status, body=body, headers={**(headers or {}), "Content-Type": content_type})


def html_response(status: int, phrase: str) -> web.Response:
    """The HTML page of a proxy that answers instead of Thanx."""
    page = f"<html><title>{status} {phrase}</title></html>"
    return raw_response(status, page.encode(), "text/html")
