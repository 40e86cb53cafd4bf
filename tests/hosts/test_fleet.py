"""The README's fleet as real processes: a service, a consumer, workers and a nightly job on one database."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.helpers import FAST, HANGS, OPTIONS, environment, guests, program, until, written
from thanx_async.emulator import Emulator, Faults
from thanx_async.postgres import init

pytestmark = pytest.mark.realtime

SERVICE = program("async def answered")
CONSUMER = program('print("acknowledged"')
COMMAND = ("-m", "thanx_async")


@asynccontextmanager
async def running(*arguments: str, folder: Path, variables: dict[str, str]) -> AsyncIterator[Process]:
    """A process of the same Python, killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=folder, env=variables, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process, pattern: str) -> re.Match[str]:
    """The first line of the process's output in which the pattern is found."""
    assert process.stdout is not None
    async with asyncio.timeout(HANGS):
        while text := (await process.stdout.readline()).decode():
            if found := re.search(pattern, text):
                return found
    raise AssertionError(f"it ended without {pattern!r}")


async def send(process: Process, messages: list[tuple[str, str]]) -> None:
    """Give the consumer messages, and wait for their acknowledgements."""
    assert process.stdin is not None
    for email, id in messages:
        process.stdin.write(json.dumps({"email": email, "id": id}).encode() + b"\n")
    await process.stdin.drain()
    for _, id in messages:
        await line(process, f"acknowledged {id}$")


async def post_all(url: str, names: list[str]) -> list[int]:
    """Post a survey of each guest; the statuses."""
    async with aiohttp.ClientSession() as http:

        async def post(name: str) -> int:
            async with http.post(f"{url}/surveys/{name}", json={"email": name, "score": 5}) as response:
                return response.status

        return [await post(name) for name in names]


async def test_the_fleet(tmp_path: Path, dsn: str) -> None:
    """Everybody gets one reward, though all is delivered twice, requests go wrong and a worker is killed."""
    await init(dsn)
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "consumer.py").write_text(CONSUMER)
    surveyed, consumed, nightly = guests(40), guests(40, start=100), guests(40, start=200)
    async with Emulator(limits=[(1000, 1)], speed=FAST) as emulator:
        variables = environment(
            emulator.url,
            DATABASE_URL=dsn,
            THANX_STORE=dsn,
            XDG_STATE_HOME=str(tmp_path),
            PYTHONUNBUFFERED="1",
        )
        service = ("-m", "uvicorn", "service:app", "--port", "0", "--log-config", log_config(tmp_path))
        drain = (*COMMAND, "outbox", "drain", "--linger", "0.2")
        async with (
            running(*service, folder=tmp_path, variables=variables) as web,
            running("consumer.py", folder=tmp_path, variables=variables) as consumer,
        ):
            url = (await line(web, r"running on (http://127\.0\.0\.1:\d+)"))[1]
            await post_all(url, surveyed[:1])  # a store with an outbox, for the workers to drain
            emulator.faults = Faults(reset_after=0.1, html_502=0.1, seed=5)
            async with running(*drain, folder=tmp_path, variables=variables) as first:
                await line(first, "Draining")
                async with running(*drain, folder=tmp_path, variables=variables) as second:
                    await line(second, "Draining")
                    for _ in range(2):
                        assert await post_all(url, surveyed) == [202] * 40
                        await send(consumer, [(name, f"message of {name}") for name in consumed])
                    first.kill()
                    file = written(tmp_path / "nightly.csv", "email", *nightly)
                    issue = (*COMMAND, "issue", file, "--column", "email", "--ledger", dsn, *OPTIONS)
                    async with running(*issue, folder=tmp_path, variables=variables) as job:
                        assert await asyncio.wait_for(job.wait(), HANGS) == 0
                    expected = dict.fromkeys([*surveyed, *consumed, *nightly], 1)
                    async with asyncio.timeout(HANGS):
                        await until(lambda: len(emulator.reward_counts()) == len(expected), pause=0.05)
            async with aiohttp.ClientSession() as http, http.get(f"{url}/surveys/nobody") as response:
                assert response.status == 404
        assert emulator.reward_counts() == expected


def log_config(folder: Path) -> str:
    """A file that lets uvicorn write its log to standard output."""
    handler = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
    config = {
        "version": 1,
        "handlers": {"out": handler},
        "loggers": {"uvicorn.error": {"handlers": ["out"], "level": "INFO"}},
    }
    path = folder / "log.json"
    path.write_text(json.dumps(config))
    return str(path)
