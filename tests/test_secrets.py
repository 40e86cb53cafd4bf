"""Neither the token nor a guest is found in what an error brings along."""

import asyncio
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.helpers import MERCHANT, ONCE, TARGET, recording
from thanx_async import AsyncBatcher, SQLiteLedger, ThanxClient, ThanxError
from thanx_async.emulator import Emulator, ScriptedAnswer

TOKEN = "s3cret-access-token"
GUEST = "jane.doe.marker"
ADDRESS = f"{GUEST}@example.com"
ECHO = f'{{"error": {{"code": "X", "message": "{TOKEN} {ADDRESS}"}}, "headers": "Bearer {TOKEN}"}}'.encode()

Use = Callable[[ThanxClient, SQLiteLedger], Awaitable[object]]
pytestmark = pytest.mark.realtime


async def single(client: ThanxClient, ledger: SQLiteLedger) -> object:
    return await client.issue_rewards(**TARGET, identifiers=[f"{GUEST}@example.com"])


async def bulk(client: ThanxClient, ledger: SQLiteLedger) -> object:
    return await recording(client, ledger).issue(iter([f"{GUEST}@example.com"]))


async def added(client: ThanxClient, ledger: SQLiteLedger) -> object:
    async with AsyncBatcher(client, **TARGET, ledger=ledger, linger=0) as batcher:
        return await batcher.add(f"{GUEST}@example.com")


async def asked_for(client: ThanxClient, ledger: SQLiteLedger) -> object:
    async with AsyncBatcher(client, **TARGET, linger=0) as batcher:
        adding = asyncio.create_task(batcher.add(f"{GUEST}@example.com"))
        await asyncio.sleep(0)
        try:
            return await batcher.outcome(f"{GUEST}@example.com")
        finally:
            await asyncio.gather(adding, return_exceptions=True)


async def polled(client: ThanxClient, ledger: SQLiteLedger) -> object:
    return await client.get_issuance_job("job000001", merchant_id=MERCHANT)


ANSWERS = {
    "refused": ScriptedAnswer(400, ECHO),
    "unauthorized": ScriptedAnswer(401, ECHO),
    "html": ScriptedAnswer(502, b"<html>" + ECHO),
    "no JSON": ScriptedAnswer(202, b"oops" + ECHO),
    "another shape": ScriptedAnswer(202, ECHO),
    "redirected": ScriptedAnswer(302, ECHO),
    "broken off": ScriptedAnswer(202, ECHO, fault="truncated"),
    "reset": ScriptedAnswer(fault="reset_after"),
    "nobody listens": None,
}


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[ThanxClient]:
    async with ThanxClient("c", TOKEN, base_url=emulator.url, retry=ONCE) as opened:
        yield opened


def chain(error: BaseException | None) -> list[BaseException]:
    """The error with all its causes and contexts, suppressed or not."""
    found: list[BaseException] = []
    left = [error]
    while left:
        one = left.pop()
        if one is not None and one not in found:
            found.append(one)
            left += [one.__cause__, one.__context__]
    return found


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (use, name)
        for use in (single, bulk, added, asked_for, polled)
        for name in ANSWERS
        if (use, name) != (bulk, "refused")  # such a batch does not stop a run
    ],
)
async def test_errors_hold_neither_token_nor_guest(
    emulator: Emulator,
    client: ThanxClient,
    ledger: SQLiteLedger,
    caplog: pytest.LogCaptureFixture,
    use: Use,
    name: str,
) -> None:
    """Messages, frames with their local variables, causes, contexts, pickles and logs are clean."""
    caplog.set_level(logging.DEBUG)
    answer = ANSWERS[name]
    if answer is None:
        await emulator.__aexit__(None, None, None)
    else:
        emulator.script(answer)
    with pytest.raises(ThanxError) as caught:
        await use(client, ledger)
    for error in chain(caught.value):
        shown = traceback.TracebackException.from_exception(error, capture_locals=True, compact=False)
        frames = [str(frame.locals) for frame in shown.stack if "/tests/" not in frame.filename]
        assert TOKEN not in "".join(frames) + f"{error} {error!r} {vars(error)}"
        assert GUEST not in "".join(frames) + f"{error} {error!r}"
    assert TOKEN.encode() not in pickle.dumps(caught.value)
    assert TOKEN not in caplog.text
    assert GUEST not in caplog.text
    await asyncio.sleep(0)
