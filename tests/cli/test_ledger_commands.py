"""The commands for recorded runs."""

import shlex
import sqlite3
import stat
from contextlib import closing
from io import StringIO
from pathlib import Path

import platformdirs
import pytest

from tests.helpers import LOST, MERCHANT, OPTIONS, UNAUTHORIZED, USUAL, counts, guests, written
from thanx_async.cli import run
from thanx_async.emulator import Emulator, ScriptedAnswer
from thanx_async.errors import LedgerError
from thanx_async.ledger import SQLiteLedger


@pytest.fixture
def doubtful(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The command line of a run whose only batch is in doubt."""
    command = ["issue", written(tmp_path / "a.txt", *guests(5)), *OPTIONS, "--run-id", "march"]
    served.script(LOST, UNAUTHORIZED)
    assert run(command) == 3
    capsys.readouterr()
    return command


def refused(served: Emulator, command: list[str], *answers: ScriptedAnswer) -> int:
    """The exit status of a command whose requests get these answers, and then nothing but 401."""
    served.script(*answers, *[UNAUTHORIZED] * 10)
    status = run(command)
    served._script.clear()
    return status


def test_the_same_command_goes_on(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stopped command started again finishes the rest; a third time it says that all is done."""
    command = ["issue", written(tmp_path / "a.txt", *guests(25)), *OPTIONS, "--batch-size", "10"]
    assert refused(served, command, USUAL) == 3
    assert counts(capsys.readouterr().out)["unsent"] == 15
    assert run(command) == 0
    printed = capsys.readouterr()
    assert "Continuing run a.txt-" in printed.err
    assert "0 batches finished, 1 accepted, 0 in doubt" in printed.err
    assert counts(printed.out)["issued"] == 25
    assert run(command) == 2
    assert "already complete: 25 issued, 0 failed, on" in capsys.readouterr().err
    assert served.reward_counts() == dict.fromkeys(guests(25), 1)
    assert run([*command, "--run-id", "once more"]) == 0
    assert served.reward_counts() == dict.fromkeys(guests(25), 2)
    own = platformdirs.user_state_path("thanx-async", appauthor=False) / "ledger.sqlite"
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert stat.S_IMODE(own.parent.stat().st_mode) == 0o700


def test_a_changed_file(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that has changed since its run was stopped is not issued under the same run."""
    command = ["issue", written(tmp_path / "a.txt", *guests(25)), *OPTIONS, "--batch-size", "10"]
    assert refused(served, command, USUAL) == 3
    written(tmp_path / "a.txt", *guests(25, start=100))
    assert run(command) == 2
    assert "batch 0, recorded as positions 0 to 9 (10 guests), now holds other" in capsys.readouterr().err
    assert served.jobs_accepted == 1


def test_a_refused_run_does_not_go_on(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other settings than those of the run are named as they were typed, and nothing is said to go on."""
    command = ["issue", written(tmp_path / "a.txt", *guests(25)), *OPTIONS, "--run-id", "march"]
    assert refused(served, [*command, "--batch-size", "10"]) == 3
    assert refused(served, [*command, "--batch-size", "10"], USUAL) == 3
    capsys.readouterr()
    assert run([*command, "--batch-size", "5"]) == 2
    printed = capsys.readouterr().err
    assert "was started with other settings: --batch-size 5 instead of 10" in printed
    assert "or another --run-id" in printed
    assert "Continuing" not in printed
    monkeypatch.setenv("THANX_CLIENT_ID", "another")
    assert run(["resume", "march"]) == 2
    assert "other settings: THANX_CLIENT_ID 'another' instead of 'client'" in capsys.readouterr().err
    monkeypatch.setenv("THANX_ACCESS_TOKEN", "s3cret\n")
    assert run(["resume", "march"]) == 2
    assert "THANX_ACCESS_TOKEN has a character that a header may not hold" in capsys.readouterr().err
    assert served.jobs_accepted == 1


def test_what_is_advised_can_be_typed(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands in messages name the ledger, and are quoted for the shell."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "-my guests.txt", *guests(3))
    command = ["issue", "-my guests.txt", *OPTIONS, "--ledger", "my runs.sqlite"]
    assert run(command) == 0
    assert run(command) == 2
    printed = capsys.readouterr().err
    advised = printed.partition("`")[2].partition("`")[0]
    assert advised.startswith("resume 'my guests.txt-")
    assert advised.endswith("' --ledger 'my runs.sqlite'")
    assert run(shlex.split(advised)) == 0
    assert "issued                3" in capsys.readouterr().out
    assert run(["resume", "april", "--ledger", "my runs.sqlite"]) == 2
    assert "see `ledger runs --ledger 'my runs.sqlite'`" in capsys.readouterr().err


def test_what_was_done_is_no_wrong_use(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that fails after rewards were taken back does not end like a refused command."""
    file = written(tmp_path / "a.txt", *guests(3))
    assert run(["issue", file, *OPTIONS, "--run-id", "march"]) == 0

    async def full(*_: object) -> None:
        raise LedgerError("the disk is full")

    monkeypatch.setattr(SQLiteLedger, "finish", full)
    assert run(["revoke", "march", "--yes"]) == 3
    assert "the disk is full" in capsys.readouterr().err
    assert sum(served.reward_counts().values()) == 0


def test_no_state_directory(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a --ledger of its own a command needs none."""
    file, path = written(tmp_path / "a.txt", *guests(3)), str(tmp_path / "runs.sqlite")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "a.txt"))
    assert run(["issue", file, *OPTIONS, "--run-id", "march", "--ledger", path]) == 0
    assert run(["ledger", "show", "april", "--ledger", path]) == 2
    assert f"see `ledger runs --ledger {path}`" in capsys.readouterr().err


def test_a_list_that_cannot_be_written_stops_in_time(served: Emulator, doubtful: list[str]) -> None:
    """`resume` sends nothing when its --failures cannot be written."""
    asked = len(served.requests)
    assert run(["resume", "march", "--failures", "no/where.csv"]) == 2
    assert len(served.requests) == asked
    assert run(["resume", "march"]) == 0


def test_without_a_ledger(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--no-ledger leaves no trace, and each start is a run of its own."""
    command = ["issue", written(tmp_path / "a.txt", *guests(3)), *OPTIONS, "--no-ledger"]
    assert [run(command), run(command)] == [0, 0]
    assert served.reward_counts() == dict.fromkeys(guests(3), 2)
    assert run([*command, "--ledger", str(tmp_path / "b.sqlite")]) == 2
    assert "give only one of --ledger and --no-ledger" in capsys.readouterr().err
    assert not (platformdirs.user_state_path("thanx-async", appauthor=False) / "ledger.sqlite").exists()


def test_resume(served: Emulator, doubtful: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is in doubt is sent again and waited for, without the file."""
    assert run(["ledger", "show", "march"]) == 0
    shown = capsys.readouterr().out
    assert "batch 0: positions 0 to 4, 5 guests, in doubt since" in shown
    assert "(will be sent again), key" in shown
    assert f"merchant {MERCHANT}" in shown
    assert run(["resume", "march"]) == 0
    assert counts(capsys.readouterr().out)["issued"] == 5
    assert served.reward_counts() == dict.fromkeys(guests(5), 1)
    assert run(["ledger", "show", "march"]) == 0
    assert "completed: 5 issued, job job000001" in capsys.readouterr().out
    assert run(["resume", "april"]) == 2
    assert "knows no run 'april'" in capsys.readouterr().err


def test_resume_that_cannot_do_it_all(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What had not been sent needs the file, and an error is reported as such."""
    command = ["issue", written(tmp_path / "a.txt", *guests(25)), *OPTIONS, "--batch-size", "10"]
    assert refused(served, [*command, "--run-id", "march"], LOST) == 3
    assert refused(served, ["resume", "march"]) == 3
    assert "stopped: HTTP 401" in capsys.readouterr().err
    assert run(["resume", "march"]) == 3
    assert "Not all of the file was sent: run `issue` with it again" in capsys.readouterr().out
    assert run([*command, "--run-id", "march"]) == 0
    assert served.reward_counts() == dict.fromkeys(guests(25), 1)


def test_revoke(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run is taken back as a whole, and stays so."""
    command = ["issue", written(tmp_path / "a.txt", *guests(5)), *OPTIONS, "--run-id", "march"]
    assert run(command) == 0
    assert run(["revoke", "march", "--yes"]) == 0
    assert "Run march: 5 rewards of 1 job taken back" in capsys.readouterr().out
    assert sum(served.reward_counts().values()) == 0
    assert run(["ledger", "runs"]) == 0
    assert "revoked on" in capsys.readouterr().out
    assert run(command) == 2
    assert "was revoked; give another --run-id" in capsys.readouterr().err
    assert run(["revoke", "march", "--yes"]) == 0
    assert "its job has no rewards left to take back" in capsys.readouterr().out


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "status", "left"), [("y\n", 0, 0), ("n\n", 3, 5), ("", 3, 5), ("\n", 3, 5)]
)
def test_revoking_asks(
    served: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    status: int,
    left: int,
) -> None:
    """On a terminal what would be taken back is shown, and only a yes takes it back."""
    assert run(["issue", written(tmp_path / "a.txt", *guests(5)), *OPTIONS, "--run-id", "march"]) == 0
    monkeypatch.setattr("sys.stdin", _Terminal(answer))
    assert run(["revoke", "march"]) == status
    assert "5 rewards of 1 job will be taken back" in capsys.readouterr().out
    assert sum(served.reward_counts().values()) == left


def test_nobody_to_ask(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script that does not say yes takes nothing back, neither of a run nor of a job."""
    assert run(["issue", written(tmp_path / "a.txt", *guests(5)), *OPTIONS, "--run-id", "march"]) == 0
    for command in (["revoke", "march"], ["job", "revoke", "job000001", "--merchant", OPTIONS[3]]):
        assert run(command) == 2
        assert "so give --yes" in capsys.readouterr().err
    assert sum(served.reward_counts().values()) == 5


def test_who_had_failed_is_not_called_revoked(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guest who never had a reward keeps the reason."""
    file = written(tmp_path / "a.txt", *guests(2), "unknown1@example.com")
    assert run(["issue", file, *OPTIONS, "--run-id", "march"]) == 1
    assert run(["revoke", "march", "--yes"]) == 0
    capsys.readouterr()
    assert run(["resume", "march"]) == 1
    printed = capsys.readouterr().out
    assert "2 failed: reward revoked (positions 0, 1)" in printed
    assert "1 failed: User not found (position 2)" in printed


def test_a_doubt_cannot_be_taken_back(doubtful: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What has no known job is reported with its place and key."""
    assert run(["revoke", "march", "--yes"]) == 2
    assert "give `resume march` first" in capsys.readouterr().err
    with closing(sqlite3.connect(own_ledger(), isolation_level=None)) as db:
        db.execute("UPDATE batches SET recorded_at = 0")  # too old for that
    assert run(["revoke", "march", "--yes"]) == 3
    assert "not taken back: it is not known which job issued it: positions 0 to 4" in capsys.readouterr().out
    assert run(["ledger", "show", "march"]) == 0
    assert "not sent again, since the run was revoked: settle it" in capsys.readouterr().out
    assert run(["resume", "march"]) == 3
    assert "Batches in doubt in a revoked run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("how", "after"),
    [
        (["--issued"], "complete: 5 issued"),
        (["--job", "job000001"], "0 batches finished, 1 accepted, 0 in doubt"),
        (["--not-issued"], "0 batches finished, 0 accepted, 0 in doubt"),
    ],
)
def test_settle(
    served: Emulator, doubtful: list[str], capsys: pytest.CaptureFixture[str], how: list[str], after: str
) -> None:
    """A doubt is decided by hand in one of three ways, once."""
    assert run(["ledger", "settle", "march", "0", *how]) == 0
    assert run(["ledger", "runs"]) == 0
    assert after in capsys.readouterr().out
    assert run(["ledger", "settle", "march", "0", *how]) == 2
    assert "has no batch 0 in doubt" in capsys.readouterr().err
    assert run(doubtful) == (2 if how == ["--issued"] else 0)
    assert served.reward_counts() == dict.fromkeys(guests(5), 1)


def test_a_ledger_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name with a typing error does not make a file."""
    missing = ["--ledger", str(tmp_path / "typo.sqlite")]
    for command in (
        ["ledger", "runs"],
        ["ledger", "show", "march"],
        ["resume", "march"],
        ["revoke", "march"],
    ):
        assert run([*command, *missing]) == 2
        assert "there is no ledger" in capsys.readouterr().err
    assert not (tmp_path / "typo.sqlite").exists()


def test_settling_by_a_wrong_job(
    served: Emulator, doubtful: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that Thanx does not know, or that has other guests, settles nothing."""
    other = written(tmp_path / "other.txt", *guests(7, start=50))
    assert run(["issue", other, *OPTIONS, "--no-ledger"]) == 0
    recorded = written(tmp_path / "recorded.txt", *guests(5, start=80))
    assert run(["issue", recorded, *OPTIONS, "--run-id", "april"]) == 0
    settle = ["ledger", "settle", "march", "0", "--job"]
    assert run([*settle, "nonsense"]) == 3
    assert "HTTP 404" in capsys.readouterr().err
    assert run([*settle, f"job{served.jobs_accepted:06}"]) == 2
    assert "is batch 0 of run april already" in capsys.readouterr().err
    assert run([*settle, f"job{served.jobs_accepted - 1:06}"]) == 2
    assert "has 7 guests of campaign camp_abc123; the batch has 5" in capsys.readouterr().err
    assert run([*settle, "job000001"]) == 0
    assert run(["resume", "march"]) == 0


@pytest.mark.parametrize(("how", "issued"), [("--issued", 5), ("--not-issued", 0)])
def test_settling_a_job_that_does_not_say(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, issued: int
) -> None:
    """A job that has ended without its numbers leaves its guests in doubt, until that is settled."""
    silent = ScriptedAnswer(200, b'{"issuance_job": {"id": "job000001", "state": "failed"}}')
    served.script(USUAL, silent)
    assert run(["issue", written(tmp_path / "a.txt", *guests(5)), *OPTIONS, "--run-id", "march"]) == 3
    assert counts(capsys.readouterr().out)["in doubt"] == 5
    served.script(silent, silent)
    assert run(["ledger", "settle", "march", "0", "--job", "job000002"]) == 2
    assert "it is job job000001 already" in capsys.readouterr().err
    assert run(["ledger", "settle", "march", "0", how]) == 0
    assert run(["ledger", "runs"]) == 0
    assert f"complete: {issued} issued" in capsys.readouterr().out
    assert run(["ledger", "settle", "march", "0", how]) == 2


def test_failures_of_a_run_that_is_complete(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are listed by `resume`; `issue` does not leave an empty list."""
    command = ["issue", written(tmp_path / "a.txt", *guests(2), "unknown@example.com"), *OPTIONS]
    assert run([*command, "--run-id", "march"]) == 1
    listed = tmp_path / "late.csv"
    assert run([*command, "--run-id", "march", "--failures", str(listed)]) == 2
    assert "2 issued, 1 failed" in capsys.readouterr().err
    assert not listed.exists()
    assert run(["resume", "march", "--failures", str(listed)]) == 1
    assert listed.read_text(encoding="utf-8-sig").splitlines() == [
        "position,value,fate,reason",
        "2,,failed,User not found",
    ]


def test_a_wrong_campaign_can_be_corrected(served: Emulator, tmp_path: Path) -> None:
    """A run that has sent nothing takes other settings."""
    file = written(tmp_path / "a.txt", *guests(2))
    wrong = ["--campaign", "x", *OPTIONS[2:]]
    assert run(["issue", file, *wrong, "--run-id", "march"]) == 3
    assert run(["issue", file, *OPTIONS, "--run-id", "march"]) == 0
    assert served.reward_counts() == dict.fromkeys(guests(2), 1)


def test_a_revocation_that_was_broken_off(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run says how many jobs are left, until the same command has taken them back as well."""
    assert run(["issue", written(tmp_path / "a.txt", *guests(2)), *OPTIONS, "--run-id", "march"]) == 0
    with closing(sqlite3.connect(own_ledger(), isolation_level=None)) as db:
        db.execute("UPDATE runs SET revoked_at = 1")
    assert run(["ledger", "runs"]) == 0
    assert "1 job not taken back yet: give `revoke` again" in capsys.readouterr().out
    assert run(["revoke", "march", "--yes"]) == 0
    assert run(["ledger", "runs"]) == 0
    assert "not taken back" not in capsys.readouterr().out


def own_ledger() -> Path:
    return platformdirs.user_state_path("thanx-async", appauthor=False) / "ledger.sqlite"


def test_resuming_without_an_answer(
    served: Emulator, doubtful: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The account is shown although the jobs may not be looked at."""
    assert run(["ledger", "settle", "march", "0", "--job", "job000001"]) == 0
    served.script(ScriptedAnswer(401))
    assert run(["resume", "march"]) == 3
    printed = capsys.readouterr()
    assert "Run march: 5 sent and recorded" in printed.out
    assert "unfinished            5" in printed.out
    assert "stopped: HTTP 401" in printed.err


@pytest.mark.parametrize("how", [[], ["--issued", "--not-issued"], ["--issued", "--job", "job000001"]])
def test_settle_needs_one_decision(
    doubtful: list[str], capsys: pytest.CaptureFixture[str], how: list[str]
) -> None:
    """None or two decisions are a usage error."""
    assert run(["ledger", "settle", "march", "0", *how]) == 2
    assert "give one of --issued, --not-issued and --job ID" in capsys.readouterr().err


def test_without_a_place_to_record(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the user's own ledger cannot be, nothing is sent, and the message says what to do."""
    folder = platformdirs.user_state_path("thanx-async", appauthor=False)
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.write_text("in the way")
    assert run(["issue", written(tmp_path / "a.txt", *guests(3)), *OPTIONS]) == 2
    assert f"cannot write in {folder}, where runs are recorded" in capsys.readouterr().err
    assert served.requests == []


def test_guard_rails(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The options of the guard stop a run, and say which did."""
    file = written(tmp_path / "a.txt", *guests(2), *[f"unknown{n}@example.com" for n in range(20)])
    command = ["issue", file, *OPTIONS, "--batch-size", "5"]
    assert run([*command, "--run-id", "a", "--max-rewards", "8"]) == 3
    assert "stopped: --max-rewards is 8: 5 guests may have a reward" in capsys.readouterr().err
    assert run([*command, "--run-id", "b", "--canary", "4", "--max-failure-rate", "0.4"]) == 3
    assert "--max-failure-rate is 40.0%: 2 of 4 guests" in capsys.readouterr().err
    assert run([*command, "--run-id", "c", "--canary", "4"]) == 2
    assert "--canary needs --max-failure-rate" in capsys.readouterr().err


def test_verify(served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Path) -> None:
    """What an event told of a run is polled, and corrected in the ledger if it was wrong."""
    values = written(tmp_path / "a.txt", "unknown@example.com", *guests(3))
    assert run(["issue", values, *OPTIONS, "--run-id", "march", "--batch-size", "2"]) == 1
    assert run(["verify", "march"]) == 0
    assert "no event told an outcome that polls have not" in capsys.readouterr().out
    told = '{"state":"completed","issued":2,"failures":{},"by_event":true}'
    with closing(sqlite3.connect(state / "ledger.sqlite")) as db, db:
        db.execute("UPDATE batches SET outcome = CAST(? AS BLOB)", (told,))
    assert run(["verify", "march"]) == 3
    printed = capsys.readouterr()
    assert "1 of 2 jobs whose outcome an event told are confirmed" in printed.out
    assert "corrected: the number of rewards is another one: positions 0 to 1, 2 guests" in printed.out
    assert run(["verify", "march"]) == 0
    capsys.readouterr()
    assert run(["resume", "march"]) == 1
    assert counts(capsys.readouterr().out)["failed"] == 1
