"""The display on a terminal of any width, without one, and around Ctrl-C, Ctrl-Z and a resize."""

import asyncio
import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from tests.cli.test_processes import COMMAND
from tests.helpers import HANGS, OPTIONS, environment, guests, until
from thanx_async.cli._bars import Bars
from thanx_async.cli._figures import Counts, Figures, Phase, notice
from thanx_async.emulator import Emulator, JobSpeed
from thanx_async.limiter import LimiterStatus

SLOW = JobSpeed(identifiers_per_second=0.001)
TOKENS = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+")


class Terminal:
    """A terminal with a program, and what its screen shows: enough of one for lines that are drawn again."""

    def __init__(self, columns: int, *arguments: str, **variables: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(columns)
        self.raw = ""
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env={name: value for name, value in (os.environ | variables).items() if name != "COLUMNS"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            process_group=0,  # a group that has a parent in its session can be stopped
        )
        os.close(slave)
        os.set_blocking(self._master, False)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self) -> bool:
        """Read what there is; whether the program still has the terminal open."""
        try:
            while data := os.read(self._master, 1 << 16):
                self.raw += data.decode()
        except BlockingIOError:
            return True
        except OSError:  # the other side is closed
            pass
        return False

    def shows(self, *texts: str) -> bool:
        self.read()
        screen = "\n".join(self.screen())
        return all(text in screen for text in texts)

    def screen(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for token in TOKENS.finditer(self.raw):
            text, (number, letter) = token[0], token.groups()
            if letter == "A":
                row -= int(number or 1)
            elif letter == "K":
                lines[row] = ""
            elif text == "\r":
                column = 0
            elif text == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif not letter:
                lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + len(text) :]
                column += len(text)
        return lines

    async def end(self) -> int:
        """Interrupt the program; returns its exit status."""
        self.process.send_signal(signal.SIGINT)
        await until(lambda: not self.read())
        return await asyncio.to_thread(self.process.wait, HANGS)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def issuing(emulator: Emulator, folder: Path, columns: int, **variables: str) -> Iterator[Terminal]:
    """A run of 30 guests whose jobs do not end."""
    file = folder / "guests.csv"
    file.write_text("\n".join(["email", *guests(30), "junk"]))
    state = {"XDG_STATE_HOME": str(folder), "TERM": "xterm-256color"}
    command = ["issue", str(file), *OPTIONS, "--batch-size", "10"]
    with closing(Terminal(columns, *command, **environment(emulator.url, **(state | variables)))) as terminal:
        yield terminal


@pytest.mark.parametrize("columns", [200, 80, 40])
async def test_two_bars(tmp_path: Path, columns: int) -> None:
    """They have percentages and counts at every width, no line is wider, and Ctrl-C leaves the report."""
    async with Emulator(speed=SLOW) as emulator:
        with issuing(emulator, tmp_path, columns) as terminal:
            await until(lambda: terminal.shows("100 %", "30 of 30", "\u2501", "0 of 30", "0 %", "by "))
            lines = terminal.screen()
            assert max(map(len, lines[1:])) < columns  # the first says what is read
            assert any(line.startswith("accepted \u2501") for line in lines)
            assert any(line.startswith("31 read, 3 jobs, 1 rejected") for line in lines) or columns == 40
            status = await terminal.end()
    assert status == 3
    assert terminal.shows("  unfinished           30", "stopped as asked")
    assert not terminal.shows("\u2501")
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")


async def test_no_color(tmp_path: Path) -> None:
    """With NO_COLOR the bars have none."""
    async with Emulator(speed=SLOW) as emulator:
        with issuing(emulator, tmp_path, 80, NO_COLOR="1") as terminal:
            await until(lambda: terminal.shows("30 of 30", "0 of 30"))
            await terminal.end()
    assert not re.search(r"\x1b\[[0-9;]*\b(3|4|9|10)[0-9](;[0-9;]*)?m", terminal.raw)


async def test_a_dumb_terminal(tmp_path: Path) -> None:
    """It gets plain lines, and no control sequence."""
    async with Emulator(speed=SLOW) as emulator:
        with issuing(emulator, tmp_path, 80, TERM="dumb", FORCE_COLOR="1") as terminal:
            await until(lambda: terminal.shows("31 read, 30 (100 %) accepted in 3 jobs, 0 (0 %) processed"))
            assert await terminal.end() == 3
    assert "\x1b" not in terminal.raw


async def test_a_pipe(tmp_path: Path) -> None:
    """It gets plain lines without colors, whatever FORCE_COLOR says, and no total is guessed."""
    async with Emulator(speed=SLOW) as emulator:
        process = subprocess.Popen(  # noqa: ASYNC220 - it does not wait
            [*COMMAND, "issue", "-", *OPTIONS, "--no-ledger", "--batch-size", "10"],
            env=environment(emulator.url, FORCE_COLOR="1", XDG_STATE_HOME=str(tmp_path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        with process.stdin, process.stderr:
            process.stdin.write("\n".join(guests(30)) + "\n")
            process.stdin.flush()
            line = await asyncio.to_thread(process.stderr.readline)
            process.send_signal(signal.SIGINT)
            await asyncio.to_thread(process.stderr.read)
        await asyncio.to_thread(process.wait, HANGS)
    assert re.match(r"\d+ read, \d+ accepted in \d jobs?, 0 processed(; [\d,]+ guests/s)?\n", line)


async def test_suspending(tmp_path: Path) -> None:
    """Ctrl-Z takes the bars away and stops the process; in the foreground again it draws them anew."""
    async with Emulator(speed=SLOW) as emulator:
        with issuing(emulator, tmp_path, 80) as terminal:
            await until(lambda: terminal.shows("30 of 30"))
            terminal.process.send_signal(signal.SIGTSTP)
            pid, how = await asyncio.to_thread(os.waitpid, terminal.process.pid, os.WUNTRACED)
            assert pid == terminal.process.pid
            assert os.WIFSTOPPED(how)
            terminal.read()
            assert not any(map(str.strip, terminal.screen()[1:]))
            assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
            terminal.raw = "$ fg\r\n"
            terminal.process.send_signal(signal.SIGCONT)
            await until(lambda: terminal.shows("30 of 30"))
            assert terminal.screen()[0] == "$ fg"
            assert await terminal.end() == 3


async def test_a_resize(tmp_path: Path) -> None:
    """The bars fit the new width."""
    async with Emulator(speed=SLOW) as emulator:
        with issuing(emulator, tmp_path, 120) as terminal:
            await until(lambda: terminal.shows("30 of 30"))
            terminal.resize(44)
            await until(lambda: terminal.shows("rewarded 0 of 30"))
            (bar,) = (line for line in terminal.screen() if line.startswith("accepted \u2501"))
            assert len(bar) < 44
            assert await terminal.end() == 3


async def test_a_plan_shows_what_is_read(tmp_path: Path) -> None:
    """On a terminal a plan tells the part of the file that is read, and leaves only its result there."""
    (tmp_path / "guests.txt").write_text("\n".join(guests(50_000)))
    with closing(Terminal(80, "plan", str(tmp_path / "guests.txt"), TERM="xterm")) as terminal:
        await until(lambda: not terminal.read())
        assert await asyncio.to_thread(terminal.process.wait, HANGS) == 0
    assert re.search(r"[\d,]+ read \(\d+ % of ", terminal.raw)
    assert "%" not in "\n".join(terminal.screen())
    assert "50,000 read, 50,000 guests to reward, in 5 requests" in terminal.screen()


@pytest.mark.parametrize("width", [200, 80, 40])
def test_reasons_of_waits(width: int) -> None:
    """The reason of a wait begins a line of its own below the bars."""
    away = LimiterStatus((), 3.0, None, "an outage", 0, 0, None, no_answer_for=40.0)
    held = LimiterStatus((), 60.0, None, "a refusal (429)", 0, 0, None)
    for status, text in (
        (away, "no answer from Thanx for 40 s, still trying; Ctrl-C stops"),
        (held, "waiting until "),
    ):
        counts = Counts(30, 0, 0, 2, 20, 10, 0, 10)
        figures = Figures(counts, Phase("accepted", 20, 30), Phase("rewarded", 10, 30), *notice(status))
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(Bars(figures))
        lines = console.export_text().splitlines()
        place = next(number for number, line in enumerate(lines) if line.startswith(text[:14]))
        assert place >= 3
        assert " ".join(" ".join(lines[place:]).split()).startswith(text)


def test_short_waits_are_not_told() -> None:
    """Every run waits a little; that is no news."""
    assert notice(LimiterStatus((), 4.0, None, "the limit", 0, 0, None)) == ("", "")
    assert notice(None) == ("", "")
