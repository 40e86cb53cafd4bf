"""Text from the server and from files reaches terminals and logs as one harmless line."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest

import thanx_async
from tests.helpers import MERCHANT, TARGET, batcher, guests, issue
from thanx_async import AsyncBatcher, SQLiteLedger, SQLiteRateLimiter, ThanxClient, ThanxError
from thanx_async._core.escaping import get_logger, printable
from thanx_async.emulator import Emulator, ScriptedAnswer
from thanx_async.instrumentation import JobRecord, log_record

EVIL = "a\x1b[2J\x85\u202e\u2028\nall issued\x07"
SHOWN = r"a\x1b[2J\x85\u202e\u2028\nall issued\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (EVIL, SHOWN),
        ("\t\r\x00\x7f", r"\t\r\x00\x7f"),
        ("\u061c\u200f\u2066\ufeff", r"\u061c\u200f\u2066\ufeff"),
        ("caf\udce9 \ud83d", r"caf\xe9 \ud83d"),
        ("Café “日本” 👨‍👩‍👧 [/b] C:\\new", "Café “日本” 👨‍👩‍👧 [/b] C:\\new"),
    ],
)
def test_controls_are_escaped(text: str, shown: str) -> None:
    """Controls, line ends and halves of pairs are escaped; everything else stays, backslashes included."""
    assert printable(text) == shown
    assert printable(shown) == shown


async def refuse(client: ThanxClient) -> object:
    return await client.issue_rewards(**TARGET, identifiers=guests(1))


async def run(client: ThanxClient) -> object:
    return await batcher(client).issue(guests(1))


@pytest.mark.parametrize("call", [refuse, run])
async def test_messages_of_errors(
    emulator: Emulator, client: ThanxClient, call: Callable[[ThanxClient], Awaitable[object]]
) -> None:
    """Thanx's text is escaped in the message of an error, in its fields, and in the error of a run."""
    body = orjson.dumps({"error": {"code": EVIL, "message": EVIL}})
    emulator.script(*[ScriptedAnswer(404, body)] * 2)
    with pytest.raises(ThanxError) as caught:
        await call(client)
    assert SHOWN in str(caught.value)
    error = caught.value.__cause__ or caught.value
    assert getattr(error, "message") == getattr(error, "code") == SHOWN  # noqa: B009 - the cause is of any class
    assert str(ThanxError(EVIL)) == SHOWN


async def test_jobs(emulator: Emulator, client: ThanxClient) -> None:
    """A job's state and reasons are escaped; its id is kept, and escaped where a handle shows it."""
    job_id = f"job{EVIL}"
    failure = {"identifier_index": 0, "identifier_type": "email", "error": EVIL}
    summary = {"success_count": 0, "failure_count": 1, "failures": [failure]}
    fields = {"id": job_id, "total_count": 1, "success_count": 0, "failure_count": 1}
    odd, done = (
        orjson.dumps({"issuance_job": fields | more})
        for more in ({"state": EVIL}, {"state": "completed", "summary": summary})
    )
    emulator.script(ScriptedAnswer(202, odd), ScriptedAnswer(200, done))
    handle = await issue(client, 1)
    assert handle.id == job_id
    assert handle.job is not None
    assert handle.job.state == SHOWN
    job = await asyncio.wait_for(handle.wait(), 60)
    assert job.summary is not None
    assert job.summary.failures[0].error == SHOWN
    assert repr(handle) == f"<JobHandle job{SHOWN}: completed 0/1>"
    assert handle.merchant_id == MERCHANT


def test_logs(caplog: pytest.LogCaptureFixture) -> None:
    """What is logged is one line, whatever the arguments hold; harmless arguments stay objects."""
    with caplog.at_level(logging.DEBUG, logger="thanx_async"):
        log_record(JobRecord(EVIL, "completed", 1, 1, 0, 0.5, 1))
        get_logger("thanx_async.batching").warning("left: %s, %d of %r", ValueError(EVIL), 3, ["x"])
    first, second = caplog.records
    assert first.getMessage() == f"job {SHOWN} is completed after 0.5 s and 1 polls: 1 issued, 0 failed"
    assert second.getMessage() == f"left: {SHOWN}, 3 of ['x']"
    assert second.args == (SHOWN, 3, ["x"])


def test_objects(client: ThanxClient) -> None:
    """Names of files and ids are escaped where objects show them."""
    target = TARGET | {"campaign_id": EVIL}
    shown = [SQLiteLedger(EVIL), SQLiteRateLimiter(EVIL), AsyncBatcher(client, **target)]
    assert all(SHOWN in repr(item) for item in shown)


def test_every_logger_escapes() -> None:
    """No file has a logger of its own making, but the one that can't import anything of the package."""
    package = Path(thanx_async.__file__).parent
    own = {path.name for path in package.rglob("*.py") if "logging.getLogger(" in path.read_text()}
    assert own == {"escaping.py", "instrumentation.py"}
