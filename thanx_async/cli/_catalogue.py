"""The commands that list merchants, campaigns, templates and scopes."""

from __future__ import annotations

from thanx_async.cli._answer import write_json
from thanx_async.cli._client import connect
from thanx_async.cli._options import Flag
from thanx_async.cli._output import write
from thanx_async.cli._status import ISSUED


async def campaigns(*, merchant: str, json: Flag = False) -> int:
    """
    Parameters
    ----------
    merchant:
        The merchant's id; `thanx-async merchants` lists them.
    json:
        Print JSON.
    """
    async with connect() as client:
        if json:
            write_json([row async for row in client.list_campaigns(merchant_id=merchant)])
            return ISSUED
        async for campaign in client.list_campaigns(merchant_id=merchant):
            ends = f", ends {campaign.end_at:%Y-%m-%d}" if campaign.end_at else ""
            write(f"{campaign.id}  {campaign.name or 'without a name'}{ends}")
            for variant in campaign.variants:
                gives = variant.reward_template_id or "gives nothing"
                write(f"  {variant.id}  {variant.name} ({gives})")
    return ISSUED


async def templates(*, merchant: str, json: Flag = False) -> int:
    """
    Parameters
    ----------
    merchant:
        The merchant's id; `thanx-async merchants` lists them.
    json:
        Print JSON.
    """
    async with connect() as client:
        if json:
            write_json([row async for row in client.list_reward_templates(merchant_id=merchant)])
            return ISSUED
        async for template in client.list_reward_templates(merchant_id=merchant):
            kind = "/".join(filter(None, (template.type, template.subtype)))
            write(f"{template.id}  {template.name or 'without a name'}{f' ({kind})' if kind else ''}")
    return ISSUED


async def merchants(*, json: Flag = False) -> int:
    """
    Parameters
    ----------
    json:
        Print JSON.
    """
    async with connect() as client:
        found = await client.list_merchants()
    if json:
        write_json(found)
    else:
        for merchant in found:
            write(f"{merchant.id}  {merchant.name or 'without a name'}")
    return ISSUED


async def scopes(*, json: Flag = False) -> int:
    """
    Parameters
    ----------
    json:
        Print JSON.
    """
    async with connect() as client:
        found = sorted(await client.get_scopes())
    if json:
        write_json(found)
    else:
        for scope in found:
            write(scope)
    return ISSUED
