"""The emulator of Thanx's API: an aiohttp.web server on loopback."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter as Tally
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import format_datetime
from types import NoneType, TracebackType
from typing import Self

import attrs
from aiohttp import web

from thanx_async.emulator import checks
from thanx_async.emulator.answers import Refused
from thanx_async.emulator.clock import Clock
from thanx_async.emulator.counters import Counter, referees
from thanx_async.emulator.faults import BEFORE, Dice, Faults, ScriptedAnswer, Trouble
from thanx_async.emulator.guests import FailureRule, unknown_guests
from thanx_async.emulator.jobs import JobSpeed
from thanx_async.emulator.network import deliver, instead, scripted, too_many
from thanx_async.emulator.routes import Routes
from thanx_async.emulator.state import State
from thanx_async.emulator.webhooks import Post, Webhooks

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

THANX_LIMITS = ((5, 1.0), (2000, 900.0))
_LARGEST_BODY = 16 * 2**20
_HIGHEST_PORT = 65_535
_CLOSING = 0.2


@attrs.frozen
class RequestLog:
    """A request that the emulator received. ``time`` is in seconds on the emulator's clock."""

    time: float
    method: str
    path: str
    status: int
    idempotency_key: str | None
    body_digest: str


class Emulator:
    """An emulator of Thanx's API: ``async with Emulator() as emulator: emulator.url``.

    It has the merchant ``k2lye10h32l5wzo`` with the campaign ``camp_abc123`` and the variant ``var_treat1``,
    and a few others, so that the examples in Thanx's documentation work unchanged.

    Args:
        client_id, access_token: the only credential accepted; None accepts any.
        scopes: the scopes of the credential.
        limits: the rate limits, as pairs of requests and seconds.
        counter: how requests are counted against the limits.
        burst: requests that a leaky bucket accepts at once beyond the first; by default a full limit.
        speed: how fast jobs run. It can be changed at any time, for later jobs.
        fails: the rule for guests who get no reward.
        faults: random faults. They can be changed at any time.
        webhooks: where events are posted. It can be changed at any time, for later jobs.
        track_guests: remember each guest's number of rewards, at about 120 bytes per guest.
        host, port: where to listen; port 0 picks a free one.

    Attributes:
        url: the base URL, empty while the emulator is closed.
        requests: the requests received so far.
        refused: the number of requests refused with a 429.

    Raises:
        SettingError: a setting is wrong; the message names it.
    """

    def __init__(
        self,
        *,
        client_id: str | None = None,
        access_token: str | None = None,
        scopes: frozenset[str] = frozenset({"rewards.issue"}),
        limits: Sequence[tuple[int, float]] = THANX_LIMITS,
        counter: Counter = Counter.FIXED,
        burst: int | None = None,
        speed: JobSpeed = JobSpeed(),  # noqa: B008 - frozen
        fails: FailureRule = unknown_guests,
        faults: Faults = Faults(),  # noqa: B008 - frozen
        webhooks: Webhooks | None = None,
        track_guests: bool = True,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        checks.instance("Emulator.client_id", client_id, str, NoneType)
        checks.instance("Emulator.access_token", access_token, str, NoneType)
        checks.instance("Emulator.track_guests", track_guests, bool)
        checks.texts("Emulator.scopes", scopes)
        checks.kind("Emulator.fails", callable(fails), "a function of an identifier's type and value", fails)
        checks.text("Emulator.host", host)
        checks.whole("Emulator.port", port, 0, _HIGHEST_PORT)
        checks.instance("Emulator.speed", speed, JobSpeed)
        checks.instance("Emulator.faults", faults, Faults)
        checks.instance("Emulator.webhooks", webhooks, Webhooks, NoneType)
        self.url: str = ""
        self.requests: list[RequestLog] = []
        self.refused: int = 0
        self._clock = Clock()
        self._dice = Dice(faults)
        self._post = Post(self._clock)
        self._post.settings = webhooks
        self._state = State(self._clock, self._dice, speed, fails, track_guests=track_guests)
        self._routes = Routes(
            self._state, self._post, client_id=client_id, access_token=access_token, scopes=scopes
        )
        self._referees = referees(counter, limits, burst)
        self._script: deque[ScriptedAnswer] = deque()
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None
        self._closing = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Emulator {self.url or 'closed'}: {len(self.requests)} requests, {self.refused} refused>"

    @property
    def faults(self) -> Faults:
        """The random faults; set them at any time."""
        return self._dice.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        checks.instance("Emulator.faults", faults, Faults)
        self._dice.faults = faults

    @property
    def speed(self) -> JobSpeed:
        """How fast jobs run; set it at any time, for later jobs."""
        return self._state.speed

    @speed.setter
    def speed(self, speed: JobSpeed) -> None:
        checks.instance("Emulator.speed", speed, JobSpeed)
        self._state.speed = speed

    @property
    def webhooks(self) -> Webhooks | None:
        """Where events are posted; set it at any time, for later jobs."""
        return self._post.settings

    @webhooks.setter
    def webhooks(self, webhooks: Webhooks | None) -> None:
        checks.instance("Emulator.webhooks", webhooks, Webhooks, NoneType)
        self._post.settings = webhooks

    @property
    def jobs_accepted(self) -> int:
        """The number of jobs accepted so far."""
        return len(self._state.jobs)

    def reward_counts(self) -> Mapping[str, int]:
        """The number of rewards of each guest; needs ``track_guests``.

        All rewards of a job count as soon as it is accepted.
        """
        return +self._state.rewards

    def script(self, *answers: ScriptedAnswer) -> None:
        """Answer the next requests with these answers, one each."""
        for answer in answers:
            checks.instance("an answer of Emulator.script()", answer, ScriptedAnswer)
        self._script.extend(answers)

    def advance(self, seconds: float) -> None:
        """Skip ``seconds``: jobs finish, rate limits recover, keys age, and late answers arrive."""
        self._clock.advance(seconds)

    async def __aenter__(self) -> Self:
        self._clock.start()
        self._closing = asyncio.Event()
        app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[self._judge])
        app.add_routes(self._routes.table())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSING)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        await self._post.start()
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.set()
        try:
            await self._post.close()
        finally:
            if self._runner:
                await self._runner.cleanup()
        self.url = ""

    @web.middleware
    async def _judge(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Count, refuse, answer and log a request, with the faults that it meets."""
        body = await request.read()
        now = self._clock.now()
        script = self._script.popleft() if self._script else None
        trouble = Trouble(script.fault, delay=script.delay) if script else self._dice.request(now)
        response = await self._answer(request, handler, now, script, trouble)
        response.headers["Date"] = format_datetime(self._clock.wall(now), usegmt=True)
        self._log(request, now, response.status, body)
        await self._clock.sleep(trouble.delay)
        return await deliver(request, response, trouble.fault, self._closing)

    async def _answer(
        self,
        request: web.Request,
        handler: _Handler,
        now: float,
        script: ScriptedAnswer | None,
        trouble: Trouble,
    ) -> web.Response:
        if trouble.fault in BEFORE:
            return instead(trouble.fault)
        if script is not None and (script.status is not None or script.body is not None):
            return scripted(script)
        server = self._clock.wall(now).timestamp()
        verdicts = [judge.admits(server) for judge in self._referees]
        if trouble.refused or not all(verdicts):
            self.refused += 1
            return too_many(self.faults.retry_after if trouble.refused else None)
        return await _act(request, handler)

    def _log(self, request: web.Request, now: float, status: int, body: bytes) -> None:
        key = request.headers.get("X-Idempotency-Key")
        digest = hashlib.sha256(body).hexdigest()
        self.requests.append(RequestLog(now, request.method, request.path, status, key, digest))

    def statistics(self) -> dict[str, object]:
        """Counts of requests by status, faults, webhooks, jobs and rewards; no guest is named."""
        rewards = self.reward_counts()
        return {
            "requests": dict(Tally(str(row.status) for row in self.requests)),
            "faults": {str(name): count for name, count in self._dice.drawn.items()},
            "webhooks": dict(self._post.sent),
            "jobs": self.jobs_accepted,
            "rewards": sum(rewards.values()),
            "most_for_one_guest": max(rewards.values(), default=0),
        }


async def _act(request: web.Request, handler: _Handler) -> web.Response:
    try:
        response = await handler(request)
    except Refused as error:
        return error.response()
    except web.HTTPNotFound:
        return Refused(404, "there is no such endpoint").response()
    except web.HTTPMethodNotAllowed:
        return Refused(405, "the endpoint does not take this method").response()
    assert isinstance(response, web.Response)  # noqa: S101 - all handlers are the emulator's own
    return response
