"""The command that checks, before anything is issued, whether it can be."""

from __future__ import annotations

from thanx_async.cli._answer import write_json
from thanx_async.cli._client import connect
from thanx_async.cli._options import Flag
from thanx_async.cli._output import write
from thanx_async.cli._status import ISSUED, USAGE_ERROR


async def check(*, campaign: str, merchant: str, variant: str, json: Flag = False) -> int:
    """
    Parameters
    ----------
    campaign:
        The campaign's id.
    merchant:
        The merchant's id.
    variant:
        The id of the campaign's variant.
    json:
        Print JSON.
    """
    async with connect() as client:
        checks = await client.check(campaign_id=campaign, merchant_id=merchant, variant_id=variant)
    if json:
        write_json(checks)
    for row in () if json else checks:
        write(f"{'ok' if row.ok else 'NOT OK':<8}{row.name:<12}{row.detail}")
    return ISSUED if all(row.ok for row in checks) else USAGE_ERROR
