"""The checks before anything is issued, against the emulator."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.helpers import ONCE, TARGET
from thanx_async import Campaign, ReadinessCheck, ThanxClient, Variant
from thanx_async.emulator import Emulator
from thanx_async.http import readiness
from thanx_async.models import Merchant

TOKEN = "t0ken"


async def _checked(emulator: Emulator, *, token: str = TOKEN, **changes: str) -> dict[str, ReadinessCheck]:
    target = TARGET.copy()
    target.update(changes)  # type: ignore[typeddict-item]  # the keys are those of the target
    async with ThanxClient("c", token, base_url=emulator.url, retry=ONCE) as client:
        checks = await client.check(**target)
    return {check.name: check for check in checks}


async def test_everything_is_ready() -> None:
    """A usual credential and target pass every check, and nothing is issued."""
    async with Emulator() as emulator:
        found = await _checked(emulator)
        assert not emulator.jobs_accepted
    assert list(found) == ["credential", "scope", "merchant", "campaign", "variant"]
    assert all(check.ok for check in found.values())


@pytest.mark.parametrize(
    ("change", "failed", "words"),
    [
        ({"merchant_id": "another"}, "merchant", "cannot act for another"),
        ({"campaign_id": "camp_none"}, "campaign", "no campaign camp_none"),
        ({"variant_id": "var_none"}, "variant", "no variant var_none; it has"),
    ],
)
async def test_what_is_wrong_is_named(change: dict[str, str], failed: str, words: str) -> None:
    """Each id that Thanx does not know fails its own check, which says what to do."""
    async with Emulator() as emulator:
        found = await _checked(emulator, **change)
    assert [name for name, check in found.items() if not check.ok] == [failed]
    assert words in found[failed].detail


async def test_a_refused_credential_ends_the_checks() -> None:
    """After a 401 nothing else is asked."""
    async with Emulator(credentials=[("c", TOKEN)]) as emulator:
        found = await _checked(emulator, token="wrong")
    assert list(found) == ["credential"]
    assert not found["credential"].ok
    assert "401" in found["credential"].detail


async def test_a_missing_scope() -> None:
    """A credential that may only read is told which scope is missing, and which it has."""
    async with Emulator(scopes=frozenset({"rewards.read"})) as emulator:
        found = await _checked(emulator)
    assert not found["scope"].ok
    assert "rewards.issue is missing (the credential has rewards.read)" in found["scope"].detail


async def test_no_answer_is_not_ok() -> None:
    """Where Thanx is away, the checks fail, and raise nothing."""
    async with Emulator() as emulator:
        url = emulator.url
    async with ThanxClient("c", "t", base_url=url, retry=ONCE) as client:
        (only,) = await client.check(**TARGET)
    assert (only.name, only.ok) == ("credential", False)
    assert "could not be checked" in only.detail


@pytest.mark.parametrize(
    ("start", "end", "ok", "words"),
    [(-2, -1, False, "has ended"), (1, 2, False, "begins only"), (-1, 1, True, "is active, until")],
)
async def test_the_dates_of_a_campaign(start: int, end: int, ok: bool, words: str) -> None:
    """A campaign is ready between its dates; a variant without a reward template never is."""
    now = datetime.now(UTC)
    campaign = Campaign(
        id="camp",
        start_at=now + timedelta(days=start),
        end_at=now + timedelta(days=end),
        variants=(Variant("Control", "var"),),
    )
    found = readiness(
        "camp",
        "merchant",
        "var",
        get_scopes=lambda: asyncio.sleep(0, ["rewards.issue"]),
        list_merchants=lambda: asyncio.sleep(0, [Merchant("merchant")]),
        get_campaign=lambda _: asyncio.sleep(0, campaign),
    )
    rows = {check.name: check async for check in found}
    assert rows["campaign"].ok is ok
    assert words in rows["campaign"].detail
    assert not rows["variant"].ok
    assert "Control gives no reward" in rows["variant"].detail
