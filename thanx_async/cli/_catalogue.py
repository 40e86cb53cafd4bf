"""The commands that list merchants, campaigns, templates and scopes."""

from __future__ import annotations

from thanx_async.cli._client import connect
from thanx_async.cli._output import write
from thanx_async.cli._status import ISSUED


async def campaigns(*, merchant: str) -> int:
    """
    Parameters
    ----------
    merchant:
        The merchant's id; `thanx-async merchants` lists them.
    """
    async with connect() as client:
        async for campaign in client.list_campaigns(merchant_id=merchant):
            ends = f", ends {campaign.end_at:%Y-%m-%d}" if campaign.end_at else ""
            write(f"{campaign.id}  {campaign.name or 'without a name'}{ends}")
            for variant in campaign.variants:
                gives = variant.reward_template_id or "gives nothing"
                write(f"  {variant.id}  {variant.name} ({gives})")
    return ISSUED


async def templates(*, merchant: str) -> int:
    """
    Parameters
    ----------
    merchant:
        The merchant's id; `thanx-async merchants` lists them.
    """
    async with connect() as client:
        async for template in client.list_reward_templates(merchant_id=merchant):
            kind = "/".join(filter(None, (template.type, template.subtype)))
            write(f"{template.id}  {template.name or 'without a name'}{f' ({kind})' if kind else ''}")
    return ISSUED


async def merchants() -> int:
    async with connect() as client:
        for merchant in await client.list_merchants():
            write(f"{merchant.id}  {merchant.name or 'without a name'}")
    return ISSUED


async def scopes() -> int:
    async with connect() as client:
        for scope in sorted(await client.get_scopes()):
            write(scope)
    return ISSUED
