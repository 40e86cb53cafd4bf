"""Fixtures for tests of your own code: `thanx_emulator`, and `thanx_client`, which is connected to it.

pytest finds this plugin by itself wherever thanx_async is installed. For that a copy of this file is
installed beside the package, so that the start of pytest imports neither thanx_async nor aiohttp: other
projects do not wait for them, and coverage sees every line of thanx_async run.

The fixtures work in asynchronous tests of pytest-asyncio (1.0 or newer), in either mode and on a loop of any
scope, and of anyio's plugin on asyncio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from thanx_async.client import ThanxClient
    from thanx_async.emulator import Emulator

_ASYNCIO = "thanx_async_asyncio_fixtures"
_SCOPES = ("function", "class", "module", "package", "session")


@pytest.fixture
def thanx_emulator(request: pytest.FixtureRequest) -> Emulator:
    """A running emulator without rate limits, whose jobs are done at once.

    Set its ``faults``, ``speed`` and ``webhooks``, ``script()`` answers, and ``advance()`` its time.
    """
    emulator: Emulator = request.getfixturevalue(f"_thanx_emulator_{_runner(request)}")
    return emulator


@pytest.fixture
def thanx_client(request: pytest.FixtureRequest) -> ThanxClient:
    """An open client of ``thanx_emulator`` that neither paces its requests nor waits long to retry."""
    client: ThanxClient = request.getfixturevalue(f"_thanx_client_{_runner(request)}")
    return client


def _runner(request: pytest.FixtureRequest) -> str:
    """Who runs the event loop of the test, and for pytest-asyncio which of its loops it is."""
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend")
        if "asyncio" not in (backend, backend[0]):
            pytest.skip("thanx_async runs on asyncio only")
        return "anyio"
    if request.config.pluginmanager.hasplugin(_ASYNCIO):
        marker = request.node.get_closest_marker("asyncio")
        scope = marker.kwargs.get("loop_scope") if marker else None
        return f"asyncio_{scope or request.config.getini('asyncio_default_test_loop_scope')}"
    raise pytest.UsageError(
        f"{request.fixturename} needs an asynchronous test: install pytest-asyncio, or mark the test with"
        " pytest.mark.anyio"
    )


def _new_emulator() -> Emulator:
    from thanx_async.emulator import Emulator, JobSpeed

    return Emulator(limits=(), speed=JobSpeed(1e9, start_delay=0, revoke_seconds=0))


def _new_client(url: str) -> ThanxClient:
    from thanx_async.client import ThanxClient
    from thanx_async.limiter import LocalRateLimiter, RateLimit
    from thanx_async.retry import RetryPolicy

    return ThanxClient(
        "client-id",
        "access-token",
        base_url=url,
        limiter=LocalRateLimiter([RateLimit(10_000, 1)]),
        retry=RetryPolicy(base_delay=0.01, max_delay=0.1),
    )


def _fixtures(decorator: Callable[..., Callable[[object], object]], runner: str) -> tuple[object, object]:
    """The asynchronous fixtures for one kind of loop, which marks the functions as its own."""

    async def emulator() -> AsyncIterator[Emulator]:
        async with _new_emulator() as opened:
            yield opened

    async def client(thanx_emulator: Emulator) -> AsyncIterator[ThanxClient]:
        async with _new_client(thanx_emulator.url) as opened:
            yield opened

    return (
        decorator(name=f"_thanx_emulator_{runner}")(emulator),
        decorator(name=f"_thanx_client_{runner}")(client),
    )


_emulator_anyio, _client_anyio = _fixtures(pytest.fixture, "anyio")


def pytest_configure(config: pytest.Config) -> None:
    """Where pytest-asyncio is in use, its own kind of fixture is needed in its strict mode."""
    plugins = config.pluginmanager
    if not plugins.hasplugin("asyncio") or plugins.hasplugin(_ASYNCIO):
        return
    import pytest_asyncio

    holder = ModuleType(_ASYNCIO)
    for scope in _SCOPES:
        decorator = partial(pytest_asyncio.fixture, loop_scope=scope)
        fixtures = _fixtures(decorator, f"asyncio_{scope}")
        vars(holder)[f"emulator_{scope}"], vars(holder)[f"client_{scope}"] = fixtures
    plugins.register(holder, _ASYNCIO)
