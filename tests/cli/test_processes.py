"""The command line as a process: signals, pipes, standard streams."""

import asyncio
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import aiohttp
import orjson
import pytest

from tests.helpers import HANGS, MERCHANT, OPTIONS, TARGET, USUAL, environment, guests, until
from thanx_async import ThanxClient
from thanx_async.emulator import Emulator, Faults, JobSpeed, ScriptedAnswer

pytestmark = pytest.mark.realtime
COMMAND = [sys.executable, "-m", "thanx_async"]


def start(*arguments: str, url: str = "", stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(url),
        text=True,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def test_interrupting_a_run(tmp_path: Path) -> None:
    """Ctrl-C finishes what is under way, sends nothing more, and the report is what Thanx says, too."""
    (tmp_path / "guests.txt").write_text("\n".join(guests(1000)))
    async with Emulator(faults=Faults(delay=0.3)) as emulator:
        process = start(
            "issue", str(tmp_path / "guests.txt"), *OPTIONS, "--batch-size", "10", url=emulator.url
        )
        await until(lambda: len(emulator.requests) >= 4)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.to_thread(process.communicate, timeout=HANGS)
        rewarded = len(emulator.reward_counts())
    assert process.returncode == 3, err
    assert "stopped as asked" in err
    assert "Stopping: requests in progress finish first." in err
    fates = dict(re.findall(r"^  (\w+(?: \w+)?) +([\d,]+)$", out, re.MULTILINE))
    assert int(fates["in doubt"]) == 0
    assert int(fates["issued"]) + int(fates["unfinished"]) == rewarded
    assert 0 < rewarded < 1000


async def test_an_open_pipe_does_not_hold_the_exit() -> None:
    """Ctrl-C ends a run that waits for its standard input."""
    async with Emulator() as emulator:
        process = start("issue", "-", *OPTIONS, url=emulator.url, stdin=subprocess.PIPE)
        assert process.stdin is not None
        for guest in guests(5000):
            process.stdin.write(guest + "\n")
        process.stdin.flush()
        await until(lambda: is_reading(process.pid))
        process.send_signal(signal.SIGINT)
        with process.stdin:
            assert await asyncio.to_thread(process.wait, HANGS) == 3
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout as out, process.stderr as err:
            assert "read from the input" in out.read()
            assert "stopped as asked" in err.read()


def is_reading(pid: int) -> bool:
    """Whether the process catches signals by now, and has a thread that reads its input."""
    text = Path(f"/proc/{pid}/status").read_text()
    caught = int(re.findall(r"SigCgt:\s*(\w+)", text)[0], 16)
    return bool(caught & 1 << signal.SIGTERM - 1) and has_a_thread(pid)


def has_a_thread(pid: int) -> bool:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"Threads:\s*(\d+)", text)[0]) > 1


async def test_interrupting_what_only_looks() -> None:
    """Ctrl-C ends a plan that waits for its input, and a wait for a job, and says so."""
    async with Emulator(speed=JobSpeed(identifiers_per_second=0.001), id_tag="") as emulator:
        async with ThanxClient("c", "s3cret", base_url=emulator.url) as client:
            await client.issue_rewards(**TARGET, identifiers=guests(1))
        planning = start("plan", "-", stdin=subprocess.PIPE)
        waiting = start("job", "wait", "job000001", "--merchant", MERCHANT, url=emulator.url)
        await until(lambda: has_a_thread(planning.pid) and len(emulator.requests) > 1)
        for process in (planning, waiting):
            process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait, HANGS) == 3
            _, err = process.communicate()
            assert err == "thanx-async: interrupted; the same command can be given again\n"


def complaints(err: str) -> list[str]:
    """What standard error has besides progress, which a run shows that takes longer than two seconds."""
    return [line for line in err.splitlines() if not re.match(r"[\d,]+ read, ", line)]


async def test_nobody_reads_what_is_printed(tmp_path: Path) -> None:
    """Where standard output or error is closed, or its reader has gone, the run goes on, and its exit status
    is the true one."""
    (tmp_path / "guests.txt").write_text("\n".join(guests(30)))
    async with Emulator(limits=[], speed=JobSpeed(1e6, 0.01)) as emulator:
        issue = ["issue", str(tmp_path / "guests.txt"), *OPTIONS, "--no-ledger", "--batch-size", "10"]
        for number, arguments in enumerate((issue, ["--help"], ["merchants"]), 1):
            process = start(*arguments, url=emulator.url)
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            err = await asyncio.to_thread(process.stderr.read)
            process.stderr.close()
            assert (await asyncio.to_thread(process.wait, HANGS), complaints(err)) == (0, []), number
        for closed in (">&-", "2>&-", "<&-"):
            command = ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, *issue]
            done = await asyncio.to_thread(
                subprocess.run, command, env=environment(emulator.url), capture_output=True, text=True
            )
            assert (done.returncode, complaints(done.stderr)) == (0, [])
    assert emulator.reward_counts() == dict.fromkeys(guests(30), 4)


async def test_the_status_outlives_the_reader(tmp_path: Path) -> None:
    """Where the reader of both streams leaves early, the exit status is still that of the outcome."""
    (tmp_path / "guests.txt").write_text("junk\na@example.com\n")
    async with Emulator(limits=[], speed=JobSpeed(1e6, 0.01)) as emulator:
        issue = ["issue", str(tmp_path / "guests.txt"), *OPTIONS, "--no-ledger"]
        for arguments, reader, status in ((issue, "head -n 1", 1), (issue, ":", 1), (["--nope"], ":", 2)):
            script = f'{{ "$@"; echo $? >"$STATUS"; }} 2>&1 | {reader}'
            variables = environment(emulator.url, STATUS=str(tmp_path / "status"))
            command = ["sh", "-c", script, "sh", *COMMAND, *arguments]
            done = await asyncio.to_thread(
                subprocess.run, command, env=variables, capture_output=True, text=True
            )
            assert (tmp_path / "status").read_text() == f"{status}\n"
            assert "Traceback" not in done.stdout + done.stderr


async def test_a_narrow_standard_output_that_is_the_list(tmp_path: Path) -> None:
    """Rows and report share a standard output that lacks their characters, and its file keeps its mode."""
    failure = {"identifier_index": 0, "identifier_type": "email", "error": "no café 日\x1b[2J\nall issued"}
    job = {"id": "job000001", "state": "completed", "total_count": 1}
    job |= {"summary": {"success_count": 0, "failure_count": 1, "failures": [failure]}}
    (tmp_path / "guests.txt").write_text("a@example.com\n")
    out = tmp_path / "out"
    out.touch(0o644)
    async with Emulator(limits=[], id_tag="") as emulator:
        emulator.script(USUAL, ScriptedAnswer(200, orjson.dumps({"issuance_job": job})))
        issue = ["issue", str(tmp_path / "guests.txt"), *OPTIONS, "--failures", "/dev/stdout"]
        variables = environment(emulator.url, PYTHONIOENCODING="latin-1", XDG_STATE_HOME=str(tmp_path))
        with out.open("w") as file:
            command = [*COMMAND, *issue]
            done = await asyncio.to_thread(
                subprocess.run, command, env=variables, stdout=file, stderr=subprocess.PIPE
            )
    assert (done.returncode, complaints(done.stderr.decode())) == (1, [])
    rows, report = out.read_bytes().split(b"Run ")
    assert rows.decode().splitlines()[1] == r"0,a@example.com,failed,no café 日\x1b[2J\nall issued"
    assert r"no café \u65e5\x1b[2J\nall issued (position 0)" in report.decode("latin-1")
    assert report.endswith(b"is listed in /dev/stdout\n")
    assert stat.S_IMODE(out.stat().st_mode) == 0o644


async def test_the_input_is_not_overwritten(tmp_path: Path) -> None:
    """--failures does not name the file that is read as standard input."""
    file = tmp_path / "guests.txt"
    file.write_text("jane@example.com\n")
    async with Emulator() as emulator:
        with file.open() as stdin:
            command = ["issue", "-", *OPTIONS, "--failures", str(file)]
            process = start(*command, url=emulator.url, stdin=stdin.fileno())
            _, err = await asyncio.to_thread(process.communicate)
        assert emulator.requests == []
    assert process.returncode == 2
    assert "is the file that the guests are read from" in err
    assert file.read_text() == "jane@example.com\n"


async def test_the_emulator_as_a_process() -> None:
    """It prints its address, answers, and ends on SIGTERM with its statistics."""
    process = start("emulator", "--port", "0")
    assert process.stdout is not None
    url = (await asyncio.to_thread(process.stdout.readline)).strip()
    assert await asyncio.to_thread(process.stdout.readline) == f"Use it with: export THANX_BASE_URL={url}\n"
    async with aiohttp.ClientSession() as session, session.get(url + "/partner/scopes") as response:
        assert response.status == 401
    process.terminate()
    out, err = await asyncio.to_thread(process.communicate, timeout=HANGS)
    assert (process.returncode, err) == (0, "")
    assert "requests            401 1\n" in out
    assert "most for one guest  0\n" in out


def test_help_needs_no_network_library() -> None:
    """The help of all commands comes without importing aiohttp, so that it comes at once."""
    program = (
        "import sys; from thanx_async.cli import run; run(['--help']); sys.exit('aiohttp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL).returncode == 0
