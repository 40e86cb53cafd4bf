import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from math import inf
from pathlib import Path

import pytest

from tests.helpers import TARGET
from thanx_async import (
    AsyncBatcher,
    ConfigurationError,
    Guard,
    LocalRateLimiter,
    RateLimit,
    RetryPolicy,
    SQLiteLedger,
    SQLiteRateLimiter,
    ThanxClient,
)
from thanx_async.emulator import Emulator
from thanx_async.postgres import PostgresRateLimiter
from thanx_async.redis import RedisRateLimiter

SECRET = "s3cret-value"
TEXTS = [5, 1.5, True, b"s3cret-value", [SECRET], object(), ""]
NUMBERS = [None, SECRET, b"x", [], object(), True, -1, float("nan"), float("inf")]
PARTS = [5, SECRET, [], object(), True]
PATHS = [5, None, b"x", [], object(), ""]

Make = Callable[..., object]
CREDENTIALS = {"client_id": "c", "access_token": "t"}


def client_with(**arguments: object) -> object:
    return ThanxClient(**(CREDENTIALS | arguments))  # type: ignore[arg-type]  # wrong on purpose


def batcher_with(**arguments: object) -> object:
    given: dict[str, object] = {"client": ThanxClient("c", "t"), **TARGET} | arguments
    return AsyncBatcher(**given)  # type: ignore[arg-type]  # wrong on purpose


def rate_limit_with(**arguments: object) -> object:
    return RateLimit(**({"requests": 5, "seconds": 1.0} | arguments))  # type: ignore[arg-type]  # the same


def shared_limiter_with(**arguments: object) -> object:
    return SQLiteRateLimiter(**({"path": "limits.sqlite"} | arguments))  # type: ignore[arg-type]  # the same


def postgres_limiter_with(**arguments: object) -> object:
    return PostgresRateLimiter(**({"dsn": "postgresql://h/db"} | arguments))  # type: ignore[arg-type]  # the same


def redis_limiter_with(**arguments: object) -> object:
    return RedisRateLimiter(**({"url": "redis://h"} | arguments))  # type: ignore[arg-type]  # the same


def ledger_with(**arguments: object) -> object:
    return SQLiteLedger(**({"path": "runs.sqlite"} | arguments))  # type: ignore[arg-type]  # the same


OPTIONAL = {"max_concurrency", "max_rewards", "canary", "max_failure_rate"}
WRONG: Mapping[Make, Mapping[str, list[object]]] = {
    client_with: {
        **dict.fromkeys(("client_id", "access_token", "user_agent", "base_url"), TEXTS),
        **dict.fromkeys(("session", "timeout", "retry", "limiter", "hook", "environment"), PARTS),
    },
    batcher_with: {
        **dict.fromkeys(TARGET, TEXTS),
        **dict.fromkeys(("batch_size", "max_concurrency", "linger", "max_waiting"), NUMBERS),
        **dict.fromkeys(("client", "guard", "ledger", "on_progress"), PARTS),
    },
    Guard: dict.fromkeys(("max_rewards", "canary", "max_failure_rate"), NUMBERS),
    RetryPolicy: {
        **dict.fromkeys(("base_delay", "jitter"), NUMBERS),
        **dict.fromkeys(("max_delay", "patience"), NUMBERS[:-1]),
        "max_attempts": [value for value in NUMBERS if value is not None],
    },
    rate_limit_with: dict.fromkeys(("requests", "seconds"), NUMBERS),
    LocalRateLimiter: {"limits": PARTS},
    shared_limiter_with: {"limits": PARTS, "path": PATHS},
    postgres_limiter_with: {"limits": PARTS, "dsn": TEXTS, "name": TEXTS},
    redis_limiter_with: {"limits": PARTS, "url": TEXTS, "name": TEXTS},
    ledger_with: {"path": PATHS, "replay_within": NUMBERS[:-1]},
}


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (make, name, value)
        for make, arguments in WRONG.items()
        for name, values in arguments.items()
        for value in values
        if not (value is None and name in OPTIONAL)
    ],
)
def test_wrong_values(make: Make, name: str, value: object) -> None:
    """Whatever is given instead, the error names the argument, and does not repeat texts."""
    with pytest.raises(ConfigurationError, match=name) as caught:
        make(**{name: value})
    assert name in (caught.value.argument or "")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", TEXTS)
async def test_wrong_ids(emulator: Emulator, client: ThanxClient, value: str) -> None:
    """An id that is none is refused before anything is sent."""
    job, merchant = "job000001", TARGET["merchant_id"]
    calls: list[tuple[str, Callable[[], object]]] = [
        ("job_id", lambda: client.get_issuance_job(value, merchant_id=merchant)),
        ("merchant_id", lambda: client.get_issuance_job(job, merchant_id=value)),
        ("job_id", lambda: client.revoke_issuance_job(value, merchant_id=merchant)),
        ("merchant_id", lambda: client.revoke_issuance_job(job, merchant_id=value)),
        ("job_id", lambda: client.job(value, merchant_id=merchant)),
        ("merchant_id", lambda: client.job(job, merchant_id=value)),
        ("campaign_id", lambda: client.get_campaign(value)),
        ("template_id", lambda: client.get_reward_template(value, merchant_id=merchant)),
        ("merchant_id", lambda: anext(client.list_campaigns(merchant_id=value))),
        ("campaign_id", lambda: _issue(client, campaign_id=value)),
        ("idempotency_key", lambda: _issue(client, idempotency_key=value)),
        ("run_id", lambda: AsyncBatcher(client, **TARGET).issue(["a@example.com"], run_id=value)),
    ]
    for name, call in calls:
        with pytest.raises(ConfigurationError, match=name) as caught:
            await _finished(call())
        assert caught.value.argument == name
        assert SECRET not in str(caught.value)
    assert emulator.requests == []


def _issue(client: ThanxClient, **arguments: str) -> Awaitable[object]:
    return client.issue_rewards(**{**TARGET, "identifiers": ["a@example.com"], **arguments})  # type: ignore[arg-type]  # mixed


async def _finished(result: object) -> None:
    if inspect.isawaitable(result):
        await result


async def test_wrong_events(client: ThanxClient) -> None:
    """A webhook's parsed JSON is no event."""
    with pytest.raises(ConfigurationError, match=r"event must be an event, from webhooks\.verify, not dict"):
        client.notify({"type": "reward.issued"})  # type: ignore[arg-type]  # wrong on purpose


def test_times_without_end() -> None:
    """What has no end will do where that means something."""
    assert SQLiteLedger("runs.sqlite", replay_within=inf).replay_within == inf
    assert RetryPolicy(max_delay=inf).max_delay == inf


async def test_paths_may_be_objects(tmp_path: Path) -> None:
    """A path is a text or what `pathlib` makes."""
    assert SQLiteLedger(tmp_path / "a").path == SQLiteLedger(str(tmp_path / "a")).path


class AsyncHook:
    async def __call__(self, record: object) -> None:
        raise AssertionError


async def async_hook(record: object) -> None:
    raise AssertionError


class AsyncMethod:
    async def hook(self, record: object) -> None:
        raise AssertionError


async def generating_hook(record: object) -> AsyncIterator[object]:
    yield record


@pytest.mark.parametrize(
    "hook",
    [
        async_hook,
        AsyncHook(),
        AsyncMethod().hook,
        generating_hook,
        partial(async_hook, None),
        partial(partial(AsyncHook()), None),
        partial(AsyncMethod().hook, None),
    ],
)
def test_callbacks_that_nobody_would_await_are_refused(hook: Callable[..., object]) -> None:
    """An async function in place of a plain one would be called and never run."""
    with pytest.raises(ConfigurationError, match="hook must be a plain function"):
        ThanxClient("c", "t", hook=hook)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigurationError, match="on_progress must be a plain function"):
        AsyncBatcher(ThanxClient("c", "t"), **TARGET, on_progress=hook)  # type: ignore[arg-type]  # likewise
