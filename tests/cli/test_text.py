"""Text from users, files and the server is shown as it is: one line, no markup, on any standard output."""

import io
import subprocess
import sys
from pathlib import Path
from typing import cast

import orjson
import pytest

from tests.helpers import MERCHANT, OPTIONS, UNAUTHORIZED, USUAL, batcher, guests, written
from tests.test_escaping import EVIL, SHOWN
from thanx_async import ThanxClient
from thanx_async.cli import run
from thanx_async.cli._display import Display
from thanx_async.emulator import Emulator, ScriptedAnswer
from thanx_async.limiter import LimiterStatus


def answer(**body: object) -> ScriptedAnswer:
    return ScriptedAnswer(200, orjson.dumps(body))


def test_names_are_no_markup(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run id, a file and a ledger with brackets are shown as they are, and the run continues."""
    monkeypatch.chdir(tmp_path)
    command = ["issue", written(tmp_path / "[red]a.txt", *guests(25)), *OPTIONS, "--batch-size", "10"]
    command += ["--run-id", "x[/b]y:smile:", "--ledger", "[b]runs", "--failures", "[i].csv"]
    served.script(USUAL, *[UNAUTHORIZED] * 10)
    assert run(command) == 3
    served._script.clear()
    assert run(command) == 0
    printed = capsys.readouterr()
    assert "Continuing run x[/b]y:smile: of " in printed.err
    assert "Run x[/b]y:smile:: 25 read" in printed.out
    assert "listed in [i].csv" in printed.out


async def test_progress_is_no_markup(
    client: ThanxClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason of a wait is shown on a terminal as it is, without its control characters."""

    class Held:
        def status(self) -> LimiterStatus:
            return LimiterStatus((), 60.0, None, f"[/b]{EVIL}", 0, 0, None)

    class Watched:
        limiter = Held()

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("thanx_async.cli._display._is_live", lambda _: True)
    display = Display()
    display.watch(cast(ThanxClient, Watched()))
    display.follow(batcher(client).stream([]).run)
    async with display:
        pass
    assert f"for [/b]{SHOWN}" in capsys.readouterr().err


def test_names_from_thanx(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """A campaign's name can neither begin a line nor move the cursor."""
    variant = {"id": "v", "name": EVIL, "reward_template_id": EVIL}
    campaign = {"id": "c", "name": f"[/b]{EVIL}", "variants": [variant]}
    served.script(answer(campaigns=[campaign], pagination={"total_pages": 1}))
    assert run(["campaigns", "--merchant", MERCHANT]) == 0
    assert capsys.readouterr().out == f"c  [/b]{SHOWN}\n  v  {SHOWN} ({SHOWN})\n"
    served.script(ScriptedAnswer(403, orjson.dumps({"error": {"code": EVIL, "message": EVIL}})))
    assert run(["scopes"]) == 3
    assert capsys.readouterr().err == f"thanx-async: HTTP 403 {SHOWN}: {SHOWN}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", f"[/b]{EVIL}"], f"cannot read [/b]{SHOWN}: No such file or directory"),
        (["plan", "a.txt", f"--[/b]{EVIL}"], f"Unknown option: --[/b]{SHOWN}."),
        ([f"[/b]{EVIL}"], f'Unknown command "[/b]{SHOWN}".'),
        (["plan", "names.csv"], r"say with --column which column to read: na\x1bïve, [/b]"),
        (["resume", f"[/b]{EVIL}"], "knows no run '[/b]a\\x1b[2J"),
        (["ledger", "runs", "--ledger", f"[/b]{EVIL}"], f"there is no ledger [/b]{SHOWN}"),
        (["issue", "a.txt", "--emulator", "--failures", f"no/{EVIL}"], f"cannot write no/{SHOWN}: No such"),
    ],
)
def test_usage_errors(
    served: Emulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """What the user typed or a file names comes back as one line."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "a.txt", "a@example.com")
    written(tmp_path / "names.csv", "na\x1bïve,[/b]")
    assert run(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("thanx-async: ")
    assert shown.count("\n") == 1
    assert message in shown


def test_advice_for_odd_paths_can_be_typed(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ledger whose path has control characters is named in escapes that a shell understands."""
    path = tmp_path / "my 'runs\n\x1bé"
    command = ["issue", written(tmp_path / "a.txt", *guests(3)), *OPTIONS, "--ledger", str(path)]
    assert run(command) == 0
    assert run(command) == 2
    advised = capsys.readouterr().err.partition("--ledger ")[2].partition("`")[0]
    assert advised.isascii()
    typed = subprocess.run(["bash", "-c", f"printf %s {advised}"], capture_output=True, text=True, check=True)  # noqa: S607 - the user's own bash
    assert typed.stdout == str(path)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_narrow_encodings(
    served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    """A report goes to its end on a standard output that lacks its characters."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    failure = {"identifier_index": 0, "identifier_type": "email", "error": "no café 日"}
    job = {"id": "job000001", "state": "completed", "total_count": 1}
    job |= {"summary": {"success_count": 0, "failure_count": 1, "failures": [failure]}}
    served.script(USUAL, answer(issuance_job=job))
    file, listed = written(tmp_path / "a.txt", "a@example.com"), tmp_path / "failures.csv"
    assert run(["issue", file, *OPTIONS, "--failures", str(listed)]) == 1
    out.seek(0)
    text = out.read()
    assert ("no café" if encoding == "latin-1" else r"no caf\xe9") + r" \u65e5 (position 0)" in text
    assert text.endswith(f"is listed in {listed}\n")
