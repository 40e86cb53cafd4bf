"""Web services as processes: answers, errors, clients and hosts that end in the middle."""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from tests.helpers import SECRET, UNAUTHORIZED, guests, issuing, polls, sign, until
from tests.hosts.programs import EXIT_AFTER_SIGTERM, SERVICES, in_batches_of, serving
from thanx_async import SQLiteLedger
from thanx_async.emulator import Emulator, Faults, JobSpeed, Webhooks
from thanx_async.ledger import BatchState

pytestmark = [pytest.mark.realtime, pytest.mark.parametrize("host", SERVICES)]


async def test_each_guest_gets_its_own_answer(host: str, tmp_path: Path) -> None:
    """Concurrent requests share a few calls; each gets its own job, refusal and outcome."""
    names = [*guests(299), "unknown@example.com"]
    async with (
        Emulator(speed=JobSpeed(start_delay=0)) as emulator,
        serving(host, tmp_path, emulator, in_batches_of(100, host)) as (service, http),
    ):
        statuses = await asyncio.gather(*(service.thank(http, name) for name in [*names, "junk"]))
        assert statuses == [*[202] * 300, 422]
        assert service.answers["junk"][1] == {
            "error": "neither an e-mail address (no @) nor a phone number (has letters)"
        }
        assert emulator.reward_counts() == dict.fromkeys(guests(299), 1)
        assert len(issuing(emulator)) == 3
        jobs = {str(service.answers[name][1]["job"]) for name in names}
        assert len(jobs) == len(issuing(emulator))
        outcomes = await asyncio.gather(*(service.outcome(http, name) for name in names))
        assert outcomes[:-1] == [{"issued": True, "reason": None}] * 299
        assert outcomes[-1] == {"issued": False, "reason": "User not found"}
        assert len(emulator.requests) <= 3 * len(jobs)
        for stranger in ("stranger@example.com", "junk"):
            async with http.get(f"{service.url}/thanks", params={"email": stranger}) as response:
                assert response.status == 404
        assert service.complaints == []


async def test_errors_tell_whether_the_guest_may_have_a_reward(host: str, tmp_path: Path) -> None:
    """A batch that Thanx refuses is a 503, one that breaks off after it was sent a 502 that is in doubt."""
    async with Emulator() as emulator, serving(host, tmp_path, emulator) as (service, http):
        emulator.script(UNAUTHORIZED)
        await service.thank(http, "refused@example.com")
        assert service.answers["refused@example.com"] == (
            503,
            {"error": "AuthenticationError", "in_doubt": False},
        )
        emulator.faults = Faults(reset_after=1)
        await service.thank(http, "broken@example.com")
        assert service.answers["broken@example.com"] == (
            502,
            {"error": "AddTimeoutError", "in_doubt": True},
        )
        emulator.faults = Faults()
        assert await service.thank(http, "fine@example.com") == 202
        assert emulator.reward_counts() == {"broken@example.com": 1, "fine@example.com": 1}
        assert service.complaints == []


@pytest.mark.parametrize("keep_alive", [False, True])
async def test_sigterm_under_load(host: str, tmp_path: Path, *, keep_alive: bool) -> None:
    """Whoever was let in is answered, and who got no answer got no reward; then the process ends as its
    host's processes do, without a complaint."""
    connector = aiohttp.TCPConnector(limit=0, force_close=not keep_alive)
    async with (
        Emulator(faults=Faults(delay=0.2)) as emulator,
        serving(host, tmp_path, emulator) as (service, _),
        aiohttp.ClientSession(connector=connector) as http,
        asyncio.TaskGroup() as group,
    ):
        sent = iter(guests(100_000))
        while len(issuing(emulator)) < 3 or len(emulator.reward_counts()) < 100:
            group.create_task(service.thank(http, next(sent)))
            await asyncio.sleep(0.002)
        service.terminate()
        ended = group.create_task(service.ended())
        while not (ended.done() and service.unanswered):
            group.create_task(service.thank(http, next(sent)))
            await asyncio.sleep(0.002)
    accepted = service.having(202)
    assert len(accepted) >= 100
    assert {*accepted, *service.having(503)} == set(service.answers)
    assert emulator.reward_counts() == dict.fromkeys(accepted, 1)
    assert ended.result() == EXIT_AFTER_SIGTERM[host]
    assert service.complaints == []


async def test_callers_who_hang_up(host: str, tmp_path: Path) -> None:
    """Connections that are cut while their handlers wait change nothing for the others in the batch; their
    own guests were accepted and get the reward."""
    leaving = guests(50, start=1000)
    async with Emulator() as emulator, serving(host, tmp_path, emulator) as (service, http):
        writers = []
        for guest in leaving:
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            body = f'{{"email": "{guest}"}}'
            head = f"POST /thanks HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Content-Type: application/json\r\n\r\n{body}".encode())
            await writer.drain()
            writers.append(writer)
        staying = asyncio.gather(*(service.thank(http, guest) for guest in guests(50)))
        for writer in writers:
            writer.transport.abort()
        assert await staying == [202] * 50
        assert await service.thank(http, "later@example.com") == 202
        service.terminate()
        assert await service.ended() == EXIT_AFTER_SIGTERM[host]
        assert service.complaints == []
    assert emulator.reward_counts() == dict.fromkeys([*guests(50), *leaving, "later@example.com"], 1)


async def test_faults_under_load(host: str, tmp_path: Path) -> None:
    """Whatever breaks between the service and Thanx, nobody who was accepted has no reward or two."""
    impatient = SERVICES[host].replace(
        "from_env(", "from_env(timeout=__import__('aiohttp').ClientTimeout(total=1), "
    )
    faults = Faults(
        seed=2, reset_before=0.1, reset_after=0.2, truncated=0.1, html_502=0.1, error_500=0.1, answer_lost=0.1
    )
    async with (
        Emulator(faults=faults) as emulator,
        serving(host, tmp_path, emulator, impatient) as (service, http),
        asyncio.TaskGroup() as group,
    ):
        for guest in guests(600):
            group.create_task(service.thank(http, guest))
            await asyncio.sleep(0.005)
    rewards = emulator.reward_counts()
    assert service.unanswered == []
    accepted = service.having(202)
    assert accepted
    assert all(rewards[guest] == 1 for guest in accepted)
    doubtful = {guest for guest, (_, answer) in service.answers.items() if answer.get("in_doubt")}
    assert set(service.answers) - set(accepted) - doubtful == set(service.having(503))
    assert set(rewards) <= {*accepted, *doubtful}
    assert set(rewards.values()) == {1}
    assert "Traceback" not in service.err


async def test_webhooks_make_outcomes_known(host: str, tmp_path: Path) -> None:
    """A signed event ends the wait for an outcome at one poll; a forged one is refused."""
    async with (
        Emulator(speed=JobSpeed(start_delay=3600)) as emulator,
        serving(host, tmp_path, emulator) as (service, http),
    ):
        url = f"{service.url}/webhooks/thanx{'/' if host == 'fastapi' else ''}"
        emulator.webhooks = Webhooks(url, SECRET)
        asked = []
        for guest in guests(8):
            assert await service.thank(http, guest) == 202
            emulator.advance(3700)
            assert await service.outcome(http, guest) == {"issued": True, "reason": None}
            asked.append(len(polls(emulator)))
        assert asked == list(range(asked[0], asked[0] + 8))  # until one event was seen, jobs are also polled
        body = b'{"event": "reward_batch.completed", "data": {}}'
        for secret, status in ((SECRET, 400), ("forged", 401)):
            headers = {"X-Thanx-Signature": sign(body, secret)}
            async with http.post(url, data=body, headers=headers) as response:
                assert response.status == status


async def test_a_killed_service_recovers(host: str, tmp_path: Path) -> None:
    """After SIGKILL with answers outstanding the next start settles them: everybody who was sent has exactly
    one reward, and nobody is in doubt any more."""
    async with Emulator(faults=Faults(delay=0.5)) as emulator:
        async with serving(host, tmp_path, emulator) as (service, http):
            async with asyncio.TaskGroup() as group:
                for guest in guests(200):
                    group.create_task(service.thank(http, guest))
                await until(lambda: emulator.requests)
                service.popen.kill()
            assert len(service.unanswered) == 200
            assert await service.ended() == -9
        sent = emulator.reward_counts()
        assert sent
        async with serving(host, tmp_path, emulator) as (service, http):
            assert await service.thank(http, "next@example.com") == 202
            assert service.complaints == []
        assert emulator.reward_counts() == {**sent, "next@example.com": 1}
        assert set(sent.values()) == {1}
    async with SQLiteLedger(tmp_path / "rewards.sqlite") as ledger:
        batches = [batch for run in await ledger.runs() for batch in await ledger.batches(run.run_id)]
    assert {batch.state for batch in batches} == {BatchState.ACCEPTED}
    assert len(issuing(emulator)) > len(set(issuing(emulator)))
