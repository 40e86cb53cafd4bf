"""The README's programs run as they stand."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.conftest import guests
from tests.webhooks.signing import SECRET, issued, sign
from thanx_async.emulator import Emulator

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
PROGRAMS = [block for block in BLOCKS if "__main__" not in block]  # the others run for ever: tests/hosts
WEBHOOKS = next(block for block in BLOCKS if "webhooks.RewardIssued" in block)


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


async def test_the_webhook_endpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The endpoint takes signed events, tells them, and refuses others."""
    module = ModuleType("endpoint")
    exec(WEBHOOKS, vars(module))  # noqa: S102 - the project's own README
    for name, value in (("CLIENT_ID", "c"), ("ACCESS_TOKEN", "t"), ("WEBHOOK_SECRET", SECRET)):
        monkeypatch.setenv(f"THANX_{name}", value)
    body = issued("job1", 7)
    async with TestClient(TestServer(module.make_app())) as http:
        for signature, status in ((sign(body), 200), (sign(body, "other"), 401)):
            headers = {"X-Thanx-Signature": signature}
            async with http.post("/webhooks/thanx", data=body, headers=headers) as response:
                assert response.status == status
    assert capsys.readouterr().out == "job job1 guest 7 has a reward\n"
