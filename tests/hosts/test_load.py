"""Many requests at once, from a process of their own; benchmarks/service.py does the same at full size."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import README, issuing
from tests.hosts.programs import SERVICES, in_batches_of, serving
from thanx_async.emulator import Emulator


@pytest.mark.realtime
@pytest.mark.parametrize("host", SERVICES)
async def test_many_requests_become_few_calls(host: str, tmp_path: Path) -> None:
    """Two thousand requests within a second become a few calls within the real limits, each request has its
    own answer, and each guest has its own outcome for a poll or two a job."""
    text = in_batches_of(495, host)
    async with Emulator() as emulator, serving(host, tmp_path, emulator, text) as (service, _):
        command = [sys.executable, "-m", "benchmarks.load", service.url, "2000", "1"]
        load = await asyncio.create_subprocess_exec(*command, cwd=README.parent, stdout=subprocess.PIPE)
        output, _ = await load.communicate()
        assert service.complaints == []
    found = json.loads(output)
    assert found["statuses"] == {"202": 1980, "422": 20}
    assert found["wrong"] == 0
    calls = issuing(emulator)
    assert len(calls) == found["jobs"] == 4
    assert len(emulator.requests) <= 3 * len(calls)
    assert emulator.refused == 0
    rewards = emulator.reward_counts()
    assert (len(rewards), max(rewards.values())) == (1960, 1)
