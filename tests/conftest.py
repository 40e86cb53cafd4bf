import asyncio
from collections.abc import AsyncIterator, Iterable
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers import Wall
from tests.virtual_time import patient, waiting_for_a_server
from thanx_async import SQLiteLedger, ThanxClient
from thanx_async._core.worker import Worker
from thanx_async.emulator import Emulator
from thanx_async.jobs._schedule import PollSchedule
from thanx_async.limiter._shared import SharedLimiter, SharedStore

settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")  # a test may not fail because the machine is busy

pytest_plugins = [
    "thanx_async.pytest_plugin",  # not the installed copy, so that its coverage is measured
    "tests.servers",
]


@pytest.fixture(autouse=True, scope="session")
def no_stray_loop() -> None:
    """Otherwise looptime's look at the current loop makes one that nobody closes."""
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def patient_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "do", patient(Worker.do))
    for owner, name in ((SharedStore, "_attempt"), (SharedLimiter, "aclose")):
        monkeypatch.setattr(owner, name, waiting_for_a_server(getattr(owner, name)))


SLOW = {
    "hosts",
    "test_chaos.py",
    "test_kill.py",
    "test_pytest_plugin.py",
    "test_processes.py",
    "test_sweep.py",
}
"""Folders and files whose tests start processes, or make hundreds of runs."""


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """What is in ``SLOW`` is slow; asynchronous tests run on virtual time unless they are ``realtime``."""
    for item in items:
        if SLOW.intersection(item.path.parts):
            item.add_marker(pytest.mark.slow)
        function = getattr(item, "function", None)
        if iscoroutinefunction(function) and not item.get_closest_marker("realtime"):
            item.add_marker(pytest.mark.looptime)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(id_tag="") as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    async with ThanxClient("client", "s3cret-token", base_url=emulator.url) as opened:
        yield opened


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real clock nobody waits a second for the first look at a job of a hundredth."""
    usual = PollSchedule.due
    monkeypatch.setattr(
        PollSchedule, "due", lambda self, course: min(usual(self, course), course.polled_at + 0.02)
    )


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """A wall clock of the test's own, for whatever asks how old a record is."""
    wall = Wall()
    for module in ("http._delivery", "ledger._records"):
        monkeypatch.setattr(f"thanx_async.{module}.time", wall.time)
    return wall


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SQLiteLedger]:
    async with SQLiteLedger(path) as opened:
        yield opened
