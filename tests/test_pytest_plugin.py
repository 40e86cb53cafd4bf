"""The test kit: in this suite, and in projects of users, where pytest finds it by itself."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers import HANGS, TARGET, batcher, program
from thanx_async import ThanxClient, pytest_plugin
from thanx_async.emulator import Emulator, Faults, JobSpeed

WARNINGS = ["-W", "error", "-W", "ignore::pytest.PytestDeprecationWarning"]
OURS = ["-p", "no:looptime_plugin", "-p", "no:randomly"]
"""Plugins of this suite; looptime's look at the current loop makes one that nobody closes."""
MARKED = """
import pytest

@pytest.mark.{mark}
async def test_issue(thanx_client, thanx_emulator):
    handle = await thanx_client.issue_rewards(
        campaign_id="camp_abc123",
        merchant_id="k2lye10h32l5wzo",
        variant_id="var_treat1",
        identifiers=["a@example.com"],
    )
    assert (await handle.wait(timeout=30)).success_count == 1
    assert thanx_emulator.reward_counts() == {{"a@example.com": 1}}
"""


def project(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a project of its own, with nothing but what a user has installed."""
    (folder / "test_project.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OURS, *WARNINGS, *options]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=HANGS
    )


async def test_the_client_is_connected(thanx_client: ThanxClient, thanx_emulator: Emulator) -> None:
    """Requests arrive, without being paced, and are counted."""
    run = await batcher(thanx_client).issue(f"guest{number}@example.com" for number in range(100))
    report = await run.wait()
    assert report.issued == 100
    assert set(thanx_emulator.reward_counts().values()) == {1}
    assert thanx_emulator.refused == 0


async def test_faults_can_be_switched(thanx_client: ThanxClient, thanx_emulator: Emulator) -> None:
    """Whatever goes wrong while they are on, nobody gets two rewards."""
    thanx_emulator.faults = Faults(seed=2, reset_after=0.2, html_504=0.1, burst=0.1)
    run = await batcher(thanx_client).issue(f"guest{number}@example.com" for number in range(100))
    thanx_emulator.faults = Faults()
    assert (await run.wait()).issued == 100
    assert thanx_emulator.statistics()["faults"]
    assert set(thanx_emulator.reward_counts().values()) == {1}


async def test_time_can_be_skipped(thanx_client: ThanxClient, thanx_emulator: Emulator) -> None:
    """A slow job is seen while it runs, and when it is over, without waiting."""
    thanx_emulator.speed = JobSpeed(identifiers_per_second=0.001)
    handle = await thanx_client.issue_rewards(**TARGET, identifiers=["a@example.com"])
    assert (await handle.refresh()).state == "pending"
    thanx_emulator.advance(3600)
    assert (await handle.refresh()).state == "completed"


def test_the_installed_copy_is_up_to_date() -> None:
    """If this fails, install the project again: pip install -e '.[dev]'."""
    installed = find_spec("_thanx_async_pytest")
    assert installed is not None
    assert installed.origin is not None
    assert Path(installed.origin).read_text() == Path(pytest_plugin.__file__).read_text()


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_the_readme_example(tmp_path: Path, mode: str) -> None:
    """The complete example passes as it stands, in either mode of pytest-asyncio."""
    done = project(tmp_path, program("thanx_emulator"), "-o", f"asyncio_mode={mode}")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^[3-9] passed", done.stdout, re.MULTILINE)


def test_on_a_loop_that_tests_share(tmp_path: Path) -> None:
    """The fixtures live on the loop of their test, whichever it is."""
    module = MARKED.format(mark="asyncio(loop_scope='module')")
    session = MARKED.format(mark="asyncio").replace("test_issue", "test_issue_again")
    done = project(tmp_path, module + session, "-o", "asyncio_default_test_loop_scope=session")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("options", [["-p", "no:asyncio"], []])
def test_under_the_plugin_of_anyio(tmp_path: Path, options: list[str]) -> None:
    """With and without pytest-asyncio beside it; on trio the test is skipped."""
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n"
        "@pytest.fixture(params=['asyncio', ('asyncio', {'debug': True}), 'trio'])\n"
        "def anyio_backend(request):\n    return request.param\n"
    )
    done = project(tmp_path, MARKED.format(mark="anyio"), *options)
    assert done.returncode == 0, done.stdout
    assert "2 passed, 1 skipped" in done.stdout


@pytest.mark.parametrize("plugins", [[], ["-p", "asyncio"], ["-p", "anyio"]])
def test_marked_for_anyio_in_auto_mode(tmp_path: Path, plugins: list[str]) -> None:
    """pytest-asyncio then runs the test, and so it must run the fixtures, whichever plugin comes first."""
    done = project(tmp_path, MARKED.format(mark="anyio"), *plugins, "-o", "asyncio_mode=auto")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^[12] passed", done.stdout, re.MULTILINE)


SHARED = """
import pytest
import pytest_asyncio

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def handle(thanx_client):
    return await thanx_client.issue_rewards(
        campaign_id="camp_abc123",
        merchant_id="k2lye10h32l5wzo",
        variant_id="var_treat1",
        identifiers=["a@example.com"],
    )

@pytest.mark.asyncio(loop_scope="session")
async def test_one(handle):
    assert (await handle.wait(timeout=30)).success_count == 1

@pytest.mark.asyncio(loop_scope="session")
async def test_another(thanx_client, thanx_emulator):
    assert thanx_emulator.reward_counts() == {"a@example.com": 1}
    assert await thanx_client.get_scopes()
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_fixtures_for_a_session(tmp_path: Path, mode: str) -> None:
    """By a setting, fixtures of a session can use them, and all tests share them."""
    done = project(tmp_path, SHARED, "-o", "thanx_fixture_scope=session", "-o", f"asyncio_mode={mode}")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


ANYIO_SHARED = """
import pytest

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_one(thanx_client):
    assert await thanx_client.get_scopes()

@pytest.mark.anyio
async def test_another(thanx_client, thanx_emulator):
    assert len(thanx_emulator.requests) == 1
    assert await thanx_client.get_scopes()
"""


def test_fixtures_for_a_session_of_anyio(tmp_path: Path) -> None:
    """The same under anyio's plugin, on a backend of the session."""
    done = project(tmp_path, ANYIO_SHARED, "-o", "thanx_fixture_scope=session")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_an_unknown_scope(tmp_path: Path) -> None:
    """The setting is named, with what it can be."""
    done = project(tmp_path, SHARED, "-o", "thanx_fixture_scope=run")
    assert done.returncode == 4
    assert "thanx_fixture_scope must be one of function, class, module, package, session, not 'run'" in (
        done.stdout + done.stderr
    )


def test_without_any_runner(tmp_path: Path) -> None:
    """The message says what is missing."""
    done = project(tmp_path, "def test_it(thanx_client):\n    pass\n", "-p", "no:asyncio")
    assert done.returncode != 0
    assert "thanx_client needs an asynchronous test: install pytest-asyncio" in done.stdout


def test_other_projects_do_not_pay(tmp_path: Path) -> None:
    """A test that uses none of the fixtures runs without thanx_async or aiohttp being imported."""
    test = """
import sys

def test_imports(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("thanx_async")
    assert not {name.partition(".")[0] for name in sys.modules} & {"thanx_async", "aiohttp", "cattrs"}
"""
    done = project(tmp_path, test)
    assert done.returncode == 0, done.stdout


def test_coverage_sees_the_first_lines(tmp_path: Path) -> None:
    """The plugin imports nothing before coverage is measured."""
    report = tmp_path / "coverage.json"
    options = ["--cov=thanx_async", f"--cov-report=json:{report}", "-o", "asyncio_mode=auto"]
    done = project(tmp_path, MARKED.format(mark="asyncio"), *options)
    assert done.returncode == 0, done.stdout
    files = json.loads(report.read_text())["files"]
    missed = {"/".join(Path(name).parts[-2:]): row["missing_lines"] for name, row in files.items()}
    assert missed["emulator/__init__.py"] == missed["thanx_async/_version.py"] == []
