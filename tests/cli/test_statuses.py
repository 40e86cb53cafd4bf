"""Exit statuses, as `thanx-async --help` tells them."""

import json
from pathlib import Path

import pytest

from tests.helpers import LOST, MERCHANT, OPTIONS, UNAUTHORIZED, USUAL, guests, written
from thanx_async.cli import run
from thanx_async.emulator import Emulator

pytestmark = pytest.mark.realtime


def test_issuing(served: Emulator, tmp_path: Path) -> None:
    """0 all issued, 1 some failed or rejected, 2 nothing was sent, 3 stopped or in doubt."""
    good, junk = written(tmp_path / "a.txt", *guests(5)), written(tmp_path / "b.txt", *guests(5), "junk")
    failing = written(tmp_path / "c.txt", "unknown1@example.com")
    assert run(["issue", good, *OPTIONS, "--run-id", "good"]) == 0
    assert run(["issue", junk, *OPTIONS]) == 1
    assert run(["issue", failing, *OPTIONS, "--run-id", "failing"]) == 1
    assert run(["issue", good, *OPTIONS, "--run-id", "good"]) == 2
    assert run(["issue", str(tmp_path / "none.txt"), *OPTIONS]) == 2
    served.script(LOST, *[UNAUTHORIZED] * 10)
    assert run(["issue", good, *OPTIONS, "--run-id", "doubt"]) == 3
    assert run(["issue", good, *OPTIONS, "--run-id", "unsent"]) == 3
    served._script.clear()
    assert run(["plan", good]) == 0
    assert run(["plan", junk]) == 1
    assert run(["plan", str(tmp_path / "none.txt")]) == 2


def test_recorded_runs(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`resume`, `verify`, `revoke` and `ledger`."""
    file = written(tmp_path / "a.txt", *guests(5), "unknown1@example.com")
    assert run(["issue", file, *OPTIONS, "--run-id", "run"]) == 1
    assert run(["resume", "run"]) == 1
    assert run(["verify", "run"]) == 0
    assert run(["revoke", "run"]) == 2
    assert run(["revoke", "run", "--yes"]) == 0
    assert run(["ledger", "runs"]) == 0
    assert run(["ledger", "show", "run"]) == 0
    for command in (["resume"], ["revoke", "--yes"], ["verify"], ["ledger", "show"]):
        assert run([*command, "other"]) == 2
    assert run(["ledger", "settle", "run", "0", "--issued"]) == 2
    served.script(USUAL, *[UNAUTHORIZED] * 10)
    assert run(["issue", file, *OPTIONS, "--run-id", "open", "--batch-size", "3"]) == 3
    assert run(["resume", "open"]) == 3
    served._script.clear()
    assert run(["resume", "open"]) == 3


def test_single_requests(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 with an answer, 1 where a job has failures, 2 where something cannot be issued, 3 with an error."""
    assert run(["issue", written(tmp_path / "a.txt", "unknown1@example.com"), *OPTIONS]) == 1
    job = served.requests and "job000001"
    merchant = ["--merchant", MERCHANT]
    assert run(["job", "show", job, *merchant]) == 0
    assert run(["job", "wait", job, *merchant]) == 1
    assert run(["job", "revoke", job, *merchant, "--yes"]) == 0
    assert run(["job", "show", "none", *merchant]) == 3
    assert run(["job", "wait", job, *merchant, "--timeout", "0"]) == 2
    for command in (["campaigns", *merchant], ["templates", *merchant], ["merchants"], ["scopes"]):
        assert run(command) == 0
        served.script(UNAUTHORIZED)
        assert run(command) == 3
        served._script.clear()
    assert run(["check", *OPTIONS]) == 0
    assert run(["check", *OPTIONS[:-1], "none"]) == 2
    assert run(["limits"]) == 0


def test_outboxes(served: Emulator, tmp_path: Path) -> None:
    """0 all is well, 1 no reward or batches are held, 2 no such outbox or id."""
    rows = [
        {"email": "guest1@example.com", "id": "1"},
        {"email": "unknown1@example.com", "id": "2"},
        {"email": "junk", "id": "3"},
    ]
    file = written(tmp_path / "a.jsonl", *map(json.dumps, rows))
    store = ["--store", str(tmp_path / "outbox.sqlite")]
    assert run(["outbox", "outcome", "1", *store]) == 2
    assert run(["outbox", "put", file, "--id-column", "id", "--column", "email", *store, *OPTIONS]) == 1
    assert run(["outbox", "drain", "--until-empty", *store]) == 0
    assert run(["outbox", "outcome", "1", *store]) == 0
    assert run(["outbox", "outcome", "2", *store]) == 1
    assert run(["outbox", "outcome", "3", *store]) == 2
    assert run(["outbox", "cancel", "1", *store]) == 1
    assert run(["outbox", "status", *store]) == 0
    assert run(["outbox", "held", *store]) == 0
