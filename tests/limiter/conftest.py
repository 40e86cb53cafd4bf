import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import pytest

from tests.limiter.stores import Place, virtual
from tests.servers import PostgresServer, RedisServer
from thanx_async.postgres import init


@pytest.fixture(scope="session")
def limiter_dsn(postgres: PostgresServer) -> str:
    """The DSN of a database with the table of limiters."""
    postgres.sql("postgres", "CREATE DATABASE limits")
    dsn = postgres.dsn("limits")
    asyncio.run(init(dsn))
    return dsn


def where(kind: str, request: pytest.FixtureRequest) -> str:
    match kind:
        case "postgres":
            return str(request.getfixturevalue("limiter_dsn"))
        case "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            return server.url
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    return str(factory.mktemp(kind))


@pytest.fixture(scope="session", params=["memory", "sqlite", "postgres", "redis"])
def place(request: pytest.FixtureRequest) -> Callable[[], Place]:
    """Makes places for limiters to share, of each kind."""
    return partial(Place, request.param, where(request.param, request))


@pytest.fixture(scope="session", params=["sqlite", "postgres", "redis"])
def kept(request: pytest.FixtureRequest) -> Callable[[], Place]:
    """Makes places that outlive a process, of each kind."""
    return partial(Place, request.param, where(request.param, request))


@pytest.fixture(scope="session", params=["postgres", "redis"])
def remote(request: pytest.FixtureRequest) -> Callable[[], Place]:
    """Makes places on servers, of each kind."""
    return partial(Place, request.param, where(request.param, request))


@pytest.fixture
def wall() -> Iterator[SimpleNamespace]:
    """Virtual time for files and servers."""
    with virtual() as clock:
        yield clock
