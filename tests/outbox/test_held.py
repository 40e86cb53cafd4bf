"""Batches that are held until somebody settles them, also while the outbox is drained."""

import asyncio
import json
from pathlib import Path

import attrs
import pytest

from tests.batching.test_collector_failures import poison_is_refused
from tests.helpers import HANGS, TARGET, guests, issuing, until
from tests.outbox.conftest import Make
from tests.outbox.test_conformance import Box, bodies, drain, draining, states
from thanx_async import AsyncBatcher, LedgerError, LocalRateLimiter, RateLimit, SQLiteOutbox, ThanxClient
from thanx_async.cli import run
from thanx_async.emulator import Emulator, Faults, JobSpeed, ScriptedAnswer
from thanx_async.ledger import BatchOutcome, Settlement
from thanx_async.outbox import GuestState

pytestmark = pytest.mark.realtime

ISSUED = BatchOutcome("settled by hand", 1)


async def settle(outbox: Box, number: int, settlement: Settlement) -> None:
    """Settle a batch as soon as the drain has given it up."""
    async with asyncio.timeout(HANGS):
        while True:
            try:
                return await outbox.ledger.settle(outbox.lane.run.run_id, number, settlement)
            except LedgerError as error:
                if "is not held" not in str(error):
                    raise
            await asyncio.sleep(0.01)


async def job_of(outbox: Box, id: str) -> str:
    async with asyncio.timeout(HANGS):
        while (job_id := (await outbox.outcome(id, timeout=0)).job_id) is None:
            await asyncio.sleep(0.01)
    return job_id


def silent(job_id: str) -> ScriptedAnswer:
    """A job that has ended without its numbers."""
    return ScriptedAnswer(200, json.dumps({"issuance_job": {"id": job_id, "state": "failed"}}).encode())


async def test_a_job_that_does_not_say(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """A job that has ended without telling who has a reward is held; the next drain looks at it once more."""
    emulator.speed = JobSpeed(identifiers_per_second=1e-6)
    await outbox.put("jane@example.com", id="1")
    async with draining(outbox, client):
        job_id = await job_of(outbox, "1")
        emulator.script(silent(job_id))
        outcome = await outbox.outcome("1")
    assert (outcome.state, outcome.job_id, outcome.is_final) == (GuestState.HELD, job_id, True)
    assert outcome.reason == f"job {job_id} has ended without telling who has a reward"
    status = await outbox.status()
    assert (status.held, status.accepted, status.in_doubt) == (1, 0, 0)
    emulator.script(silent(job_id))
    await drain(outbox, client)
    assert await states(outbox, "1") == ["held"]
    with pytest.raises(LedgerError, match=r"batch 0 of lane .* is not held"):
        await outbox.ledger.settle(outbox.lane.run.run_id, 0, None)
    await settle(outbox, 0, ISSUED)
    assert await states(outbox, "1") == ["issued"]
    assert (await outbox.status()).held == 0
    assert await outbox.ledger.rewards(outbox.lane.run.run_id) == 1


async def test_a_job_that_says_it_later(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """A held job that tells its numbers after all is settled by the next drain."""
    await outbox.put("jane@example.com", id="1")
    emulator.speed = JobSpeed(identifiers_per_second=1, start_delay=0.5)
    async with draining(outbox, client):
        emulator.script(ScriptedAnswer(), silent(await job_of(outbox, "1")))
        await until(lambda: len(emulator.requests) >= 3)
        await outbox.outcome("1")
    await drain(outbox, client)
    assert await states(outbox, "1") == ["issued"]


@pytest.mark.parametrize(
    ("how", "faults"),
    [
        ("issued", Faults(answer_lost=1)),
        ("not issued", Faults(reset_before=1)),
        ("job", Faults(answer_lost=1)),
    ],
)
async def test_settling_beside_a_drain(
    make: Make, client: ThanxClient, emulator: Emulator, how: str, faults: Faults
) -> None:
    """Another process settles a held batch of an outbox that is being drained, and the drain takes it up."""
    async with make() as outbox, make() as other:
        await outbox.put("jane@example.com", id="1")
        emulator.faults = faults
        async with draining(outbox, client):
            await until(lambda: emulator.requests)
            with pytest.raises(LedgerError, match="may be working on it"):
                await other.ledger.settle(other.lane.run.run_id, 0, ISSUED)
        emulator.faults = Faults()
        await outbox.configure(replay_within=0)
        async with draining(outbox, client):
            settlement: Settlement = ISSUED if how == "issued" else None
            if how == "job":
                key = (await other.outcome("1", timeout=0)).idempotency_key
                guest = ["jane@example.com"]
                job = await client.issue_rewards(**TARGET, identifiers=guest, idempotency_key=key)
                settlement = job.id
            await settle(other, 0, settlement)
            async with asyncio.timeout(HANGS):
                while (await other.outcome("1")).state is not GuestState.ISSUED:
                    await asyncio.sleep(0.01)
            with pytest.raises(LedgerError, match="is not held"):
                await other.ledger.settle(other.lane.run.run_id, 0, settlement)
            assert (await other.status()).drained_by
    assert bodies(emulator) == [1]


async def test_a_guest_who_is_refused_after_a_doubt(make: Make) -> None:
    """A batch that may have been issued is never cut anew: it is held, and told, when Thanx refuses it."""
    names = [*guests(5), "poison@example.com"]
    limiter = LocalRateLimiter([RateLimit(100_000, 1)])
    async with (
        Emulator(fails=poison_is_refused, limits=[(100_000, 1)]) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, limiter=limiter) as client,
        make(base_url=emulator.url) as outbox,
    ):
        emulator.script(ScriptedAnswer(500))
        await outbox.put_many((name, name) for name in names)
        async with draining(outbox, client):
            outcome = await outbox.outcome(names[0])
            assert outcome.state is GuestState.HELD
            assert outcome.reason == "Thanx refused it with USER_EMAIL_INVALID when it was sent again"
            assert (await outbox.status()).held == 1
            await outbox.put("later@example.com", id="later")
            assert (await outbox.outcome("later")).issued
            assert len(set(issuing(emulator))) == 2
        await drain(outbox, client)
        assert set(await states(outbox, *names)) == {"held"}
        assert len(issuing(emulator)) == 3
        await settle(outbox, 0, None)
        await drain(outbox, client)
        assert await states(outbox, *names) == ["issued"] * 5 + ["failed"]
        assert emulator.reward_counts() == dict.fromkeys([*guests(5), "later@example.com"], 1)


async def test_revoking(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """Whoever waits when an outbox is revoked is cancelled, with the reason; nobody can be put any more."""
    await outbox.put("jane@example.com", id="1")
    await drain(outbox, client)
    await outbox.put("john@example.com", id="2")
    batcher = AsyncBatcher(client, **TARGET, ledger=outbox.ledger)
    run_id = outbox.lane.run.run_id
    await (await batcher.resume(run_id, replay=False)).revoke()
    outcome = await outbox.outcome("2")
    assert (outcome.state, outcome.reason) == (GuestState.CANCELLED, "the outbox was revoked")
    assert (await outbox.outcome("1")).reason == "reward revoked"
    assert (await outbox.status()).waiting == 0
    assert await outbox.ledger.rewards(run_id) == 0
    for id in ("2", "3"):
        with pytest.raises(LedgerError, match="revoked: nothing more of it is issued"):
            await outbox.put("john@example.com", id=id)
    assert len(issuing(emulator)) == 1


async def test_settling_in_a_revoked_outbox(outbox: Box, client: ThanxClient, emulator: Emulator) -> None:
    """Guests of a batch that was not issued do not wait again once the outbox is revoked."""
    await outbox.put("jane@example.com", id="1")
    emulator.faults = Faults(reset_before=1)
    async with draining(outbox, client):
        await until(lambda: emulator.requests)
    run = await outbox.ledger.claim(outbox.lane.run)
    await outbox.ledger.save_run(attrs.evolve(run, revoked_at=1.0))
    assert await states(outbox, "1") == ["in_doubt"]
    await outbox.ledger.withdraw(run.run_id, 0)
    assert await states(outbox, "1") == ["cancelled"]
    assert (await outbox.status()).waiting == 0


async def test_the_commands(
    tmp_path: Path,
    client: ThanxClient,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The commands list held batches, and settle one beside a drain; another batch they leave alone."""
    place = tmp_path / "outbox.sqlite"
    variables = {"BASE_URL": emulator.url, "CLIENT_ID": "c", "ACCESS_TOKEN": "s3cret", "STORE": str(place)}
    for name, value in variables.items():
        monkeypatch.setenv(f"THANX_{name}", value)
    async with SQLiteOutbox(place, **TARGET, client_id="c", base_url=emulator.url) as outbox:
        lane = outbox.lane.run.run_id
        settling = ["ledger", "settle", lane, "0", "--not-issued", "--ledger", str(place)]
        await outbox.put("jane@example.com", id="1")
        emulator.faults = Faults(reset_before=1)
        async with draining(outbox, client):
            await until(lambda: emulator.requests)
            assert await asyncio.to_thread(run, settling) == 2
            assert "Stop that process first, or wait until the batch is held" in capsys.readouterr().err
        await outbox.configure(replay_within=0)
        emulator.faults = Faults()
        async with draining(outbox, client):
            async with asyncio.timeout(HANGS):
                while not (await outbox.ledger.open_batches(lane))[0].held:
                    await asyncio.sleep(0.01)
        await outbox.configure(replay_within=86_400)
        async with draining(outbox, client):
            assert await asyncio.to_thread(run, ["outbox", "held"]) == 1
            assert await asyncio.to_thread(run, ["ledger", "show", lane, "--ledger", str(place)]) == 0
            shown = capsys.readouterr().out
            assert f"{lane} batch 0: 1 guest since" in shown
            assert shown.count("too old to send again") == 2
            assert await asyncio.to_thread(run, settling) == 0
            assert (await outbox.outcome("1")).issued
    assert emulator.reward_counts() == {"jane@example.com": 1}
