"""Requests and decoders for campaigns, reward templates, merchants and scopes; reads lists page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import attrs
import orjson

from thanx_async._core import checks
from thanx_async._decoding import enveloped
from thanx_async.http._wire import Request
from thanx_async.models import Campaign, Merchant, NewCampaign, RewardTemplate, Variant

T = TypeVar("T")

_PAGE_SIZE = 100

decode_campaign: Callable[[object], Campaign] = enveloped(Campaign, "campaign")
decode_template: Callable[[object], RewardTemplate] = enveloped(RewardTemplate, "reward_template")
decode_merchants: Callable[[object], list[Merchant]] = enveloped(list[Merchant], "merchants")
decode_scopes: Callable[[object], frozenset[str]] = enveloped(frozenset[str], "scopes")


@attrs.frozen
class _Pagination:
    total_pages: int


_decode_pagination = enveloped(_Pagination, "pagination")


def campaign(campaign_id: str) -> Request:
    """The request for one campaign."""
    return Request("GET", f"/partner/campaigns/{checks.segment('campaign_id', campaign_id)}")


def template(template_id: str, merchant_id: str) -> Request:
    """The request for one reward template."""
    return Request(
        "GET",
        f"/partner/reward_templates/{checks.segment('template_id', template_id)}",
        {"merchant_id": checks.text("merchant_id", merchant_id)},
    )


def create_campaign(new: NewCampaign) -> Request:
    """The request that creates a campaign."""
    fields = {name: value for name, value in attrs.asdict(new, recurse=False).items() if value is not None}
    fields["variants"] = [_variant(row) for row in new.variants]
    body = orjson.dumps({"campaign": fields}, option=orjson.OPT_UTC_Z)
    return Request("POST", "/partner/campaigns", body=body)


def merchants() -> Request:
    """The request for the merchants of the credential."""
    return Request("GET", "/partner/merchants")


def scopes() -> Request:
    """The request for the scopes of the credential."""
    return Request("GET", "/partner/scopes")


def _variant(row: Variant) -> dict[str, str]:
    given = {"name": row.name, "reward_template_id": row.reward_template_id}
    return {name: value for name, value in given.items() if value is not None}


def page_of(kind: type[T], name: str) -> Callable[[object], tuple[list[T], int]]:
    """The decoder for one page of a list: its rows, and the number of pages."""
    rows = enveloped(list[kind], name)  # type: ignore[valid-type]  # the class is known only at run time

    def decoder(payload: object) -> tuple[list[T], int]:
        return rows(payload), _decode_pagination(payload).total_pages

    return decoder


decode_campaigns: Callable[[object], tuple[list[Campaign], int]] = page_of(Campaign, "campaigns")
decode_templates: Callable[[object], tuple[list[RewardTemplate], int]] = page_of(
    RewardTemplate, "reward_templates"
)


async def pages(
    path: str, merchant_id: str, fetch: Callable[[Request], Awaitable[tuple[list[T], int]]]
) -> AsyncGenerator[T, None]:
    """Yield all rows of a list, page by page. An empty page ends the list, whatever the page count says.

    Args:
        path: the endpoint.
        merchant_id: the merchant that owns the rows.
        fetch: sends the request for a page, and returns its rows and the number of pages.
    """
    checks.text("merchant_id", merchant_id)
    number = 1
    while True:
        params = {"merchant_id": merchant_id, "page": str(number), "per_page": str(_PAGE_SIZE)}
        rows, last = await fetch(Request("GET", path, params))
        for row in rows:
            yield row
        if not rows or number >= last:
            return
        number += 1
