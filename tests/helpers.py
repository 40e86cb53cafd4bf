"""What tests of several rooms share: a target, guests, batchers, scripted answers, webhooks, processes."""

import asyncio
import hashlib
import hmac
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import TypedDict

import looptime
import orjson

from thanx_async import (
    AsyncBatcher,
    Guard,
    JobHandle,
    Ledger,
    LocalRateLimiter,
    RateLimit,
    RetryPolicy,
    ThanxClient,
)
from thanx_async.emulator import Emulator, JobSpeed, ScriptedAnswer
from thanx_async.instrumentation import RequestRecord


class Target(TypedDict):
    campaign_id: str
    merchant_id: str
    variant_id: str


TARGET = Target(campaign_id="camp_abc123", merchant_id="k2lye10h32l5wzo", variant_id="var_treat1")
MERCHANT = TARGET["merchant_id"]
OPTIONS = ["--campaign", TARGET["campaign_id"], "--merchant", MERCHANT, "--variant", TARGET["variant_id"]]
"""The target on a command line."""

FAST = JobSpeed(identifiers_per_second=1e6, start_delay=0.01, revoke_seconds=0.01)
ONCE = RetryPolicy(max_attempts=1)

USUAL = ScriptedAnswer()
LOST = ScriptedAnswer(fault="reset_after")
BAD = ScriptedAnswer(400, b'{"error": {"code": "BAD_REQUEST", "message": "not like this"}}')
UNAUTHORIZED = ScriptedAnswer(401, b'{"error": {"code": "AUTHENTICATION_GENERIC", "message": "no"}}')

HANGS = 240
"""Seconds after which a process is taken to hang: far more than it needs beside any other work."""

README = Path(__file__).parent.parent / "README.md"
BLOCKS: list[str] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def program(mark: str) -> str:
    """The one program in the README that contains the mark."""
    (found,) = [block for block in BLOCKS if mark in block]
    return found


def guests(count: int, start: int = 0) -> list[str]:
    return [f"guest{number}@example.com" for number in range(start, start + count)]


def recording(
    client: ThanxClient,
    ledger: Ledger | None,
    *,
    batch_size: int = 10,
    guard: Guard = Guard(),  # noqa: B008 - frozen
    campaign_id: str = TARGET["campaign_id"],
    max_concurrency: int | None = None,
) -> AsyncBatcher:
    """A batcher of small batches that records them."""
    target = TARGET.copy()
    target["campaign_id"] = campaign_id
    return AsyncBatcher(
        client,
        **target,
        batch_size=batch_size,
        max_concurrency=max_concurrency,
        guard=guard,
        ledger=ledger,
    )


def batcher(client: ThanxClient, *, campaign_id: str = TARGET["campaign_id"]) -> AsyncBatcher:
    """A batcher of small batches."""
    return recording(client, None, campaign_id=campaign_id)


def impatient(url: str) -> ThanxClient:
    """A client that tries once and does not wait."""
    return ThanxClient("c", "t", base_url=url, retry=ONCE, limiter=LocalRateLimiter([RateLimit(10_000, 1)]))


async def issue(client: ThanxClient, count: int = 100) -> JobHandle:
    return await client.issue_rewards(**TARGET, identifiers=guests(count))


def issuing(emulator: Emulator) -> list[str | None]:
    """The idempotency keys of the requests to issue."""
    return [row.idempotency_key for row in emulator.requests if row.path.endswith("/issue")]


def polls(emulator: Emulator) -> list[str]:
    """The paths of the requests that ask."""
    return [row.path for row in emulator.requests if row.method == "GET"]


def now() -> float:
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], object], *, pause: float = 0.01) -> None:
    """Wait until it holds; a pause of 0 takes no virtual time."""
    while not condition():
        await asyncio.sleep(pause)


def on_virtual_time(main: Callable[[], Coroutine[object, object, None]]) -> None:
    with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
        runner.run(main())


def environment(url: str, **more: str) -> dict[str, str]:
    """The variables of a process that sends its requests there."""
    return os.environ | {
        "THANX_BASE_URL": url,
        "THANX_CLIENT_ID": "c",
        "THANX_ACCESS_TOKEN": "s3cret",
        **more,
    }


@contextmanager
def in_thread(emulator: Emulator) -> Iterator[Emulator]:
    """Run an emulator on a loop of its own."""
    ready = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        async with emulator:
            loops.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    ready.wait()
    try:
        yield emulator
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def written(path: Path, *lines: str) -> str:
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def counts(text: str) -> dict[str, int]:
    """The table of fates in a report."""
    rows = [line.rsplit(maxsplit=1) for line in text.splitlines() if line.startswith("  ")]
    return {name.strip(): int(count.replace(",", "")) for name, count in rows}


SECRET = "whsec-s3cret"


def sign(body: bytes, secret: str = SECRET) -> str:
    """The signature of a webhook as Thanx makes it, without the package's own code."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def completed(job_id: str, **data: object) -> bytes:
    return _event(
        "reward_batch.completed",
        {
            "issuance_job_id": job_id,
            "state": "completed",
            "total_count": 2,
            "issued_count": 1,
            "failed_count": 1,
        }
        | {"failures": [{"user_identifier": "jane@example.com", "reason": "User not found"}]}
        | data,
    )


def issued(job_id: str, index: int, **data: object) -> bytes:
    return _event(
        "reward.issued",
        {"issuance_job_id": job_id, "reward_id": "rew1", "user_id": "usr1", "state": "active"}
        | {"identifier": {"type": "email", "index": index}, "expires_at": "2026-12-31T00:00:00Z"}
        | {"campaign": {"id": "camp_abc123", "variant": {"id": "var_treat1"}}}
        | data,
    )


def _event(name: str, data: dict[str, object]) -> bytes:
    stamped = {"event": name, "timestamp": "2026-11-24T06:00:00Z", "data": {"merchant_id": MERCHANT} | data}
    return orjson.dumps(stamped)


class Wall:
    """A wall clock that a machine's sleep moves on, while the loop's clock stands still.

    As a client's hook it lets the machine sleep for the next of the ``naps`` after each attempt to issue.
    """

    def __init__(self) -> None:
        self.naps: list[float] = []
        self.slept = 0.0

    def __call__(self, record: object) -> None:
        if self.naps and isinstance(record, RequestRecord) and record.idempotency_key:
            self.slept += self.naps.pop(0)

    def time(self) -> float:
        return time() + self.slept
