"""What Thanx's API returns and accepts, as frozen classes.

Unknown fields of an answer are dropped; unknown states and codes are kept as plain strings, since Thanx may
add new ones at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from datetime import datetime
from enum import Enum, StrEnum
from operator import itemgetter

import attrs

from thanx_async._core import checks
from thanx_async._core.columns import Numbered, Rows


def counted(items: Sized) -> str:
    """The repr of a field with many items: only their number, which keeps guests out of logs."""
    return f"<{len(items)}>"


def check_target(campaign_id: object, merchant_id: object, variant_id: object) -> None:
    """Check the ids of what to issue."""
    checks.text("campaign_id", campaign_id)
    checks.text("merchant_id", merchant_id)
    checks.text("variant_id", variant_id)


class Environment(StrEnum):
    """Thanx's environments, as base URLs."""

    SANDBOX = "https://api.thanxsandbox.com"
    PRODUCTION = "https://api.thanx.com"


class Events(Enum):
    """What a client makes of the signed event that a job has ended.

    HINT: the job is polled once, and the poll tells the outcome.
    OUTCOME: an event that agrees with what was sent tells the outcome, and no poll is needed. Before that,
    polls must have confirmed three events of the credential, one of them with failures.
    """

    HINT = "hint"
    OUTCOME = "outcome"


class IdentifierType(StrEnum):
    """The type of an identifier."""

    EMAIL = "email"
    PHONE = "phone"


@attrs.frozen
class IssuanceFailure:
    """A guest without a reward, and why. ``identifier_index`` counts from 0 within the request."""

    identifier_index: int
    identifier_type: str
    error: str


class IssuanceFailures(Rows[IssuanceFailure]):
    """The failures of a job.

    A sequence that keeps twelve bytes for each failure, and makes the `IssuanceFailure` when it is read.

    Attributes:
        errors: each identifier's index with its error, sorted by index.
    """

    __slots__ = ("_rows", "errors")

    def __init__(self, rows: Iterable[tuple[int, tuple[str, str]]] = ()) -> None:
        """``rows`` are pairs of the index, and the identifier's type with the error."""
        self._rows = Numbered.of(rows)
        self.errors: Numbered[str] = self._rows.mapped(itemgetter(1)).by_number()

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> IssuanceFailure:
        """The failure at this place."""
        identifier_index, (kind, error) = self._rows.row(index)
        return IssuanceFailure(identifier_index, kind, error)


NO_FAILURES = IssuanceFailures()


def _as_failures(failures: Iterable[IssuanceFailure]) -> IssuanceFailures:
    if isinstance(failures, IssuanceFailures):
        return failures
    return IssuanceFailures((row.identifier_index, (row.identifier_type, row.error)) for row in failures)


@attrs.frozen
class JobSummary:
    """The outcome of a completed job."""

    success_count: int
    failure_count: int
    failures: IssuanceFailures = attrs.field(default=NO_FAILURES, converter=_as_failures, repr=counted)


@attrs.frozen
class IssuanceJob:
    """A snapshot of a job.

    ``state`` is pending, processing, completed, failed, revoking, revoked, or a state that Thanx has added
    since. Counts are numbers of identifiers; times are aware datetimes (UTC). ``is_counted`` is False if
    Thanx left out how many got a reward; the counts are then 0. ``by_event`` is True if a webhook told the
    outcome, and no poll has confirmed it (`Events.OUTCOME`).

    Source: docs.thanx.com, partner/issuance-jobs.
    """

    id: str = attrs.field(validator=attrs.validators.min_len(1))
    state: str
    campaign_id: str | None = None
    variant_id: str | None = None
    total_count: int = 0
    processed_count: int = 0
    success_count: int = 0
    failure_count: int = 0
    progress_percent: float = 0
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    summary: JobSummary | None = None
    is_counted: bool = attrs.field(default=True, repr=False)
    by_event: bool = attrs.field(default=False, repr=False)

    @property
    def is_finished(self) -> bool:
        """Whether processing has ended: the state is completed, failed or revoked."""
        return self.state in {"completed", "failed", "revoked"}


@attrs.frozen
class Merchant:
    """A merchant that the credential can act for."""

    id: str
    name: str | None = None
    handle: str | None = None


@attrs.frozen
class Variant:
    """One arm of a campaign. A variant named "Control" has no reward template and issues nothing."""

    name: str
    id: str | None = None
    reward_template_id: str | None = None


@attrs.frozen
class Campaign:
    """A campaign. Its id and the id of one of its variants say which reward to issue.

    Source: docs.thanx.com, partner/campaigns.
    """

    id: str
    name: str | None = None
    objective: str | None = None
    fine_print: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    redeemable_from: datetime | None = None
    redeemable_to: datetime | None = None
    time_zone: str | None = None
    variants: tuple[Variant, ...] = ()


def _tuple(variants: Iterable[Variant]) -> tuple[Variant, ...]:
    checks.kind("NewCampaign.variants", isinstance(variants, Iterable), "several, such as a list", variants)
    return tuple(variants)


@attrs.frozen
class NewCampaign:
    """A campaign to create. It has one to four variants; its datetimes must be aware."""

    merchant_id: str = attrs.field()
    name: str = attrs.field()
    start_at: datetime = attrs.field()
    end_at: datetime = attrs.field()
    redeemable_from: datetime = attrs.field()
    redeemable_to: datetime = attrs.field()
    variants: tuple[Variant, ...] = attrs.field(converter=_tuple)
    objective: str | None = attrs.field(default=None)
    fine_print: str | None = attrs.field(default=None)

    @merchant_id.validator
    @name.validator
    def _check_text(self, field: attrs.Attribute[str], value: object) -> None:
        checks.text(f"NewCampaign.{field.name}", value)

    @objective.validator
    @fine_print.validator
    def _check_optional(self, field: attrs.Attribute[str | None], value: object) -> None:
        _check_optional_text(f"NewCampaign.{field.name}", value)

    @start_at.validator
    @end_at.validator
    @redeemable_from.validator
    @redeemable_to.validator
    def _check_moment(self, field: attrs.Attribute[datetime], value: datetime) -> None:
        name = f"NewCampaign.{field.name}"
        checks.kind(name, isinstance(value, datetime), "a datetime", value)
        if value.utcoffset() is None:
            raise checks.wrong(name, "needs a time zone, such as datetime.UTC")

    @variants.validator
    def _check_variants(self, _: object, value: tuple[Variant, ...]) -> None:
        if not 1 <= len(value) <= 4:
            raise checks.wrong("NewCampaign.variants", f"must be 1 to 4, not {len(value)}")
        for place, row in enumerate(value):
            name = f"NewCampaign.variants[{place}]"
            checks.kind(name, isinstance(row, Variant), "a Variant", row)
            checks.text(f"{name}.name", row.name)
            _check_optional_text(f"{name}.id", row.id)
            _check_optional_text(f"{name}.reward_template_id", row.reward_template_id)


def _check_optional_text(name: str, value: object) -> None:
    if value is not None:
        checks.text(name, value, empty=True)


@attrs.frozen
class RewardTemplate:
    """The reward of a variant. ``discount`` and ``images`` are as Thanx sends them.

    Source: docs.thanx.com, partner/reward-templates.
    """

    id: str
    name: str | None = None
    type: str | None = None
    subtype: str | None = None
    description: str | None = None
    fine_print: str | None = None
    redemption_venue: str | None = None
    discount: object = None
    images: object = None
