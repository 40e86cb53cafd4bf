"""The emulated Thanx: `Emulator`, an aiohttp.web server on loopback."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import TracebackType
from typing import Self

import attrs
from aiohttp import web

from thanx_async.emulator.counters import Counter, Referee, referee
from thanx_async.emulator.faults import Dice, Fault, Faults, ScriptedAnswer
from thanx_async.emulator.routes import Routes, refusal
from thanx_async.emulator.state import FailureRule, JobSpeed, Refused, State, unknown_guests

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

THANX_LIMITS = ((5, 1.0), (2000, 900.0))
_LARGEST_BODY = 16 * 2**20
_CLOSING = 0.2


@attrs.frozen
class RequestLog:
    """A request that came in; ``time`` is in seconds on the loop's clock."""

    time: float
    method: str
    path: str
    status: int
    idempotency_key: str | None
    body_digest: str


class Emulator:
    """A stand-in for Thanx: ``async with Emulator() as emulator: emulator.url``.

    It knows the merchant ``k2lye10h32l5wzo`` with the campaign ``camp_abc123`` and its variant
    ``var_treat1``, and some more, so that the examples of Thanx's documentation work as they stand.

    Args:
        client_id, access_token: the only credential that is accepted; None accepts any.
        scopes: what the credential may do.
        limits: pairs of requests and seconds.
        counter: how requests are counted against the limits.
        speed: how fast jobs run.
        fails: which guests get no reward.
        faults: what goes wrong on the way; can be set while it runs.
        track_guests: remember who was rewarded how often, which costs about 100 bytes a guest.
        host, port: where to listen; port 0 takes a free one.
    """

    def __init__(
        self,
        *,
        client_id: str | None = None,
        access_token: str | None = None,
        scopes: frozenset[str] = frozenset({"rewards.issue"}),
        limits: Sequence[tuple[int, float]] = THANX_LIMITS,
        counter: Counter = Counter.FIXED,
        speed: JobSpeed = JobSpeed(),  # noqa: B008 - frozen
        fails: FailureRule = unknown_guests,
        faults: Faults = Faults(),  # noqa: B008 - frozen
        track_guests: bool = True,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.url = ""
        self.requests: list[RequestLog] = []
        self.refused = 0
        self._state = State(speed, fails, track_guests=track_guests)
        self._routes = Routes(self._state, client_id=client_id, access_token=access_token, scopes=scopes)
        self._referees: list[Referee] = [referee(counter, *limit) for limit in limits]
        self._dice = Dice(faults)
        self._script: list[ScriptedAnswer] = []
        self._host, self._port = host, port
        self._epoch = datetime.now(UTC)
        self._runner: web.AppRunner | None = None
        self._closing: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Emulator {self.url or 'closed'}: {len(self.requests)} requests, {self.refused} refused>"

    @property
    def faults(self) -> Faults:
        return self._dice.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._dice = Dice(faults)

    @property
    def jobs_accepted(self) -> int:
        return len(self._state.jobs)

    def reward_counts(self) -> Mapping[str, int]:
        """How many rewards each guest holds; needs ``track_guests``."""
        return +self._state.rewards

    def script(self, *answers: ScriptedAnswer) -> None:
        """Give the next requests these answers, one each."""
        self._script += answers

    async def __aenter__(self) -> Self:
        loop_time = asyncio.get_running_loop().time()
        self._epoch = datetime.now(UTC) - timedelta(seconds=loop_time)
        self._routes.epoch = self._epoch
        self._closing = asyncio.Event()
        app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[self._judge])
        app.add_routes(self._routes.table())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSING)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://{self._host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._closing and self._runner:
            self._closing.set()
            await self._runner.cleanup()
        self.url = ""

    @web.middleware
    async def _judge(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Count, refuse, answer, log; and let go wrong what should."""
        now = asyncio.get_running_loop().time()
        body = await request.read()
        scripted = self._script.pop(0) if self._script else None
        fault = self._fault(request, scripted)
        response = await self._answer(request, handler, now, scripted, fault)
        response.headers["Date"] = format_datetime(self._epoch + timedelta(seconds=now), usegmt=True)
        self._log(request, now, response.status, body)
        await self._delay()
        return await self._damage(request, response, fault)

    def _fault(self, request: web.Request, scripted: ScriptedAnswer | None) -> Fault | None:
        if scripted is not None:
            return Fault(scripted.fault) if scripted.fault else None
        path = request.path
        return self._dice.draw() if path.endswith("/issue") or "/issuance_jobs/" in path else None

    async def _answer(
        self,
        request: web.Request,
        handler: _Handler,
        now: float,
        scripted: ScriptedAnswer | None,
        fault: Fault | None,
    ) -> web.Response:
        if scripted is not None and scripted.body is not None:
            return _raw(scripted.status, scripted.body, scripted.content_type, scripted.headers)
        if fault is Fault.RESET_BEFORE:
            return web.Response(status=499)
        if fault is Fault.HTML_502:
            return _raw(502, b"<html><title>502 Bad Gateway</title></html>", "text/html", {})
        if fault is Fault.ERROR_500:
            return refusal(500, "GENERIC_ERROR", "something went wrong")
        server = self._epoch.timestamp() + now
        verdicts = [judge.admits(server) for judge in self._referees]
        if not all(verdicts):
            self.refused += 1
            return refusal(429, "TOO_MANY_REQUESTS", "the rate limit is exceeded")
        try:
            response = await handler(request)
        except Refused as error:
            return refusal(error.status, error.code, error.message)
        except web.HTTPNotFound:
            return refusal(404, "RESOURCE_NOT_FOUND", "there is no such endpoint")
        except web.HTTPMethodNotAllowed:
            return refusal(405, "METHOD_NOT_ALLOWED", "the endpoint does not take this method")
        assert isinstance(response, web.Response)  # noqa: S101 - the handlers are all ours
        return response

    def _log(self, request: web.Request, now: float, status: int, body: bytes) -> None:
        key = request.headers.get("X-Idempotency-Key")
        digest = hashlib.sha256(body).hexdigest()
        self.requests.append(RequestLog(now, request.method, request.path, status, key, digest))

    async def _delay(self) -> None:
        if self.faults.delay:
            await asyncio.sleep(self.faults.delay)

    async def _damage(
        self, request: web.Request, response: web.Response, fault: Fault | None
    ) -> web.StreamResponse:
        if fault is Fault.ANSWER_LOST and self._closing:
            await self._closing.wait()
        if fault in {Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.ANSWER_LOST}:
            _cut(request)
        if fault is Fault.TRUNCATED:
            body = response.body if isinstance(response.body, bytes) else b""
            broken = web.StreamResponse(status=response.status, headers={"Content-Length": str(len(body))})
            await broken.prepare(request)
            await broken.write(body[: len(body) // 2])
            _cut(request)
            return broken
        return response

    def statistics(self) -> dict[str, object]:
        """Numbers of requests by status, of jobs, and of rewards; no guest is named."""
        rewards = self.reward_counts()
        statuses = Tally(str(row.status) for row in self.requests)
        return {
            "requests": dict(statuses),
            "jobs": self.jobs_accepted,
            "rewards": sum(rewards.values()),
            "most_for_one_guest": max(rewards.values(), default=0),
        }


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.close()


def _raw(status: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, body=body, headers={**headers, "Content-Type": content_type})
