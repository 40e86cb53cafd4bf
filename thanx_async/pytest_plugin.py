"""Fixtures for testing your own code: `thanx_emulator`, and `thanx_client`, which is connected to it.

pytest finds this plugin automatically wherever thanx_async is installed. The wheel installs a copy of this
file beside the package, so that starting pytest imports neither thanx_async nor aiohttp: projects that don't
use the fixtures start as fast as before, and coverage sees every line of thanx_async run.

The fixtures work in asynchronous tests of pytest-asyncio (1.0 or newer), in both modes and with loops of any
scope, and in tests of anyio's plugin on asyncio. Each test gets its own, unless the setting
``thanx_fixture_scope`` is ``class``, ``module``, ``package`` or ``session``; tests must then run on a loop of
at least that scope.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from inspect import isgeneratorfunction
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from thanx_async.client import ThanxClient
    from thanx_async.emulator import Emulator

_ASYNCIO = "thanx_async_asyncio_fixtures"
_SCOPES = ("function", "class", "module", "package", "session")

_Scope = Literal["session", "package", "module", "class", "function"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting for the scope of the fixtures."""
    about = "how long thanx_emulator and thanx_client live: function, class, module, package or session"
    parser.addini("thanx_fixture_scope", about, default="function")


def _scope(fixture_name: str, config: pytest.Config) -> _Scope:  # noqa: ARG001 - pytest's names
    scope: _Scope = config.getini("thanx_fixture_scope")
    return scope


@pytest.fixture(scope=_scope)
def thanx_emulator(request: pytest.FixtureRequest) -> Emulator:
    """A running emulator without rate limits, whose jobs finish at once.

    Set its ``faults``, ``speed`` and ``webhooks``; ``script()`` its answers; ``advance()`` its time.
    """
    emulator: Emulator = request.getfixturevalue(f"_thanx_emulator_{_runner(request)}")
    return emulator


@pytest.fixture(scope=_scope)
def thanx_client(request: pytest.FixtureRequest) -> ThanxClient:
    """An open client of ``thanx_emulator`` that does not pace its requests and retries almost at once."""
    client: ThanxClient = request.getfixturevalue(f"_thanx_client_{_runner(request)}")
    return client


def _runner(request: pytest.FixtureRequest) -> str:
    """The plugin that runs the test's event loop, with the loop's scope for pytest-asyncio."""
    has_asyncio = request.config.pluginmanager.hasplugin(_ASYNCIO)
    marker = request.node.get_closest_marker("asyncio")
    is_asyncio = has_asyncio and (marker is not None or _is_auto(request.config))
    if "anyio_backend" in request.fixturenames and not is_asyncio:
        backend = request.getfixturevalue("anyio_backend")
        if "asyncio" not in (backend, backend[0]):
            pytest.skip("thanx_async runs on asyncio only")
        return "anyio"
    if has_asyncio:
        scope = marker.kwargs.get("loop_scope") if marker else None
        scope = scope or request.config.getini("asyncio_default_test_loop_scope")
        return f"asyncio_{max(scope, request.scope, key=_SCOPES.index)}"
    raise pytest.UsageError(
        f"{request.fixturename} needs an asynchronous test: install pytest-asyncio, or mark the test with"
        " pytest.mark.anyio"
    )


def _is_auto(config: pytest.Config) -> bool:
    """Whether pytest-asyncio runs every asynchronous test, whatever its marks."""
    mode: str = config.getoption("asyncio_mode") or config.getini("asyncio_mode")
    return mode == "auto"


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
        decorator(name=f"_thanx_emulator_{runner}", scope=_scope)(emulator),
        decorator(name=f"_thanx_client_{runner}", scope=_scope)(client),
    )


_emulator_anyio, _client_anyio = _fixtures(pytest.fixture, "anyio")


def pytest_configure(config: pytest.Config) -> None:
    """Register fixtures for pytest-asyncio, which needs fixtures of its own kind in strict mode."""
    if (scope := config.getini("thanx_fixture_scope")) not in _SCOPES:
        raise pytest.UsageError(f"thanx_fixture_scope must be one of {', '.join(_SCOPES)}, not {scope!r}")
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


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Let pytest-asyncio set up the fixtures made for it, before anyio takes them.

    Both take asynchronous fixtures of a test that is marked for both, in the order of their registration.
    """
    setup = getattr(request.config.pluginmanager.get_plugin("asyncio"), "pytest_fixture_setup", None)
    if fixturedef.argname.startswith(("_thanx_emulator_asyncio", "_thanx_client_asyncio")) and (
        isgeneratorfunction(setup)
    ):
        return (yield from setup(fixturedef, request))
    return (yield)
