"""The commands for outboxes, as a user types them."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.helpers import HANGS, MERCHANT, OPTIONS, TARGET, UNAUTHORIZED, environment, guests, written
from tests.servers import PASSWORD
from thanx_async import SQLiteOutbox
from thanx_async.cli import run
from thanx_async.emulator import Emulator, ScriptedAnswer


@pytest.fixture
def store(served: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An outbox's file, to which the environment points."""
    path = tmp_path / "outbox.sqlite"
    monkeypatch.setenv("THANX_STORE", str(path))
    monkeypatch.delenv("THANX_ACCESS_TOKEN")
    return path


def rows(path: Path, *lines: str) -> str:
    return written(path / "guests.csv", "email,order", *lines)


def test_from_a_file_to_the_outcomes(
    store: Path,
    served: Emulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Guests are put, sent and told apart by their ids; the same file again changes nothing."""
    file = rows(
        tmp_path, *(f"{guest},{number}" for number, guest in enumerate(guests(3))), "unknown@example.com,7"
    )
    for new, known in ((4, 0), (0, 4)):
        assert run(["outbox", "put", file, "--id-column", "order", *OPTIONS]) == 0
        assert f"4 read: {new} new, {known} known already, 0 refused" in capsys.readouterr().out
    assert run(["outbox", "status"]) == 0
    assert "4 guests wait" in capsys.readouterr().out
    assert run(["outbox", "status", "--campaign", "camp_other"]) == 0
    assert "has no outbox of this credential that fits" in capsys.readouterr().out
    assert run(["outbox", "outcome", "1"]) == 0
    assert "1: waits to be sent" in capsys.readouterr().out
    monkeypatch.setenv("THANX_ACCESS_TOKEN", "s3cret")
    assert run(["outbox", "drain", "--until-empty", "--linger", "0.01"]) == 0
    assert "0 guests wait" in capsys.readouterr().out
    assert run(["outbox", "outcome", "1"]) == 0
    assert "1: issued, job " in capsys.readouterr().out
    assert run(["outbox", "outcome", "7"]) == 1
    assert "7: failed: User not found, job " in capsys.readouterr().out
    assert run(["outbox", "held"]) == 0
    assert served.reward_counts() == dict.fromkeys(guests(3), 1)


def test_rows_that_cannot_be_put(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad rows are told with their reasons, and the others are put."""
    file = rows(tmp_path, "a@example.com,1", "nobody,2", "b@example.com,", "c@example.com,1")
    assert run(["outbox", "put", file, "--id-column", "order", *OPTIONS]) == 1
    shown = capsys.readouterr().out
    assert "4 read: 1 new, 0 known already, 3 refused, for outbox " + "/".join(OPTIONS[1::2]) in shown
    assert "item 2: " in shown
    assert "item 3: there is no id" in shown
    assert "item 4: the id '1' was put before, with another guest" in shown
    assert "example.com" not in shown


def test_json_lines(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The id may be a number of a JSON object."""
    file = written(tmp_path / "a.jsonl", '{"mail": "a@example.com", "n": 5}', '{"mail": "b@example.com"}')
    assert run(["outbox", "put", file, "--column", "mail", "--id-column", "n", *OPTIONS]) == 1
    assert "2 read: 1 new, 0 known already, 1 refused" in capsys.readouterr().out
    assert run(["outbox", "cancel", "5"]) == 0
    assert run(["outbox", "cancel", "5"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["status"], "there is no outbox"),
        (["put", "guests.csv", "--id-column", "order", *OPTIONS], "cannot read guests.csv"),
        (["forget", "--older-than", "-1"], "--older-than must be 0 or more"),
    ],
)
def test_usage_errors(
    store: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be done is said, with exit status 2."""
    assert run(["outbox", *words]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_id(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An id that was never put, or was forgotten, is a usage error."""
    assert run(["outbox", "put", rows(tmp_path, "a@example.com,1"), "--id-column", "order", *OPTIONS]) == 0
    assert run(["outbox", "outcome", "2"]) == 2
    assert "knows no outcome of the id '2'" in capsys.readouterr().err


@contextmanager
def draining(store: Path | str, served: Emulator, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A process that drains, as a supervisor starts it."""
    command = [sys.executable, "-m", "thanx_async", "outbox", "drain", "--linger", "0.01", *options]
    variables = environment(
        served.url, THANX_CLIENT_ID="client", THANX_STORE=str(store), PYTHONUNBUFFERED="1"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=variables, stdout=pipe, stderr=pipe, text=True) as process:
        yield process


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("options", "status"), [([], 0), (["--until-empty"], 3)])
def test_a_drain_that_is_stopped(
    store: Path, served: Emulator, tmp_path: Path, number: signal.Signals, options: list[str], status: int
) -> None:
    """A signal is the usual end of a drain, but not of one that was to end by itself."""
    served.script(*[ScriptedAnswer(500)] * 100)
    assert run(["outbox", "put", rows(tmp_path, "a@example.com,1"), "--id-column", "order", *OPTIONS]) == 0
    with draining(store, served, *options) as process:
        assert line_of(process).startswith("Draining")
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=HANGS)
    assert (process.returncode, err) == (status, "")
    assert out.startswith("Stopped.")


@pytest.mark.parametrize("place", ["file", "database"])
def test_a_drain_before_the_first_put(
    store: Path, served: Emulator, tmp_path: Path, request: pytest.FixtureRequest, place: str
) -> None:
    """A drain waits for outboxes, and takes up those that are made while it drains others."""
    where = str(store)
    if place == "database":
        where = request.getfixturevalue("dsn")
        assert run(["outbox", "init", "--store", where]) == 0
    with draining(where, served) as process:
        shown = line_of(process)
        assert shown.endswith("has no outbox of this credential that fits yet: waiting for the first\n")
        assert PASSWORD not in shown
        for campaign, variant in (("camp_abc123", "var_treat1"), ("camp_def456", "var_treat2")):
            file = rows(tmp_path, f"{variant}@example.com,{variant}")
            target = ["--campaign", campaign, "--variant", variant, "--merchant", MERCHANT, "--store", where]
            assert run(["outbox", "put", file, "--id-column", "order", *target]) == 0
            assert line_of(process).endswith(f"/{variant}\n")
        while len(served.reward_counts()) < 2:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(HANGS) == 0


def test_a_drain_of_nothing(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A drain that is to end by itself says that there is nothing, and succeeds."""
    monkeypatch.setenv("THANX_ACCESS_TOKEN", "s3cret")
    assert run(["outbox", "drain", "--until-empty"]) == 0
    assert capsys.readouterr().out.endswith("has no outbox of this credential that fits: nobody waits\n")
    assert not store.exists()


def test_a_drain_that_fails(store: Path, served: Emulator, tmp_path: Path) -> None:
    """A drain whose outboxes have all failed ends, so that its supervisor notices."""
    served.script(*[UNAUTHORIZED] * 100)
    assert run(["outbox", "put", rows(tmp_path, "a@example.com,1"), "--id-column", "order", *OPTIONS]) == 0
    with draining(store, served) as process:
        _, err = process.communicate(timeout=HANGS)
    assert process.returncode == 3
    assert "the drain of camp_abc123/" in err
    assert "Traceback" not in err


def test_resuming_an_outbox(
    store: Path,
    served: Emulator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outbox has no file to issue again: its run is resumed, and `drain` sends who waits."""
    monkeypatch.setenv("THANX_ACCESS_TOKEN", "s3cret")
    put = ["outbox", "put", rows(tmp_path, "a@example.com,1"), "--id-column", "order", *OPTIONS]
    assert run(put) == 0
    with closing(sqlite3.connect(store)) as database:
        (lane,) = database.execute("SELECT run_id FROM runs").fetchone()
    capsys.readouterr()
    assert run(["resume", lane, "--ledger", str(store)]) == 0
    shown = capsys.readouterr().out
    assert "are sent by `outbox drain`" in shown
    assert "`issue`" not in shown


def test_moving_to_a_database(
    store: Path,
    served: Emulator,
    dsn: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tables are made, a file's guests move there, and the file is not used any more."""
    put = ["outbox", "put", rows(tmp_path, "a@example.com,1", "b@example.com,2"), "--id-column", "order"]
    assert run([*put, *OPTIONS]) == 0
    assert run(["outbox", "copy", str(store), dsn]) == 2
    assert "tables of the ledger are missing" in capsys.readouterr().err
    monkeypatch.setenv("THANX_STORE", dsn)
    assert run(["outbox", "init"]) == 0
    assert run(["outbox", "copy", str(store)]) == 0
    told = capsys.readouterr().out
    assert "Copied 1 run with 0 batches, and 2 guests, of whom 2 wait" in told
    assert run([*put, *OPTIONS]) == 0
    assert "2 read: 0 new, 2 known already, 0 refused" in capsys.readouterr().out
    assert run(["outbox", "status", "--store", str(store)]) == 2
    failed = capsys.readouterr().err
    assert "was moved to PostgreSQL at 127.0.0.1" in failed
    assert PASSWORD not in told + failed
    assert run(["outbox", "copy", str(store), str(store)]) == 2
    assert "is a file; give postgresql://..." in capsys.readouterr().err


def test_a_database(
    served: Emulator,
    dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same commands work on a database, and nothing shows its password."""
    monkeypatch.setenv("THANX_STORE", dsn)
    assert run(["outbox", "status"]) == 2
    assert (
        "the tables of the ledger are missing; run `thanx-async outbox init` once" in capsys.readouterr().err
    )
    assert run(["outbox", "init"]) == 0
    assert run(["outbox", "migrate"]) == 0
    file = rows(tmp_path, "a@example.com,1", "b@example.com,2")
    assert run(["outbox", "put", file, "--id-column", "order", *OPTIONS]) == 0
    assert run(["outbox", "drain", "--until-empty", "--linger", "0.01"]) == 0
    assert run(["outbox", "outcome", "1"]) == 0
    assert run(["ledger", "runs", "--ledger", dsn]) == 0
    shown = capsys.readouterr()
    assert "1: issued, job " in shown.out
    assert "1 batch finished" in shown.out
    assert PASSWORD not in shown.out + shown.err
    assert served.reward_counts() == {"a@example.com": 1, "b@example.com": 1}


def test_a_file_needs_no_preparation(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Preparing a file is a usage error."""
    assert run(["outbox", "init"]) == 2
    assert "is a file; give postgresql://..." in capsys.readouterr().err


async def keep_for_ever(store: Path, url: str) -> None:
    async with SQLiteOutbox(store, **TARGET, client_id="client", base_url=url, keep_ids=None):
        pass


def test_a_drain_keeps_ids_as_the_outbox_says(
    store: Path,
    served: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A drain of the command line deletes no ids of an outbox that keeps them for ever; ``forget`` does."""
    asyncio.run(keep_for_ever(store, served.url))
    monkeypatch.setenv("THANX_ACCESS_TOKEN", "s3cret")
    put = ["outbox", "put", rows(tmp_path, "a@example.com,1"), "--id-column", "order", *OPTIONS]
    drain = ["outbox", "drain", "--until-empty", "--linger", "0.01"]
    assert [run(put), run(drain)] == [0, 0]
    with closing(sqlite3.connect(store)) as database, database:
        database.execute("UPDATE guests SET put_at = put_at - 1e8")
        database.execute("UPDATE batches SET recorded_at = recorded_at - 1e8")
    assert [run(drain), run(put)] == [0, 0]
    assert "0 new, 1 known already" in capsys.readouterr().out
    assert run(["outbox", "forget", "--older-than", "1"]) == 0
    assert "1 id was deleted" in capsys.readouterr().out
