"""The README's programs run as they stand."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from yarl import URL

from tests.conftest import guests
from thanx_async.emulator import Emulator, JobSpeed, ScriptedAnswer

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
SERVICE = next(block for block in BLOCKS if "web.run_app" in block)
PROGRAMS = [block for block in BLOCKS if block != SERVICE]


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


async def thank(http: ClientSession, url: URL, guest: str) -> tuple[int, object]:
    async with http.post(url, json={"email": guest}) as response:
        return response.status, await response.json()


async def test_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service thanks concurrent guests in one batch, tells of failures and outcomes, and on its
    shutdown answers whoever waits."""
    module = ModuleType("service")
    exec(SERVICE, vars(module))  # noqa: S102 - the project's own README
    async with Emulator(speed=JobSpeed(start_delay=0)) as emulator, ClientSession() as http:
        for name, value in (("BASE_URL", emulator.url), ("CLIENT_ID", "c"), ("ACCESS_TOKEN", "t")):
            monkeypatch.setenv(f"THANX_{name}", value)
        async with TestServer(module.make_app()) as server:
            url = server.make_url("/thanks")
            names = [*guests(20), "unknown@example.com", "junk"]
            *accepted, junk = await asyncio.gather(*(thank(http, url, name) for name in names))
            assert accepted == [(202, {"job": "job000001"})] * 21
            assert junk[0] == 422
            for name, answer in (
                ("guest1@example.com", {"issued": True, "reason": None}),
                ("unknown@example.com", {"issued": False, "reason": "User not found"}),
            ):
                async with http.get(url, params={"email": name}) as response:
                    assert await response.json() == answer
            emulator.script(ScriptedAnswer(400, b'{"error": {"code": "BAD_REQUEST", "message": "no"}}'))
            refused = await thank(http, url, "a@example.com")
            assert refused == (502, {"error": "BadRequestError", "in_doubt": False})
            leaving = asyncio.create_task(thank(http, url, "b@example.com"))
            await asyncio.sleep(0.1)
        assert (await leaving)[0] == 202
        assert emulator.reward_counts() == dict.fromkeys([*guests(20), "b@example.com"], 1)
