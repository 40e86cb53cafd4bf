"""Merchants, campaigns and reward templates: the initial ones, and created campaigns."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from thanx_async.emulator.answers import Refused

MERCHANT = "k2lye10h32l5wzo"
_DATES = ("start_at", "end_at", "redeemable_from", "redeemable_to")
_TEXTS = ("objective", "fine_print")
_FIELDS = {"merchant_id", "name", "variants", *_DATES, *_TEXTS}


class Catalogue:
    """The merchant, its campaigns and its reward templates."""

    def __init__(self) -> None:
        self.merchants: list[dict[str, str]] = [
            {"id": MERCHANT, "name": "Seed Bakery", "handle": "seed-bakery"}
        ]
        self.templates: dict[str, dict[str, object]] = {
            f"tmpl{number:03d}": _template(number) for number in range(1, 4)
        }
        self.campaigns: dict[str, dict[str, object]] = {
            str(campaign["id"]): campaign for campaign in _campaigns()
        }

    def check_merchant(self, merchant_id: object) -> None:
        if merchant_id is None:
            raise Refused(400, "merchant_id is missing")
        if merchant_id != MERCHANT:
            raise Refused(404, "merchant_id names no merchant of this credential")

    def campaign(self, campaign_id: object) -> dict[str, object]:
        if not isinstance(campaign_id, str):
            raise Refused(400, "campaign_id must be a string")
        if campaign_id not in self.campaigns:
            raise Refused(404, "there is no such campaign")
        return self.campaigns[campaign_id]

    def check_variant(self, campaign: dict[str, object], variant_id: object) -> None:
        variants = campaign["variants"]
        if not isinstance(variants, list) or variant_id not in [row["id"] for row in variants]:
            raise Refused(422, "variant_id does not belong to the campaign")

    def template(self, template_id: str) -> dict[str, object]:
        if template_id not in self.templates:
            raise Refused(404, "there is no such reward template")
        return self.templates[template_id]

    def create(self, fields: object) -> dict[str, object]:
        """Check and store a new campaign."""
        if not isinstance(fields, dict):
            raise Refused(400, "campaign is missing or not an object")
        if unknown := sorted(set(fields) - _FIELDS):
            raise Refused(400, f"campaign.{unknown[0][:50]} is no parameter of this endpoint")
        self.check_merchant(fields.get("merchant_id"))
        if not isinstance(fields.get("name"), str) or not fields["name"].strip():
            raise Refused(400, "campaign.name is missing or not a string")
        for name in _TEXTS:
            if not isinstance(fields.get(name), str | None):
                raise Refused(400, f"campaign.{name} must be a string")
        _check_dates(fields)
        number = len(self.campaigns) + 1
        stored = {name: fields.get(name) for name in ("name", *_TEXTS, *_DATES)}
        variants = self._variants(fields.get("variants"), number)
        campaign = {"id": f"camp{number:04d}", **stored, "time_zone": "UTC", "variants": variants}
        self.campaigns[f"camp{number:04d}"] = campaign
        return campaign

    def _variants(self, rows: object, number: int) -> list[dict[str, object]]:
        if not isinstance(rows, list) or not 1 <= len(rows) <= 4:
            raise Refused(400, "campaign.variants must be an array of 1 to 4")
        return [self._variant(row, f"var{number:04d}{index}", index) for index, row in enumerate(rows)]

    def _variant(self, row: object, variant_id: str, index: int) -> dict[str, object]:
        where = f"campaign.variants[{index}]"
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row["name"].strip():
            raise Refused(400, f"{where}.name is missing")
        template = row.get("reward_template_id")
        if row["name"] == "Control" and template is not None:
            raise Refused(422, f"{where} is named Control, which takes no reward_template_id")
        if template is not None and template not in self.templates:
            raise Refused(422, f"{where}.reward_template_id names no reward template")
        return {"id": variant_id, "name": row["name"], "reward_template_id": template}


def _check_dates(fields: dict[str, object]) -> None:
    moments = [_moment(name, fields.get(name)) for name in _DATES]
    for first, last in ((0, 1), (2, 3)):
        if moments[first] >= moments[last]:
            raise Refused(422, f"campaign.{_DATES[last]} must be later than {_DATES[first]}")


def _moment(name: str, value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise Refused(400, f"campaign.{name} is missing or not an ISO 8601 time") from None
    if not isinstance(value, str) or moment.tzinfo is None:
        raise Refused(400, f"campaign.{name} needs a time zone, such as Z")
    return moment


def _campaigns() -> Iterable[dict[str, object]]:
    dates = dict.fromkeys(("start_at", "redeemable_from"), "2025-01-01T00:00:00Z")
    dates |= dict.fromkeys(("end_at", "redeemable_to"), "2035-01-01T00:00:00Z")
    treat = {"id": "var_treat1", "name": "Treat", "reward_template_id": "tmpl001"}
    control = {"id": "var_control1", "name": "Control", "reward_template_id": None}
    rows = {
        "camp_abc123": [treat, control],
        "camp_def456": [{**treat, "id": "var_treat2"}],
        "camp_ghi789": [control],
    }
    for campaign_id, variants in rows.items():
        yield {
            "id": campaign_id,
            "name": f"Campaign {campaign_id[-3:]}",
            "objective": None,
            "fine_print": None,
            "time_zone": "UTC",
            "variants": variants,
            **dates,
        }


def _template(number: int) -> dict[str, object]:
    row = {"id": f"tmpl{number:03d}", "name": f"Treat {number}", "type": "discount", "subtype": "amount"}
    return {
        **row,
        "description": "",
        "fine_print": "",
        "discount": {},
        "redemption_venue": "all",
        "images": {},
    }
