import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.helpers import FAST, impatient
from thanx_async import ThanxClient
from thanx_async.emulator import Emulator


@pytest.fixture
async def emulator(soon: None) -> AsyncIterator[Emulator]:
    async with Emulator(limits=[], speed=FAST, id_tag="") as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    async with impatient(emulator.url) as opened:
        yield opened


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """A ledger in memory, where there is such a place: hundreds of runs need not wait for a disk."""
    memory = Path("/dev/shm")  # noqa: S108 - its folder is made safely
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder) / "ledger.sqlite"
