"""The README's programs run as they stand."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import guests
from thanx_async.emulator import Emulator

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
PROGRAMS = [block for block in BLOCKS if "__main__" not in block]  # the others run for ever: tests/hosts


def run(program: str, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"THANX_BASE_URL": url, "THANX_CLIENT_ID": "c", "THANX_ACCESS_TOKEN": "t"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.mark.realtime
@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
async def test_programs(program: str, tmp_path: Path) -> None:
    """Each block runs by itself, against an emulator, without a warning."""
    (tmp_path / "guests.txt").write_text("\n".join([*guests(3), "junk"]))
    async with Emulator() as emulator:
        done = await asyncio.to_thread(run, program, tmp_path, emulator.url)
        assert done.returncode == 0, done.stderr
        if "from_env" in program:
            assert emulator.reward_counts()
        elif "Emulator()" in program:
            assert "total=25000, issued=25000" in done.stdout
