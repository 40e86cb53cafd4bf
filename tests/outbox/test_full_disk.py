"""A disk that is full for a time."""

import os
from errno import ENOSPC
from pathlib import Path

import pytest

from tests.helpers import TARGET
from thanx_async import SQLiteOutbox, ThanxClient
from thanx_async.emulator import Emulator
from thanx_async.outbox import GuestState

FULL_FOR = 3


async def test_a_drain_waits_for_space(
    tmp_path: Path, emulator: Emulator, client: ThanxClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain whose batch cannot be written because the disk is full waits, and goes on with space again."""
    failures = 0
    usual = os.write

    def write(file: int, data: bytes) -> int:
        nonlocal failures
        if failures < FULL_FOR and bytes(data[:2]) == b'{"':  # the body of a batch
            failures += 1
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        return usual(file, data)

    monkeypatch.setattr(os, "write", write)
    path = tmp_path / "outbox.sqlite"
    async with SQLiteOutbox(path, **TARGET, client_id="c", base_url=emulator.url) as outbox:
        await outbox.put("jane@example.com", id="1")
        await outbox.drain(client, linger=0.0, until_empty=True)
        assert (await outbox.outcome("1", timeout=0)).state is GuestState.ISSUED
    assert failures == FULL_FOR
    assert emulator.reward_counts() == {"jane@example.com": 1}
