"""Checks, before anything is issued, whether a credential can issue the rewards of a campaign."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from datetime import UTC, datetime

import attrs

from thanx_async._core.errors import (
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    ThanxError,
)
from thanx_async.models import Campaign, Merchant

ISSUE_SCOPE = "rewards.issue"


@attrs.frozen
class ReadinessCheck:
    """One of the conditions for issuing, and whether it holds.

    Attributes:
        name: credential, scope, merchant, campaign or variant.
        ok: whether the condition holds.
        detail: what was found; where the condition does not hold, also what to do.
    """

    name: str
    ok: bool
    detail: str


async def readiness(
    campaign_id: str,
    merchant_id: str,
    variant_id: str,
    *,
    get_scopes: Callable[[], Awaitable[Iterable[str]]],
    list_merchants: Callable[[], Awaitable[Iterable[Merchant]]],
    get_campaign: Callable[[str], Awaitable[Campaign]],
) -> AsyncGenerator[ReadinessCheck, None]:
    """The checks, in the order of their requests, up to the first that leaves nothing to find out."""
    try:
        scopes = sorted(await get_scopes())
    except AuthenticationError:
        detail = "Thanx refuses it (401): check the client id, the access token and the environment"
        yield ReadinessCheck("credential", ok=False, detail=detail)
        return
    except ThanxError as error:
        yield ReadinessCheck("credential", ok=False, detail=f"could not be checked: {error}")
        return
    yield ReadinessCheck("credential", ok=True, detail="Thanx accepts it")
    yield _scope(scopes)
    try:
        yield _merchant(merchant_id, list(await list_merchants()))
    except ThanxError as error:
        yield ReadinessCheck("merchant", ok=False, detail=f"could not be checked: {error}")
    try:
        campaign = await get_campaign(campaign_id)
    except (NotFoundError, PermissionDeniedError) as error:
        found = f"Thanx has no campaign {campaign_id} for this credential ({error.status})"
        detail = f"{found}: see the list of campaigns"
        yield ReadinessCheck("campaign", ok=False, detail=detail)
    except ThanxError as error:
        yield ReadinessCheck("campaign", ok=False, detail=f"could not be checked: {error}")
    else:
        yield _campaign(campaign, datetime.now(UTC))
        yield _variant(campaign, variant_id)


def _scope(scopes: list[str]) -> ReadinessCheck:
    if ISSUE_SCOPE in scopes:
        return ReadinessCheck("scope", ok=True, detail=f"the credential has {ISSUE_SCOPE}")
    has = ", ".join(scopes) or "none"
    return ReadinessCheck(
        "scope", ok=False, detail=f"{ISSUE_SCOPE} is missing (the credential has {has}): ask Thanx to add it"
    )


def _merchant(merchant_id: str, merchants: list[Merchant]) -> ReadinessCheck:
    for merchant in merchants:
        if merchant.id == merchant_id:
            return ReadinessCheck("merchant", ok=True, detail=merchant.name or merchant_id)
    found = f"the credential cannot act for {merchant_id}, only for {len(merchants):,} others"
    detail = f"{found}: see the list of merchants"
    return ReadinessCheck("merchant", ok=False, detail=detail)


def _campaign(campaign: Campaign, now: datetime) -> ReadinessCheck:
    name = campaign.name or campaign.id
    if campaign.start_at and now < campaign.start_at:
        detail = f"{name} begins only on {campaign.start_at:%Y-%m-%d %H:%M} UTC"
        return ReadinessCheck("campaign", ok=False, detail=f"{detail}: wait, or change its dates")
    if campaign.end_at and now >= campaign.end_at:
        detail = f"{name} has ended on {campaign.end_at:%Y-%m-%d %H:%M} UTC"
        return ReadinessCheck("campaign", ok=False, detail=f"{detail}: take another campaign")
    ends = f", until {campaign.end_at:%Y-%m-%d %H:%M} UTC" if campaign.end_at else ""
    return ReadinessCheck("campaign", ok=True, detail=f"{name} is active{ends}")


def _variant(campaign: Campaign, variant_id: str) -> ReadinessCheck:
    for variant in campaign.variants:
        if variant.id != variant_id:
            continue
        if variant.reward_template_id:
            return ReadinessCheck("variant", ok=True, detail=f"{variant.name} gives a reward")
        detail = f"{variant.name} gives no reward: take another variant of the campaign"
        return ReadinessCheck("variant", ok=False, detail=detail)
    known = ", ".join(variant.id for variant in campaign.variants if variant.id) or "none"
    detail = f"the campaign has no variant {variant_id}; it has {known}"
    return ReadinessCheck("variant", ok=False, detail=detail)
