"""`RedisRateLimiter`, for many machines, and the server side that keeps its state under one key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from thanx_async._core import checks
from thanx_async._core.addresses import ServerAddress
from thanx_async._core.errors import ConfigurationError, without_frames
from thanx_async._core.extras import missing
from thanx_async._core.tasks import Home
from thanx_async.limiter._limits import THANX_RATE_LIMITS, RateLimit
from thanx_async.limiter._pacing import Pacing
from thanx_async.limiter._reserve import DEFAULT_RESERVE
from thanx_async.limiter._shared import Reading, SharedLimiter
from thanx_async.limiter._store import StoreAwayError

try:
    from redis import asyncio as aioredis
    from redis import exceptions
except ImportError as error:
    raise missing(error, "redis") from error

TIMEOUT = 5.0
"""How long the server may take to connect, and for each command, in seconds."""

_SCHEMES = ("redis", "rediss", "unix")
_KEY = "thanx:limiter:1:"  # with the version of the value's form
_READ = "return {redis.call('GET', KEYS[1]), redis.call('TIME')}"
_WRITE = """
if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1
"""
_VERSION = 16
_KEPT = 86_400
_AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
    exceptions.OutOfMemoryError,
    OSError,
)
_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError)

_INHERITED: list[object] = []
"""Clients of a parent process, whose connections a forked child must not close."""


class RedisBackend:
    """A `Backend` in one key: 16 bytes that identify the version, and the packed state.

    The scripts are sent each time: Redis may forget them, and they are shorter than the state.
    """

    def __init__(self, address: ServerAddress, name: str, longest: float) -> None:
        address.check()
        self.label = f"{name!r} in Redis at {address.label}"
        self._address = address
        self._key = _KEY + name
        self._kept = _KEPT + int(longest)
        self._home = Home("the rate limiter", "async with limiter")
        self._client: Any = None

    async def swap(self, decide: Callable[[Reading], bytes]) -> bool:
        """See `Backend.swap`."""
        stored, (seconds, microseconds) = await self._evaluate(_READ)
        version = stored[:_VERSION] if stored else b""
        packed = stored[_VERSION:] if stored else None
        state = decide(Reading(packed, int(seconds) + int(microseconds) / 1e6))
        return bool(await self._evaluate(_WRITE, version, uuid4().bytes + state, self._kept))

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        client, self._client = self._client, None
        if client is None or self._home.is_lost:
            return
        self._home.check()
        self._home.end()
        await client.aclose()

    async def _evaluate(self, script: str, *arguments: object) -> Any:
        client = self._own_client()
        try:
            return await client.execute_command("EVAL", script, 1, self._key, *arguments, NEVER_DECODE=True)
        except (exceptions.RedisError, OSError, ValueError) as error:
            raise self._error(without_frames(error)) from error

    def _own_client(self) -> Any:
        """The client of the running loop. A new loop, or a forked child, gets a client of its own."""
        if not self._home.is_open or self._home.is_lost:
            if self._home.is_forked:
                _INHERITED.append(self._client)
            self._home.end()
            self._home.enter()
            self._client = aioredis.Redis.from_url(
                self._address.reveal(), socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, retry=None
            )
        self._home.check()
        return self._client

    def _error(self, error: Exception) -> ConfigurationError:
        detail = self._address.masked(str(error)) or f"no answer within {TIMEOUT:g} s"
        if isinstance(error, _AWAY) and not isinstance(error, _REFUSED):
            advice = "check that the server is running and can be reached"
            return StoreAwayError(
                f"the rate limiter cannot reach {self.label}: {detail}; {advice}", store=self.label
            )
        advice = "check the URL, and what its user may do"
        return ConfigurationError(
            f"the rate limiter cannot use {self.label}: {detail}; {advice}", argument="url"
        )


class RedisRateLimiter(SharedLimiter):
    """A rate limiter for all processes of many machines that use the same Redis server, 6 or newer.

    The processes take turns. They share the log of requests, the pauses, and the measurements of the network,
    by the clock of the server. A request of a killed process counts as answered after 60 seconds. Each
    process can have limits of its own, and applies them to the requests of all processes.

    While the server does not answer, requests wait; `status` and one warning in the log say so. If the server
    loses its state, a process that is running writes it again. A limiter belongs to the event loop that uses
    it. Close it with `aclose`, or use it as ``async with``.

    Args:
        url: the address, as ``redis://user:password@host:port/database``, ``rediss://`` for TLS, or
            ``unix://`` for a socket.
        limits, strict, reserve: as for `LocalRateLimiter`.
        name: what the processes share, one name for each credential. It is a part of the key.

    Raises:
        ConfigurationError: an argument is invalid. Requests and `refresh` raise it if the server refuses the
            user, or if the key holds something else.
    """

    def __init__(
        self,
        url: str,
        limits: Sequence[RateLimit] = THANX_RATE_LIMITS,
        *,
        strict: bool = True,
        reserve: float = DEFAULT_RESERVE,
        name: str = "default",
    ) -> None:
        address = ServerAddress("url", url, _SCHEMES)
        del url  # no traceback shows it
        pacing = Pacing(limits, strict=strict, reserve=reserve)
        longest = pacing.limits[-1].seconds
        super().__init__(pacing, RedisBackend(address, checks.text("name", name), longest))
