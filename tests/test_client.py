import asyncio
import copy
import gc
import pickle
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from inspect import signature
from pathlib import Path
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses

from tests.helpers import LOST, MERCHANT, TARGET, Wall, guests, in_thread, until
from thanx_async import (
    APIError,
    AsyncBatcher,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConnectionFailedError,
    Environment,
    IdempotencyConflictError,
    InvalidIdentifierError,
    InvalidResponseError,
    JobHandle,
    LocalRateLimiter,
    NotFoundError,
    PermissionDeniedError,
    RequestTimeoutError,
    RetryPolicy,
    ServerError,
    SQLiteLedger,
    SQLiteRateLimiter,
    ThanxClient,
    ThanxError,
    UnprocessableError,
)
from thanx_async.client import ClientOptions
from thanx_async.emulator import Emulator, Faults, ScriptedAnswer
from thanx_async.instrumentation import RetryRecord
from thanx_async.limiter import Lane, Slot
from thanx_async.webhooks import verify

PATIENT = RetryPolicy(max_attempts=3, base_delay=0.01)


async def issue(
    client: ThanxClient,
    *values: str,
    key: str | None = None,
    campaign_id: str = TARGET["campaign_id"],
    variant_id: str = TARGET["variant_id"],
) -> JobHandle:
    return await client.issue_rewards(
        campaign_id=campaign_id,
        merchant_id=MERCHANT,
        variant_id=variant_id,
        identifiers=values or ("jane@example.com",),
        idempotency_key=key,
    )


async def test_a_cancelled_request_says_how_to_repeat_it(emulator: Emulator, client: ThanxClient) -> None:
    """Who stops waiting for an answer is told the key, without which a repetition is a second reward."""
    emulator.script(ScriptedAnswer(delay=60))
    task = asyncio.create_task(issue(client))
    await until(lambda: emulator.requests, pause=0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    (note,) = caught.value.__notes__
    key = note.split("idempotency key ")[1].rstrip(".")
    await issue(client, key=key)
    assert emulator.reward_counts() == {"jane@example.com": 1}


class Stuck(LocalRateLimiter):
    """A limiter that does not come to an end with writing an answer down."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = asyncio.Event()

    @asynccontextmanager
    async def slot(self, lane: Lane = Lane.ISSUE) -> AsyncIterator[Slot]:
        async with super().slot(lane) as slot:
            yield slot
        self.writing.set()
        await asyncio.Event().wait()


async def test_a_request_cancelled_after_its_answer_names_the_job(emulator: Emulator) -> None:
    """Who is cancelled when Thanx has accepted is told the job, though no handle comes back."""
    limiter = Stuck()
    async with ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client:
        task = asyncio.create_task(issue(client))
        await limiter.writing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
    (note,) = caught.value.__notes__
    assert "Accepted as job job000001. Repeat it only with idempotency key " in note
    assert emulator.reward_counts() == {"jane@example.com": 1}


@pytest.mark.parametrize("error", [asyncio.CancelledError(), OSError("the store is away")])
async def test_a_limiter_that_fails_after_the_answer(emulator: Emulator, error: BaseException) -> None:
    """What Thanx has accepted is not called certain, and the job and the key are named."""

    class Failing(LocalRateLimiter):
        @asynccontextmanager
        async def slot(self, lane: Lane = Lane.ISSUE) -> AsyncIterator[Slot]:
            async with super().slot(lane) as slot:
                yield slot
            raise error

    async with ThanxClient("c", "t", base_url=emulator.url, limiter=Failing()) as client:
        with pytest.raises((ThanxError, OSError)) as caught:
            await issue(client)
    (note,) = caught.value.__notes__
    key = emulator.requests[0].idempotency_key
    assert note == f"Accepted as job job000001. Repeat it only with idempotency key {key}."
    if isinstance(caught.value, ThanxError):
        assert (caught.value.in_doubt, caught.value.idempotency_key) == (True, key)


async def test_an_old_key_is_not_sent_again(emulator: Emulator, wall: Wall) -> None:
    """After a day's sleep between two attempts Thanx may know the key no more: the guest stays in doubt."""

    def sleep(record: object) -> None:
        if isinstance(record, RetryRecord):
            wall.slept += 90_000

    emulator.script(LOST)
    async with ThanxClient("c", "t", base_url=emulator.url, hook=sleep) as client:
        with pytest.raises(RequestTimeoutError, match="forgotten the idempotency key") as caught:
            await issue(client)
    [request] = emulator.requests
    assert (caught.value.in_doubt, caught.value.idempotency_key) == (True, request.idempotency_key)


async def test_each_get_has_a_slot_of_its_own(emulator: Emulator, client: ThanxClient) -> None:
    """Where a connection breaks, aiohttp repeats nothing behind the limiter's back."""
    await client.get_scopes()
    emulator.script(LOST)
    await client.get_scopes()
    assert [window.used for window in client.limiter.status().windows] == [3, 3]
    assert len(emulator.requests) == 3


async def test_a_reward_is_issued(emulator: Emulator, client: ThanxClient) -> None:
    """The handle leads to the finished job, with a summary that names who failed."""
    handle = await issue(client, "Jane@Example.com", "unknown@example.com", "+1 (415) 555-1234")
    job = await handle
    assert (job.state, job.success_count, job.failure_count) == ("completed", 2, 1)
    assert job.summary is not None
    assert [(row.identifier_index, row.error) for row in job.summary.failures] == [(1, "User not found")]
    assert emulator.reward_counts() == {"jane@example.com": 1, "+14155551234": 1}


class MockedResponse(aiohttp.ClientResponse):
    """aioresponses makes responses without an argument that aiohttp asks for from 3.14 on."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        if "stream_writer" in signature(aiohttp.ClientResponse).parameters:
            kwargs.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # aioresponses' arguments


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BadRequestError), (401, AuthenticationError), (418, APIError), (503, ServerError)],
)
async def test_single_calls(status: int, kind: type[APIError]) -> None:
    """Headers, URL and query are the documented ones; an error keeps its class, status, code and message."""
    client = ThanxClient("cid", "tok", user_agent="acme/1.0.0", retry=RetryPolicy(max_attempts=1))
    url = f"{Environment.SANDBOX}/partner/issuance_jobs/job1?merchant_id=m"
    async with client:
        with aioresponses() as mocked:
            error = {"error": {"code": "C", "message": "M"}}
            mocked.get(url, status=status, payload=error, response_class=MockedResponse)
            job = {"issuance_job": {"id": "job1", "state": "pending"}}
            mocked.get(url, payload=job, response_class=MockedResponse)
            with pytest.raises(kind) as caught:
                await client.get_issuance_job("job1", merchant_id="m")
            assert (await client.get_issuance_job("job1", merchant_id="m")).state == "pending"
            ((_, calls),) = mocked.requests.items()
    assert (caught.value.status, caught.value.code) == (status, "C")
    assert calls[0].kwargs["headers"] == {
        "Authorization": "Bearer tok",
        "X-ClientId": "cid",
        "Accept-Version": "v4.0",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "acme/1.0.0",
    }


async def test_retries_send_the_same(emulator: Emulator) -> None:
    """After lost answers and errors the same key and the very same bytes go out, and nobody gets two."""
    emulator.script(
        ScriptedAnswer(fault="reset_before"),
        LOST,
        ScriptedAnswer(fault="truncated"),
        ScriptedAnswer(fault="html_502"),
        ScriptedAnswer(fault="error_500"),
    )
    retry = RetryPolicy(max_attempts=6, base_delay=0.01)
    async with ThanxClient("c", "t", base_url=emulator.url, retry=retry) as client:
        await issue(client, *guests(20))
    sent = [(row.idempotency_key, row.body_digest) for row in emulator.requests]
    assert len(sent) == 6
    assert len(set(sent)) == 1
    assert set(emulator.reward_counts().values()) == {1}


async def test_giving_up_says_in_doubt(emulator: Emulator) -> None:
    """When all attempts fail after sending, the error carries the key, and repeating with it is safe."""
    async with ThanxClient("c", "t", base_url=emulator.url, retry=PATIENT) as client:
        emulator.script(LOST, *[ScriptedAnswer(fault="reset_before")] * 2)
        with pytest.raises(ConnectionFailedError) as caught:
            await issue(client)
        assert caught.value.in_doubt
        assert any(str(caught.value.idempotency_key) in note for note in caught.value.__notes__)
        handle = await issue(client, key=caught.value.idempotency_key)
        assert handle.total == 1
    assert emulator.reward_counts() == {"jane@example.com": 1}


async def test_a_refusal_after_doubt_stays_in_doubt(emulator: Emulator) -> None:
    """A 401 says nothing of the attempt before it whose answer was lost."""
    refusal = b'{"error": {"code": "AUTHENTICATION_GENERIC", "message": "no"}}'
    async with ThanxClient("c", "t", base_url=emulator.url, retry=PATIENT) as client:
        emulator.script(LOST, ScriptedAnswer(status=401, body=refusal))
        with pytest.raises(AuthenticationError) as caught:
            await issue(client)
    assert caught.value.in_doubt


async def test_a_timeout_is_in_doubt(emulator: Emulator) -> None:
    """An answer that does not come within the timeout leaves the request in doubt."""
    timeout = aiohttp.ClientTimeout(total=2)
    async with ThanxClient("c", "t", base_url=emulator.url, timeout=timeout, retry=PATIENT) as client:
        emulator.script(*[ScriptedAnswer(fault="answer_lost")] * 3)
        with pytest.raises(RequestTimeoutError) as caught:
            await issue(client)
    assert caught.value.in_doubt
    assert len(emulator.requests) == 3


async def test_a_dead_server_was_never_reached(emulator: Emulator) -> None:
    """A connection that cannot be made leaves nothing in doubt."""
    async with ThanxClient("c", "t", base_url="http://127.0.0.1:1", retry=PATIENT) as client:
        with pytest.raises(ConnectionFailedError, match=r"cannot connect to 127\.0\.0\.1:1") as caught:
            await issue(client)
    assert not caught.value.in_doubt


async def test_revoking_is_not_repeated_blindly(emulator: Emulator, client: ThanxClient) -> None:
    """A revocation without an answer is not sent again; the state tells what became of it."""
    handle = await issue(client)
    with pytest.raises(UnprocessableError):
        await handle.revoke()
    await handle
    emulator.script(LOST)
    before = len(emulator.requests)
    with pytest.raises(ConnectionFailedError):
        await handle.revoke()
    assert len(emulator.requests) == before + 1
    assert (await handle.refresh()).state == "revoking"
    assert (await handle.wait()).state == "revoked"
    assert emulator.reward_counts() == {}


async def test_revoking_answers_with_the_job(emulator: Emulator, client: ThanxClient) -> None:
    """A revocation gives the job as it then is."""
    handle = await issue(client)
    await handle
    assert (await handle.revoke()).state == "revoking"


async def test_a_429_is_no_attempt(emulator: Emulator) -> None:
    """Refusals are waited out, however few attempts the policy allows."""
    once = RetryPolicy(max_attempts=1)
    envelope = b'{"error": {"code": "RATE_LIMITED", "message": "slow down"}}'
    async with ThanxClient("c", "t", base_url=emulator.url, retry=once) as client:
        emulator.script(*[ScriptedAnswer(status=429, body=envelope)] * 4)
        await issue(client)
        assert client.limiter.status().refused == 4
    assert emulator.jobs_accepted == 1


async def test_refusals_have_their_classes(emulator: Emulator, client: ThanxClient) -> None:
    """A wrong campaign, a wrong variant, and a reused key each have their own error."""
    with pytest.raises(NotFoundError):
        await issue(client, campaign_id="nope")
    with pytest.raises(UnprocessableError):
        await issue(client, variant_id="nope")
    await issue(client, "a@example.com", key="once")
    with pytest.raises(IdempotencyConflictError) as caught:
        await issue(client, "b@example.com", key="once")
    assert caught.value.idempotency_key == "once"


async def test_credentials_are_checked_and_never_shown() -> None:
    """A wrong token is a 401, a missing scope a 403, and neither shows the token."""
    async with (
        Emulator(access_token="right", scopes=frozenset()) as emulator,
        ThanxClient("c", "wrong-s3cret", base_url=emulator.url) as client,
        ThanxClient("c", "right", base_url=emulator.url) as other,
    ):
        with pytest.raises(AuthenticationError) as caught:
            await issue(client)
        assert "s3cret" not in repr(client) + repr(caught.value) + str(caught.value)
        with pytest.raises(PermissionDeniedError):
            await issue(other)


async def test_odd_answers_end_in_errors(emulator: Emulator) -> None:
    """HTML, redirects and errors after all attempts have understandable messages."""
    async with ThanxClient("c", "t", base_url=emulator.url, retry=RetryPolicy(max_attempts=1)) as client:
        emulator.faults = Faults(html_502=1)
        with pytest.raises(
            ServerError, match="HTTP 502 without an error code: Bad Gateway, with 43 bytes of text/html"
        ):
            await issue(client)
        emulator.faults = Faults(error_500=1)
        with pytest.raises(ServerError) as caught:
            await issue(client)
        assert caught.value.in_doubt
        emulator.faults = Faults()
        emulator.script(ScriptedAnswer(status=302, body=b"", headers={"Location": emulator.url}))
        with pytest.raises(InvalidResponseError, match="redirects are not followed"):
            await issue(client)
        emulator.script(ScriptedAnswer(status=429, fault="truncated", body=b"{" + b" " * 99))
        await issue(client)


async def test_large_bodies_go_out_without_warnings(emulator: Emulator, client: ThanxClient) -> None:
    """Ten thousand of the longest addresses fit into a request."""
    long = [f"{number:064d}@{'x' * 60}.example.com" for number in range(10_000)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        handle = await issue(client, *long)
    assert handle.total == 10_000


@pytest.mark.parametrize(
    ("identifiers", "error", "phrase"),
    [
        ([], ConfigurationError, "at least one"),
        (guests(10_001), ConfigurationError, "AsyncBatcher"),
        ("jane@example.com", ConfigurationError, "identifiers must be several, such as a list, not str"),
        (None, ConfigurationError, "identifiers must be several, such as a list, not NoneType"),
        (["a@example.com", "junk"], InvalidIdentifierError, r"identifiers\[1\]: neither"),
    ],
)
async def test_wrong_identifiers_send_nothing(
    emulator: Emulator, client: ThanxClient, identifiers: list[str], error: type[Exception], phrase: str
) -> None:
    """What cannot be issued in one request is refused before anything is sent."""
    with pytest.raises(error, match=phrase):
        await client.issue_rewards(**TARGET, identifiers=identifiers)
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("arguments", "phrase"),
    [
        ({"client_id": ""}, "client_id is empty"),
        ({"access_token": "a\nb"}, "access_token has a character"),
        ({"user_agent": "\u00e4"}, "user_agent"),
        ({"base_url": "http://example.com"}, "https://"),
        ({"base_url": "https://"}, "https://"),
        ({"base_url": "https://u:p@example.com"}, "just a scheme"),
        ({"base_url": "https://exa mple.com:x"}, "not a URL"),
        ({"client_id": 7}, "client_id must be text, not int"),
        ({"timeout": 5}, "timeout must be"),
        ({"retry": 3}, "retry must be"),
        ({"hook": 3}, "hook must be"),
        ({"environment": "production"}, r"must be Environment\.SANDBOX or"),
    ],
)
async def test_wrong_arguments(arguments: dict[str, object], phrase: str) -> None:
    """An unusable argument is named, and its value is not shown."""
    settings = {"client_id": "c", "access_token": "t"} | arguments
    with pytest.raises(ConfigurationError, match=phrase):
        ThanxClient(**settings)  # type: ignore[arg-type]  # wrong on purpose


async def test_an_echoed_token_is_masked(emulator: Emulator) -> None:
    """A server that repeats the token in its refusal does not bring it into errors."""
    async with ThanxClient("c", "sekrit-token", base_url=emulator.url) as client:
        for body in (
            b'{"error": {"code": "sekrit-token", "message": "bad token sekrit-token"}}',
            b"<html>sekrit-token",
        ):
            emulator.script(ScriptedAnswer(401, body))
            with pytest.raises(ThanxError) as caught:
                await client.get_scopes()
            shown = f"{caught.value} {caught.value!r} {vars(caught.value)}"
            assert "sekrit" not in shown
            assert "[masked]" in shown or body.startswith(b"<")


@pytest.mark.parametrize("key", ["", "a\nb", 5])
async def test_a_key_that_cannot_be_sent(emulator: Emulator, client: ThanxClient, key: object) -> None:
    """A key is used as it is, or refused: another in its place would issue twice."""
    with pytest.raises(ConfigurationError, match="idempotency_key"):
        await client.issue_rewards(
            **TARGET,
            identifiers=guests(1),
            idempotency_key=key,  # type: ignore[arg-type]  # wrong on purpose
        )
    assert emulator.requests == []


async def test_it_must_be_open(emulator: Emulator) -> None:
    """Using a client that is not open, or whose session is closed, says what to do."""
    with pytest.raises(ConfigurationError, match="async with"):
        await issue(ThanxClient("c", "t"))
    session = aiohttp.ClientSession()
    client = ThanxClient("c", "t", base_url="https://localhost", session=session)
    await session.close()
    with pytest.raises(ConfigurationError, match="session given"):
        await issue(client)


async def test_a_given_session_stays_open(emulator: Emulator) -> None:
    """The client closes only a session that it made."""
    async with aiohttp.ClientSession() as session:
        async with ThanxClient("c", "t", base_url=emulator.url, session=session) as client:
            await issue(client)
        assert not session.closed


async def test_the_partner_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user agent comes from the argument, or else from the environment."""
    monkeypatch.setenv("THANX_USER_AGENT", "acme/1.0.0")
    with aioresponses() as mocked:
        url, empty = "http://localhost/partner/scopes", {"scopes": list[str]()}
        mocked.get(url, payload=empty, repeat=True, response_class=MockedResponse)
        options = ClientOptions(client_id="c", access_token="t", base_url="http://localhost")
        async with ThanxClient.from_env(**options) as client:
            await client.get_scopes()
        options["user_agent"] = "other/2.0.0"
        async with ThanxClient.from_env(**options) as client:
            await client.get_scopes()
        (calls,) = mocked.requests.values()
        assert [call.kwargs["headers"]["User-Agent"] for call in calls] == ["acme/1.0.0", "other/2.0.0"]


def test_from_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names credential and server; what is missing or wrong is named."""
    monkeypatch.delenv("THANX_CLIENT_ID", raising=False)
    monkeypatch.delenv("THANX_BASE_URL", raising=False)
    monkeypatch.setenv("THANX_ACCESS_TOKEN", "t")
    with pytest.raises(ConfigurationError, match="THANX_CLIENT_ID is not set"):
        ThanxClient.from_env()
    monkeypatch.setenv("THANX_CLIENT_ID", "c")
    assert ThanxClient.from_env().base_url == Environment.SANDBOX
    monkeypatch.setenv("THANX_ENVIRONMENT", "production")
    assert ThanxClient.from_env().base_url == Environment.PRODUCTION
    assert ThanxClient.from_env(environment=Environment.SANDBOX).base_url == Environment.SANDBOX
    monkeypatch.setenv("THANX_BASE_URL", "http://localhost:1/")
    assert ThanxClient.from_env(client_id="x", access_token="y").base_url == "http://localhost:1"
    monkeypatch.setenv("THANX_ENVIRONMENT", "moon")
    with pytest.raises(ConfigurationError, match="sandbox or production"):
        ThanxClient.from_env()


@pytest.mark.parametrize("when", [0.0, 0.05, 0.25])
async def test_cancelling_propagates(emulator: Emulator, client: ThanxClient, when: float) -> None:
    """A cancelled call ends at once, whether it waits for its turn or for the answer, and the next works."""
    emulator.faults = Faults(delay=0.3)
    calls: list[Callable[[], Awaitable[object]]] = [lambda: issue(client)] * 2
    tasks = [asyncio.ensure_future(call()) for call in calls]
    await asyncio.sleep(when)
    for task in tasks:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*tasks, return_exceptions=True)
    )
    emulator.faults = Faults()
    assert (await issue(client)).id


@pytest.mark.realtime
async def test_another_loop_is_refused(emulator: Emulator, client: ThanxClient) -> None:
    """A client belongs to the loop that opened it: elsewhere every call is refused, and nothing is sent."""

    async def use() -> None:
        for call in (lambda: issue(client), client.get_scopes, client.__aenter__, client.aclose):
            with pytest.raises(ConfigurationError, match="the client is open on another event loop"):
                await call()

    await asyncio.to_thread(asyncio.run, use())
    assert emulator.requests == []
    await client.get_scopes()


async def test_blocks_may_be_nested(emulator: Emulator) -> None:
    """The inner block does not close the client for the outer one; afterwards it opens again."""
    client = ThanxClient("c", "t", base_url=emulator.url)
    for _ in range(2):
        async with client:
            async with client:
                await client.get_scopes()
            await client.get_scopes()
        with pytest.raises(ConfigurationError, match="not open"):
            await client.get_scopes()


async def test_it_can_be_opened_and_closed_by_hand(emulator: Emulator) -> None:
    """Hosts with hooks for start and end open and close it without a block, as often as they like."""
    client = ThanxClient("c", "t", base_url=emulator.url)
    for _ in range(2):
        await client.__aenter__()
        await client.get_scopes()
        await client.aclose()
        await client.aclose()


def test_after_a_dead_loop() -> None:
    """A client whose loop was closed says so, and the next block opens it anew, with its limits and jobs."""
    with in_thread(Emulator()) as emulator:
        client = ThanxClient("c", "t", base_url=emulator.url)
        handles: list[JobHandle] = []

        async def begin() -> None:
            await client.__aenter__()
            handles.append(await issue(client))
            asyncio.create_task(handles[0].wait()).add_done_callback(lambda task: task.cancelled())
            await asyncio.sleep(0.05)

        async def again() -> None:
            with pytest.raises(ConfigurationError, match="event loop that is closed: open it again"):
                await client.get_scopes()
            async with client:
                await client.job(handles[0].id, merchant_id=MERCHANT)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # of the connections of the dead loop
            asyncio.run(begin())
            asyncio.run(again())
            gc.collect()
        assert client.limiter.status().windows[1].used >= 2


async def test_a_session_of_another_loop(emulator: Emulator) -> None:
    """A session that was made on another loop is refused by name before anything is sent."""

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession()

    other = asyncio.new_event_loop()
    session = await asyncio.to_thread(other.run_until_complete, make())
    async with ThanxClient("c", "t", base_url=emulator.url, session=session) as client:
        with pytest.raises(ConfigurationError, match="session given to ThanxClient belongs to another"):
            await client.get_scopes()
    await asyncio.to_thread(other.run_until_complete, session.close())
    other.close()
    assert emulator.requests == []


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
async def test_it_cannot_be_pickled(
    emulator: Emulator, client: ThanxClient, copied: Callable[[object], object]
) -> None:
    """Who hands a client, or what belongs to it, to another process is told what to do instead."""
    for what in (client, client.limiter):
        with pytest.raises(ConfigurationError, match="in each process"):
            copied(what)
    with pytest.raises(ConfigurationError, match=r"by its id with client\.job"):
        pickle.dumps(AsyncBatcher(client, **TARGET))


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("HTTPS://API.Thanx.com", "https://api.thanx.com"),
        (" https://api.thanx.com/ \n", "https://api.thanx.com"),
        ("https://api.thanx.com:443//", "https://api.thanx.com"),
        ("https://api.thanx.com.", "https://api.thanx.com"),
        ("https://api.thanx.com:8443/", "https://api.thanx.com:8443"),
        ("https://api.thanx.com/%7Ev/", "https://api.thanx.com/~v"),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example"),
        ("http://LOCALHOST:80", "http://localhost"),
        ("http://[0:0::1]:8080", "http://[::1]:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_a_base_url_has_one_form(monkeypatch: pytest.MonkeyPatch, written: str, known: str) -> None:
    """However it is written, a server is known by one name, to runs, ledgers and limits as well."""
    monkeypatch.setenv("THANX_BASE_URL", written)
    assert ThanxClient.from_env(client_id="c", access_token="t").base_url == known
    assert ThanxClient("c", "t", base_url=known).base_url == known


@pytest.mark.parametrize("bad", ["job\ud800", "job\0"])
async def test_characters_that_are_no_text(emulator: Emulator, client: ThanxClient, bad: str) -> None:
    """Halves of surrogate pairs and NULs are refused by the argument's name before anything is sent."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: issue(client, campaign_id=bad),
        lambda: client.get_issuance_job(bad, merchant_id="m"),
        lambda: client.revoke_issuance_job("job1", merchant_id=bad),
        lambda: client.get_campaign(bad),
        lambda: AsyncBatcher(client, **TARGET).issue([], run_id=bad),
        lambda: AsyncBatcher(client, **TARGET).resume(bad),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match=r"_id has a character"):
            await call()
    for make in (
        lambda: client.job(bad, merchant_id="m"),
        lambda: ThanxClient(bad, "t"),
        lambda: ThanxClient("c", bad),
        lambda: verify(b"{}", "00", bad),
        lambda: SQLiteLedger(bad),
        lambda: SQLiteRateLimiter(Path(bad)),
    ):
        with pytest.raises(ConfigurationError, match=r"has a character|cannot be"):
            make()
    assert emulator.requests == []
