from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.helpers import FAST, in_thread
from thanx_async import AsyncBatcher, RateLimit, SQLiteRateLimiter
from thanx_async.emulator import Emulator


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A state directory of the test's own."""
    directory = tmp_path / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(directory))
    return directory / "thanx-async"


@pytest.fixture
def served(soon: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A quick emulator to which the environment points, for one request after the other."""
    in_turn = partial(SQLiteRateLimiter, limits=[RateLimit(1, 0.01)])
    monkeypatch.setattr("thanx_async.cli._client.SQLiteRateLimiter", in_turn)
    monkeypatch.setattr("thanx_async.cli._issue.AsyncBatcher", partial(AsyncBatcher, max_concurrency=1))
    with in_thread(Emulator(limits=[], speed=FAST, id_tag="")) as emulator:
        monkeypatch.setenv("THANX_BASE_URL", emulator.url)
        monkeypatch.setenv("THANX_CLIENT_ID", "client")
        monkeypatch.setenv("THANX_ACCESS_TOKEN", "s3cret")
        yield emulator
