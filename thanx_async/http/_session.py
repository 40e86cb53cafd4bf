"""The aiohttp session of a client: its own, or one that was given, and the loop that it belongs to."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
from yarl import URL

from thanx_async._core.errors import ConfigurationError
from thanx_async._core.tasks import Home
from thanx_async.http._aiohttp import keeps_token, once


class HomeSession:
    """Opens and closes a session, unless one was given, and refuses its use on other loops.

    Attributes:
        tls: what connections are checked against.
        proxy: the proxy to use instead of the session's; None for what the session says.
    """

    def __init__(self, base_url: str, session: aiohttp.ClientSession | None) -> None:
        self._is_https = base_url.startswith("https:")
        self._session = session
        self._is_own = session is None
        self._home = Home("the client", "async with ThanxClient(...) as client")
        self.tls: ssl.SSLContext | bool = True
        if session is not None:
            self._trust_authorities()
        # A session of the user's may use a proxy, which would get the token where there is no TLS.
        self.proxy: URL | None = None if self._is_own or self._is_https else URL()

    def middlewares(self) -> list[aiohttp.ClientMiddlewareType] | None:
        """For one request; None for what the session says."""
        if self._is_own:
            return [once()]
        if getattr(self._session, "trust_env", False):
            return [keeps_token, *getattr(self._session, "_middlewares", ())]  # nothing public has them
        return None

    @property
    def is_lost(self) -> bool:
        """Whether it is open on a loop that is closed, or in a parent process."""
        return self._home.is_lost

    def _trust_authorities(self) -> None:
        """Those that are configured now; aiohttp goes by those of its import, and a session by its own."""
        if self.tls is True and self._is_https:
            self.tls = ssl.create_default_context()
            self.tls.set_alpn_protocols(["http/1.1"])

    def check_loop(self) -> None:
        """Make sure, before anything happens, that it is not open on another event loop."""
        if self._home.is_open:
            self._home.check()

    async def open(self) -> None:
        """Begin a block that uses it; the first one makes a session, unless one was given."""
        lost = self._session if self._home.is_lost else None
        forked = self._home.is_forked
        if self._home.enter() and self._is_own:
            self._trust_authorities()
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
            if lost is not None:
                await _drop(lost, forked=forked)

    async def leave(self) -> bool:
        """End a block; the last one closes what the first has made. Returns whether it was the last one."""
        is_last = self._home.is_open and (self._home.is_lost or self._is_last())
        if is_last:
            await self.close()
        return is_last

    def _is_last(self) -> bool:
        self._home.check()
        return self._home.leave()

    async def close(self) -> None:
        """Close what was made, whoever still uses it."""
        forked, lost = self._home.is_forked, self._home.is_lost
        if self._home.is_open and not lost:
            self._home.check()
        self._home.end()
        if self._is_own and self._session is not None:
            session, self._session = self._session, None
            await (_drop(session, forked=forked) if lost else session.close())

    def usable(self) -> aiohttp.ClientSession:
        """The session, for the running loop.

        Raises:
            ConfigurationError: it is not open, or belongs to another loop.
        """
        if self._is_own or self._home.is_open:
            self._home.check()
        session = self._session
        if session is None or session.closed:
            raise ConfigurationError("the session given to ThanxClient is closed", argument="session")
        if not self._is_own:
            _check_loop(session)
        return session


async def _drop(session: aiohttp.ClientSession, *, forked: bool) -> None:
    """Let go of a session whose loop does nothing any more, or whose connections a parent process uses."""
    if forked:
        session.detach()
    else:
        await session.close()


def _check_loop(session: aiohttp.ClientSession) -> None:
    loop = getattr(session, "_loop", None)  # what is public is deprecated
    if loop is not None and loop is not asyncio.get_running_loop():
        raise ConfigurationError(
            "the session given to ThanxClient belongs to another event loop: make one on this loop",
            argument="session",
        )
