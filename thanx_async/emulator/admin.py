"""Endpoints of the emulator's own, for tests in other processes and languages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from thanx_async.emulator.answers import json_response

PREFIX = "/emulator/"


def table(**views: Callable[[], Mapping[str, object]]) -> list[web.RouteDef]:
    """A GET endpoint for each view. These need no headers, count against no limit and meet no faults."""
    return [web.get(PREFIX + name, _answers(view)) for name, view in views.items()]


def _answers(view: Callable[[], Mapping[str, object]]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        return json_response(view())

    return handler
