"""Variables from a file, checks before issuing, and completions."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers import OPTIONS
from thanx_async.cli import run
from thanx_async.emulator import Emulator

VARIABLES = ("THANX_CLIENT_ID", "THANX_ACCESS_TOKEN", "THANX_BASE_URL", "THANX_USER_AGENT")


@pytest.fixture
def env_file(served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the credentials, none of which is in the environment."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / ".env"
    file.write_text(
        f"export THANX_CLIENT_ID='client'\n# a comment\nTHANX_ACCESS_TOKEN=\"s3cret\"\n"
        f"THANX_BASE_URL={served.url}\nOTHER=1\n"
    )
    return file


@pytest.mark.parametrize("where", ["before", "after", "equals"])
def test_variables_from_a_file(env_file: Path, capsys: pytest.CaptureFixture[str], where: str) -> None:
    """The option may stand anywhere, and only this program's variables are taken."""
    command = {
        "before": ["--env-file", str(env_file), "scopes"],
        "after": ["scopes", "--env-file", str(env_file)],
        "equals": ["scopes", f"--env-file={env_file}"],
    }[where]
    assert run(command) == 0
    assert capsys.readouterr().out == "rewards.issue\n"
    assert "OTHER" not in os.environ


def test_what_is_set_already_stays(
    env_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The environment wins over the file."""
    monkeypatch.setenv("THANX_ACCESS_TOKEN", "has a space")
    assert run(["scopes", "--env-file", str(env_file)]) == 2
    assert "THANX_ACCESS_TOKEN" in capsys.readouterr().err


def test_a_file_that_was_not_given_is_named(env_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Who has a file with the missing variable is told how to give it, and sees no value."""
    assert run(["scopes"]) == 2
    error = capsys.readouterr().err
    assert "THANX_CLIENT_ID is not set; the file .env here is not read by itself" in error
    assert "give --env-file .env" in error
    assert "s3cret" not in error


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read"), (b"A=1\n", "sets none of this program's variables"), (b"\xff\xfe\x00", "UTF-8")],
)
def test_files_that_do_not_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    """A file that is missing, of another program, or no text is a usage error."""
    file = tmp_path / "vars"
    if content is not None:
        file.write_bytes(content)
    assert run(["scopes", "--env-file", str(file)]) == 2
    assert words in capsys.readouterr().err
    assert run(["scopes", "--env-file"]) == 2
    assert "needs the name of a file" in capsys.readouterr().err


def test_checking(served: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Each condition has a line, and one that does not hold makes the status 2."""
    assert run(["check", *OPTIONS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", name] for name in ("credential", "scope", "merchant", "campaign", "variant")
    ]
    assert run(["check", *OPTIONS[:-1], "var_none"]) == 2
    assert "NOT OK  variant" in capsys.readouterr().out
    assert served.jobs_accepted == 0


def test_completions(capsys: pytest.CaptureFixture[str]) -> None:
    """The completions of each shell name the commands, and those of bash are a valid program."""
    for shell in ("bash", "zsh", "fish"):
        assert run(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert "outbox" in script
        assert "max-rewards" in script
        if shell == "bash":
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)  # noqa: S607 - whichever is installed
    assert run(["completion", "tcsh"]) == 2
