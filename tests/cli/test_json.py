"""``--json``: one JSON value on standard output, and nothing else there."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import LOST, MERCHANT, OPTIONS, UNAUTHORIZED, USUAL, guests, written
from thanx_async.cli import run
from thanx_async.emulator import Emulator

pytestmark = pytest.mark.realtime


class Commands:
    """Runs commands with ``--json``."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *words: str, status: int = 0) -> Any:
        assert run([*words, "--json"]) == status, self.capsys.readouterr().err
        out = self.capsys.readouterr().out
        assert out.count("\n") == 1
        return json.loads(out)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


def is_time(text: str) -> bool:
    return text.endswith("Z") and text[10] == "T"


def test_issue(served: Emulator, tmp_path: Path, command: Commands) -> None:
    """A report has the counts, the reasons, what else is said, and the exit status."""
    file = written(tmp_path / "a.txt", *guests(5), "junk\u0085", "unknown1@example.com", *guests(1))
    failed = str(tmp_path / "failed.csv")
    report = command("issue", file, *OPTIONS, "--once", "--run-id", "first", "--failures", failed, status=1)
    (note,) = report.pop("notes")
    (because,) = report.pop("rejected_because")
    assert "are listed in" in note
    assert because["count"] == 1
    assert report == {
        "run_id": "first",
        "total": 8,
        "issued": 5,
        "failed": 1,
        "rejected": 1,
        "duplicates": 1,
        "unsent": 0,
        "in_doubt": 0,
        "unfinished": 0,
        "failed_because": [{"reason": "User not found", "count": 1}],
        "batches": {"in_doubt": [], "unfinished": [], "unsent": []},
        "had_one_before": 0,
        "in_another_run": 0,
        "exit_status": 1,
    }
    report = command("issue", file, *OPTIONS, "--once", "--run-id", "second", status=1)
    assert (report["had_one_before"], report["issued"], report["failed"]) == (6, 0, 1)


def test_a_stopped_run(served: Emulator, tmp_path: Path, command: Commands) -> None:
    """A stopped run names its error and its open batches; so do `resume`, and the commands of the ledger."""
    file = written(tmp_path / "a.txt", *guests(15))
    served.script(USUAL, LOST, *[UNAUTHORIZED] * 10)
    issue = ("issue", file, *OPTIONS, "--batch-size", "5", "--run-id", "run")
    report = command(*issue, status=3)
    served._script.clear()
    assert "401" in report["error"] or report["error"]
    assert report["exit_status"] == 3
    batches = report["batches"]
    assert sum(batch["count"] for batch in batches["unsent"]) == report["unsent"]
    assert all(batch["key"] for batch in batches["in_doubt"])
    (row,) = command("ledger", "runs")
    assert (row["run_id"], row["is_complete"], row["revoked_at"]) == ("run", False, None)
    assert is_time(row["begun_at"])
    shown = command("ledger", "show", "run")
    assert (shown["campaign"], shown["merchant"], shown["variant"]) == tuple(OPTIONS[1::2])
    first = shown["batches"][0]
    assert (first["number"], first["first"], first["last"], first["count"]) == (0, 0, 4, 5)
    assert is_time(first["recorded_at"])
    resumed = command("resume", "run", status=3)
    assert resumed["notes"][-1].startswith("Not all of the file was sent")
    assert command(*issue)["issued"] == 15
    assert command("verify", "run")["disagreeing"] == []
    taken = command("revoke", "run", "--yes")
    assert (taken["run_id"], taken["rewards"], taken["not_revoked"]) == ("run", 15, [])
    assert is_time(command("ledger", "runs")[0]["revoked_at"])


def test_plan(tmp_path: Path, command: Commands) -> None:
    """A plan has its numbers as numbers."""
    plan = command("plan", written(tmp_path / "a.txt", *guests(5), "junk"), status=1)
    assert (plan["total"], plan["guests"], plan["requests"], plan["rejected"]) == (6, 5, 1, 1)
    assert is_time(plan["all_known"])
    assert isinstance(plan["least_seconds"], float | int)


def test_lists(served: Emulator, tmp_path: Path, command: Commands) -> None:
    """What Thanx knows is a list of objects; limits and jobs are one."""
    campaigns = {row["id"]: row for row in command("campaigns", "--merchant", MERCHANT)}
    assert OPTIONS[5] in [variant["id"] for variant in campaigns[OPTIONS[1]]["variants"]]
    assert all(row["id"] for row in command("templates", "--merchant", MERCHANT))
    assert MERCHANT in [row["id"] for row in command("merchants")]
    assert "rewards.issue" in command("scopes")
    assert all(row["ok"] for row in command("check", *OPTIONS))
    file = written(tmp_path / "a.txt", *guests(2), "unknown1@example.com")
    command("issue", file, *OPTIONS, "--run-id", "run", status=1)
    job = command("ledger", "show", "run")["batches"][0]["job_id"]
    command("job", "wait", job, "--merchant", MERCHANT, status=1)
    shown = command("job", "show", job, "--merchant", MERCHANT)
    assert (shown["id"], shown["success_count"], shown["failure_count"]) == (job, 2, 1)
    assert is_time(shown["completed_at"])
    assert command("job", "revoke", job, "--merchant", MERCHANT, "--yes")["id"] == job
    assert command("limits")["windows"]


def test_outboxes(served: Emulator, tmp_path: Path, command: Commands) -> None:
    """Outboxes tell their status, an outcome and the held batches as JSON."""
    rows = [json.dumps({"email": guest, "id": f"o{place}"}) for place, guest in enumerate(guests(3))]
    file, store = written(tmp_path / "a.jsonl", *rows), ["--store", str(tmp_path / "outbox.sqlite")]
    assert run(["outbox", "put", file, "--id-column", "id", "--column", "email", *store, *OPTIONS]) == 0
    command.capsys.readouterr()
    (status,) = command("outbox", "status", *store)
    assert (status["campaign"], status["waiting"], status["drained_by"]) == (OPTIONS[1], 3, None)
    outcome = command("outbox", "outcome", "o1", *store)
    assert (outcome["id"], outcome["state"], outcome["job_id"]) == ("o1", "waiting", None)
    assert command("outbox", "held", *store) == []


def test_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that cannot begin prints no JSON, and the reason on standard error."""
    assert run(["issue", str(tmp_path / "none.csv"), *OPTIONS, "--json"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, bool(printed.err)) == ("", True)
