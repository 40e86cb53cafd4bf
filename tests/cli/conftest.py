import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from thanx_async.emulator import Emulator, JobSpeed

FAST = JobSpeed(identifiers_per_second=1e6, start_delay=0.01, revoke_seconds=0.01)


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A state directory of the test's own."""
    directory = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(directory))
    return directory / "thanx-async"


@contextmanager
def serving(emulator: Emulator) -> Iterator[Emulator]:
    """Run an emulator on a loop of its own."""
    ready = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with emulator:
            loops.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    ready.wait()
    try:
        yield emulator
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A quick emulator to which the environment points."""
    with serving(Emulator(limits=[], speed=FAST)) as emulator:
        monkeypatch.setenv("THANX_BASE_URL", emulator.url)
        monkeypatch.setenv("THANX_CLIENT_ID", "client")
        monkeypatch.setenv("THANX_ACCESS_TOKEN", "s3cret")
        yield emulator
