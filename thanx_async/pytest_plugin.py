"""Fixtures for testing your own code: `thanx_emulator`, and `thanx_client`, which is connected to it.

pytest finds this plugin automatically wherever thanx_async is installed. The wheel installs a copy of this
file beside the package, so that starting pytest imports neither thanx_async nor aiohttp: projects that don't
use the fixtures start as fast as before, and coverage sees every line of thanx_async run.

The fixtures work in asynchronous tests of pytest-asyncio (1.0 or newer), in both modes and with loops of any
scope, and in tests of anyio's plugin on asyncio.
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
    """A running emulator without rate limits, whose jobs finish at once.

    Set its ``faults``, ``speed`` and ``webhooks``; ``script()`` its answers; ``advance()`` its time.
    """
    emulator: Emulator = request.getfixturevalue(f"_thanx_emulator_{_runner(request)}")
    return emulator


@pytest.fixture
def thanx_client(request: pytest.FixtureRequest) -> ThanxClient:
    """An open client of ``thanx_emulator`` that does not pace its requests and retries almost at once."""
    client: ThanxClient = request.getfixturevalue(f"_thanx_client_{_runner(request)}")
    return client


def _runner(request: pytest.FixtureRequest) -> str:
    """The plugin that runs the test's event loop, with the loop's scope for pytest-asyncio."""
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
        retry=RetryPolicy(max_attempts=5, base_delay=0.01, max_delay=0.1),
    )


def _fixtures(decorator: Callable[..., Callable[[object], object]], runner: str) -> tuple[object, object]:
    """The asynchronous fixtures for one kind of event loop, made by that kind's decorator."""

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
    """Register fixtures for pytest-asyncio, which needs fixtures of its own kind in strict mode."""
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
