from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from tests.helpers import MERCHANT, TARGET
from thanx_async import (
    ConfigurationError,
    InvalidResponseError,
    NewCampaign,
    NotFoundError,
    ThanxClient,
    Variant,
)
from thanx_async.emulator import Emulator, ScriptedAnswer

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(days=300)


def new_campaign(**changes: object) -> NewCampaign:
    fields: dict[str, object] = {
        "merchant_id": MERCHANT,
        "name": "Spring",
        "start_at": NOW,
        "end_at": NOW + timedelta(days=900),
        "redeemable_from": NOW,
        "redeemable_to": NOW + timedelta(days=30),
        "variants": [Variant("Treat", reward_template_id="tmpl001"), Variant("Control")],
    }
    return NewCampaign(**(fields | changes))  # type: ignore[arg-type]  # checked by the class


async def test_campaigns(emulator: Emulator, client: ThanxClient) -> None:
    """A created campaign is found again, alone and in the list, and rewards can be issued from it."""
    created = await client.create_campaign(new_campaign(objective="thank"))
    assert (created.name, created.objective, created.start_at) == ("Spring", "thank", NOW)
    assert [row.name for row in created.variants] == ["Treat", "Control"]
    assert await client.get_campaign(created.id) == created
    listed = [campaign async for campaign in client.list_campaigns(merchant_id=MERCHANT)]
    assert listed[-1] == created
    assert listed[0].id == TARGET["campaign_id"]
    handle = await client.issue_rewards(
        campaign_id=created.id,
        merchant_id=MERCHANT,
        variant_id=created.variants[0].id or "",
        identifiers=["a@example.com"],
    )
    assert (await handle).success_count == 1
    with pytest.raises(NotFoundError):
        await client.get_campaign("nope")


async def test_long_lists_are_read_to_their_end(emulator: Emulator, client: ThanxClient) -> None:
    """Every page is fetched, once."""
    for number in range(120):
        await client.create_campaign(new_campaign(name=f"Campaign {number}"))
    before = len(emulator.requests)
    listed = [campaign.id async for campaign in client.list_campaigns(merchant_id=MERCHANT)]
    assert len(set(listed)) == len(listed) == 123
    assert len(emulator.requests) == before + 2
    emulator.script(
        ScriptedAnswer(200, b'{"campaigns": [], "pagination": {"current_page": 1, "total_pages": 7}}')
    )
    assert [row async for row in client.list_campaigns(merchant_id=MERCHANT)] == []


async def test_templates_merchants_and_scopes(emulator: Emulator, client: ThanxClient) -> None:
    """What the credential may use and do."""
    templates = [row async for row in client.list_reward_templates(merchant_id=MERCHANT)]
    assert [row.id for row in templates] == ["tmpl001", "tmpl002", "tmpl003"]
    template = await client.get_reward_template("tmpl002", merchant_id=MERCHANT)
    assert evolve(template, images=None) == evolve(templates[1], images=None)
    assert isinstance(template.images, dict)
    assert isinstance(templates[1].images, dict)
    assert (set(template.images), set(templates[1].images)) == ({"small", "large"}, {"default"})
    assert template.discount == {"type": "amount", "value": 2}
    assert template.description
    assert [row.id for row in await client.list_merchants()] == [MERCHANT]
    assert await client.get_scopes() == {"rewards.issue"}
    emulator.script(*[ScriptedAnswer(200, b'{"scopes": "all"}')] * 50)
    with pytest.raises(InvalidResponseError, match="unexpected shape"):
        await client.get_scopes()


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"variants": []}, "variants must be 1 to 4"),
        ({"end_at": datetime(2026, 3, 9)}, r"NewCampaign\.end_at needs a time zone"),
        ({"objective": "a\ud800"}, r"NewCampaign\.objective has a character"),
        ({"fine_print": "a\0"}, r"NewCampaign\.fine_print has a character"),
        ({"variants": [Variant("a\ud800")]}, r"NewCampaign\.variants\[0\]\.name has a character"),
        (
            {"variants": [Variant("a", reward_template_id="\ud800")]},
            r"NewCampaign\.variants\[0\]\.reward_template_id has a character",
        ),
    ],
)
def test_impossible_campaigns(changes: dict[str, object], phrase: str) -> None:
    """A campaign that Thanx cannot take is refused before it is sent."""
    with pytest.raises(ConfigurationError, match=phrase):
        new_campaign(**changes)
