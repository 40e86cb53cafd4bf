"""The README's programs run as they stand."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.helpers import BLOCKS, README, SECRET, environment, guests, issued, program, sign
from thanx_async.cli import COMMANDS
from thanx_async.emulator import Emulator
from thanx_async.postgres import init

PROGRAMS = [block for block in BLOCKS if "__main__" not in block]  # the others run for ever: tests/hosts


def run(text: str, folder: Path, url: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        cwd=folder,
        env=environment(url, **more),
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.mark.realtime
@pytest.mark.slow
@pytest.mark.parametrize("text", PROGRAMS, ids=range(len(PROGRAMS)))
async def test_programs(text: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each block runs by itself, against an emulator and a database, without a warning."""
    more = {}
    if "DATABASE_URL" in text:
        more["DATABASE_URL"] = request.getfixturevalue("dsn")
        await init(more["DATABASE_URL"])
    (tmp_path / "guests.txt").write_text("\n".join([*guests(3), "junk"]))
    async with Emulator() as emulator:
        done = await asyncio.to_thread(run, text, tmp_path, emulator.url, **more)
        assert done.returncode == 0, done.stderr
        if "from_env" in text:
            assert emulator.reward_counts()
        elif "Emulator()" in text:
            assert "total=25000, issued=25000" in done.stdout


async def test_the_webhook_endpoint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The endpoint takes signed events, tells them, and refuses others."""
    module = ModuleType("endpoint")
    exec(program("webhooks.RewardIssued"), vars(module))  # noqa: S102 - the project's own README
    for name, value in (("CLIENT_ID", "c"), ("ACCESS_TOKEN", "t"), ("WEBHOOK_SECRET", SECRET)):
        monkeypatch.setenv(f"THANX_{name}", value)
    body = issued("job1", 7)
    async with TestClient(TestServer(module.make_app())) as http:
        for signature, status in ((sign(body), 200), (sign(body, "other"), 401)):
            headers = {"X-Thanx-Signature": signature}
            async with http.post("/webhooks/thanx", data=body, headers=headers) as response:
                assert response.status == status
    assert capsys.readouterr().out == "job job1 guest 7 has a reward\n"


def test_the_list_of_commands_is_complete() -> None:
    """The README names each command of the command line."""
    [listed] = re.findall(r"^```sh\n(thanx-async issue.*?)```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert set(COMMANDS) <= set(re.findall(r"\w+", listed))
