"""The command that runs the emulator."""

import asyncio
import re
import signal
import socket

import aiohttp
import pytest
from attrs import fields

from tests.emulator.plain import HEADERS, ISSUE, Receiver, body, call
from tests.helpers import SECRET
from thanx_async.cli import app, run
from thanx_async.emulator import Faults

URL = ["--webhook-url", "http://127.0.0.1:9"]


@pytest.mark.realtime
async def test_faults_and_webhooks(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options reach the emulator, and its last words count what it did."""
    monkeypatch.setenv("THANX_WEBHOOK_SECRET", SECRET)
    options = ["--port", "0", "--html-504", "1", "--forget-keys-after", "0", "--no-webhook-rewards"]
    command = asyncio.create_task(
        app.run_async(
            ["emulator", "--limits", "", *options, "--webhook-url", receiver.url],
            exit_on_error=False,
            result_action="return_value",
        )
    )
    while not (shown := capsys.readouterr().out):
        await asyncio.sleep(0.01)
    async with aiohttp.ClientSession(shown.splitlines()[0], headers=HEADERS) as http:
        for _ in range(2):
            async with http.post(ISSUE, data=body("a@b.co")) as response:
                assert response.status == 504
        async with http.get("/emulator/rewards") as response:
            assert await response.json() == {"a@b.co": 2}
    await receiver.has(2)
    signal.raise_signal(signal.SIGTERM)
    assert await command == 0
    counts = dict(re.findall(r"^(\w[\w ]*?)  +(.+)$", capsys.readouterr().out, re.MULTILINE))
    assert counts == {
        "requests": "202 2",
        "faults": "html_504 2",
        "webhooks": "reward_batch.completed 2",
        "jobs": "2",
        "rewards": "2",
        "most for one guest": "2",
    }


@pytest.mark.realtime
async def test_credentials_and_ids(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the credentials given are accepted, ids are as asked for, and options reach the webhooks."""
    options = ["--credential", "one:t:1", "--credential", "two:t2", "--id-tag", "x", "--lock-keys-for", "60"]
    command = asyncio.create_task(
        app.run_async(
            ["emulator", "--port", "0", *options], exit_on_error=False, result_action="return_value"
        )
    )
    while not (shown := capsys.readouterr().out):
        await asyncio.sleep(0.01)
    assert "and a given THANX_CLIENT_ID and THANX_ACCESS_TOKEN" in shown
    seen = []
    async with aiohttp.ClientSession(shown.splitlines()[0], headers=HEADERS) as http:
        for client_id, token in (("one", "t:1"), ("two", "t2"), ("two", "t:1")):
            own = {"X-ClientId": client_id, "Authorization": f"Bearer {token}"}
            seen.append(await call(http, "POST", ISSUE, body=body("a@b.co"), headers=own))
    signal.raise_signal(signal.SIGTERM)
    assert await command == 0
    assert [status for status, _ in seen] == [202, 409, 401]
    assert '"jobx000001"' in str(seen[0][1]).replace("'", '"')


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        (
            ["--reset-before", "0.6", "--html-504", "0.6"],
            "--reset-before + --html-504 must be at most 1 in all, not 1.2",
        ),
        (["--burst", "2"], "--burst must be a rate from 0 to 1, not 2.0"),
        (["--burst", "1", "--burst-requests", "0"], "--burst needs --burst-requests or --burst-seconds"),
        (["--html-502", "-1"], "--html-502 must be a rate from 0 to 1, not -1.0"),
        (["--delay", "nan"], "--delay must be from 0 to 1,000,000,000 s, not nan"),
        (["--leaky-burst", "4"], "--leaky-burst goes with --counter leaky only"),
        (["--counter", "leaky", "--leaky-burst", "-2"], "--leaky-burst must be a whole number from 0"),
        (["--speed", "0"], "--speed must be a finite number above 0, not 0.0"),
        (["--limits", "5/1,0/1"], "--limits must be 1 to 1,000,000,000 requests in 0.001 to"),
        (["--limits", "5/nan"], "not 5 in nan s"),
        (["--webhook-url", "http://127.0.0.1:9"], "in THANX_WEBHOOK_SECRET"),
        (["--webhook-lost", "0.5"], "need --webhook-url"),
        (["--credential", "one"], "--credential must look like CLIENT_ID:ACCESS_TOKEN"),
        (["--credential", ":t"], "--credential must look like CLIENT_ID:ACCESS_TOKEN"),
        (["--id-tag", "A-1"], "--id-tag must be up to 20 lower-case letters and digits"),
        (["--lock-keys-for", "-1"], "--lock-keys-for must be from 0 to 1,000,000,000 s, not -1.0"),
        (["--port", "65536"], "--port must be a whole number from 0 to 65,535, not 65536"),
        (["--port", "-1"], "--port must be a whole number from 0 to 65,535, not -1"),
    ],
)
def test_wrong_use(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    phrase: str,
) -> None:
    """It ends with status 2, and a message that says what is wrong."""
    monkeypatch.delenv("THANX_WEBHOOK_SECRET", raising=False)
    assert run(["emulator", *options]) == 2
    assert phrase in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--port", "--leaky-burst", "--seed", "--burst-requests"])
def test_whole_numbers(capsys: pytest.CaptureFixture[str], option: str) -> None:
    """A fraction is refused, and not rounded."""
    assert run(["emulator", "--counter", "leaky", option, "80.9"]) == 2
    assert f"{option}: '80.9' is not a whole number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--webhook-url", "ftp://x"], "--webhook-url must begin with http:// or https://"),
        ([*URL, "--webhook-lost", "2"], "--webhook-lost must be a rate from 0 to 1, not 2.0"),
        ([*URL, "--webhook-purchases", "2"], "--webhook-purchases must be a rate from 0 to 1, not 2.0"),
        ([*URL, "--webhook-late-by", "-1"], "--webhook-late-by must be from 0 to 1,000,000,000 s, not -1.0"),
    ],
)
def test_wrong_webhooks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    """What is wrong is called as it was typed."""
    monkeypatch.setenv("THANX_WEBHOOK_SECRET", SECRET)
    assert run(["emulator", *options]) == 2
    assert capsys.readouterr().err == f"thanx-async: {message}\n"


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["emulator", "--port", str(port)]) == 2
    assert f"cannot listen on port {port} (Address already in use); give another" in capsys.readouterr().err


def test_help_shows_every_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """Each rate and number that Python has is an option as well, in the same order."""
    run(["emulator", "--help"])
    shown = capsys.readouterr().out
    assert "GET /emulator/rewards" in shown
    places = [shown.index(f"--{field.name.replace('_', '-')} ") for field in fields(Faults)]
    assert places == sorted(places)
