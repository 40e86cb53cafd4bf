"""The rate limits on the command line: kept across runs, waits shown."""

import asyncio
import logging
import re
import sqlite3
import stat
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from tests.helpers import OPTIONS, batcher, guests, written
from tests.limiter.sending import stored
from thanx_async import IssuancePlan, Lane, RateLimit, SQLiteRateLimiter, ThanxClient
from thanx_async.cli import run
from thanx_async.cli._display import Display
from thanx_async.cli._driving import drive
from thanx_async.emulator import Emulator, ScriptedAnswer


def test_runs_share_a_file(served: Emulator, tmp_path: Path, state: Path) -> None:
    """Each run knows what the ones before have spent; the file tells nothing and is its owner's alone."""
    command = ["issue", written(tmp_path / "a.txt", *guests(3)), *OPTIONS]
    assert run(command) == 0
    (file,) = state.glob("*.sqlite3")
    first = stored(file).tokens
    assert first == len(served.requests) > 0
    assert run(["scopes"]) == 0
    assert stored(file).tokens == first + 1
    assert "client" not in file.name
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_each_credential_has_its_file(served: Emulator, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another client id has limits of its own."""
    for client_id in ("one", "two", "one"):
        monkeypatch.setenv("THANX_CLIENT_ID", client_id)
        assert run(["scopes"]) == 0
    assert sorted(stored(file).tokens for file in state.glob("*.sqlite3")) == [1, 2]


def test_without_a_state_directory(served: Emulator, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing can be kept the run says so, and keeps the limits by itself."""
    state.parent.write_text("in the way")
    assert run(["scopes"]) == 0
    assert f"warning: cannot write in {state} (" in capsys.readouterr().err
    assert len(served.requests) == 1


def test_a_file_that_is_not_the_limiters(
    served: Emulator, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged file stops the command before anything is sent, and says what to do."""
    assert run(["scopes"]) == 0
    (file,) = state.glob("*.sqlite3")
    connection = sqlite3.connect(file)
    connection.execute("UPDATE limiter SET state = 'nonsense'")
    connection.commit()
    connection.close()
    assert run(["scopes"]) == 2
    assert f"cannot use {file}: its content is damaged; move it away" in capsys.readouterr().err
    assert len(served.requests) == 1


def test_the_emulator_needs_no_file(state: Path, tmp_path: Path) -> None:
    """Against the embedded emulator nothing is kept."""
    assert run(["issue", written(tmp_path / "a.txt", *guests(3)), "--emulator"]) == 0
    assert not state.exists()


async def test_waits_are_shown(
    emulator: Emulator,
    client: ThanxClient,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A long wait, in which nothing else happens, is one plain line without a terminal, and one log line."""
    emulator.script(ScriptedAnswer(429, b"{}", headers={"Retry-After": "40"}))
    with caplog.at_level(logging.WARNING, logger="thanx_async"):
        display = Display()
        display.watch(client)
        assert await drive(batcher(client), display, guests(3)) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "waiting" in line]
    assert len(lines) == 1
    assert "3 read, 0 accepted in 0 jobs, 0 processed; waiting until " in lines[0]
    assert lines[0].endswith(" for a refusal (429)")
    (record,) = caplog.records
    assert "requests wait for a refusal (429), until about" in record.getMessage()


def test_the_limits_are_shown(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The command tells what earlier runs have used, without a request."""
    assert run(["limits"]) == 0
    assert capsys.readouterr().out == "1 in 0.01 s: 0 used, 1 free\n"
    assert run(["scopes"]) == 0
    capsys.readouterr()
    sent = len(served.requests)
    assert run(["limits", "--json"]) == 0
    shown = orjson.loads(capsys.readouterr().out)
    assert shown["windows"][0]["limit"] == {"requests": 1, "seconds": 0.01}
    assert shown["issuing_ago"] is None
    assert len(served.requests) == sent


def test_a_long_limit_is_shown(
    monkeypatch: pytest.MonkeyPatch, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a long limit the command tells what is reserved, and when it comes back."""
    monkeypatch.setenv("THANX_CLIENT_ID", "client")
    monkeypatch.delenv("THANX_BASE_URL", raising=False)
    assert run(["limits"]) == 0
    (path,) = state.glob("limits-*.sqlite3")

    async def spend() -> None:
        async with SQLiteRateLimiter(path, [RateLimit(5, 1), RateLimit(2000, 900)]).slot(Lane.INTERACTIVE):
            pass

    asyncio.run(spend())
    assert run(["limits"]) == 0
    line = capsys.readouterr().out.splitlines()[3]
    assert line.startswith("2,000 in 900 s: 1 used, 1,999 free, 200 reserved; the next is back at ")


def test_a_plan_knows_what_is_spent(
    monkeypatch: pytest.MonkeyPatch, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the credential a plan counts on what earlier runs have left; without one it leaves no trace."""
    plans: list[IssuancePlan] = []
    monkeypatch.setattr("thanx_async.cli._issue.show_plan", plans.append)
    command = ["plan", written(tmp_path / "a.txt", *guests(3))]
    for name in ("THANX_CLIENT_ID", "THANX_ACCESS_TOKEN", "THANX_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert run(command) == 0
    assert not state.exists()
    monkeypatch.setenv("THANX_CLIENT_ID", "client")
    monkeypatch.setenv("THANX_ACCESS_TOKEN", "s3cret")
    assert run(command) == 0
    assert not state.exists()
    assert run(["limits"]) == 0
    (path,) = state.glob("limits-*.sqlite3")

    async def hold() -> None:
        limits = [RateLimit(5, 1), RateLimit(2000, 900)]
        async with SQLiteRateLimiter(path, limits).slot(Lane.ISSUE) as slot:
            slot.answered(429, {"Retry-After": "3000"})

    asyncio.run(hold())
    assert run(command) == 0
    assert plans[2].last_accepted - plans[1].last_accepted > timedelta(minutes=10)


def test_a_plan_says_when_it_could_be_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both times are told; an empty plan has none."""
    assert run(["plan", written(tmp_path / "a.txt", *guests(3))]) == 0
    told = r"could be accepted by \d\d:\d\d:\d\d and known by \d\d:\d\d:\d\d, if it began now"
    assert re.search(told, capsys.readouterr().out)
    assert run(["plan", written(tmp_path / "b.txt", "junk")]) == 1
    assert "could be accepted" not in capsys.readouterr().out
