"""The domain and the wire as frozen classes.

Unknown fields of an answer are dropped, and unknown states and codes are kept as plain strings, since
Thanx may add any of them at any time.
"""

from __future__ import annotations

from collections.abc import Sized
from datetime import datetime
from enum import StrEnum

import attrs


def counted(items: Sized) -> str:
    """How a field of many items is shown: their number only, which keeps guests out of logs."""
    return f"<{len(items)}>"


class Environment(StrEnum):
    """Thanx's environments, as base URLs."""

    SANDBOX = "https://api.thanxsandbox.com"
    PRODUCTION = "https://api.thanx.com"


class IdentifierType(StrEnum):
    """What an identifier is."""

    EMAIL = "email"
    PHONE = "phone"


@attrs.frozen
class IssuanceFailure:
    """A guest who got no reward. ``identifier_index`` counts from 0 within the request."""

    identifier_index: int
    identifier_type: str
    error: str


@attrs.frozen
class JobSummary:
    """The outcome of a completed job."""

    success_count: int
    failure_count: int
    failures: tuple[IssuanceFailure, ...] = attrs.field(default=(), repr=counted)


@attrs.frozen
class IssuanceJob:
    """A snapshot of a job. ``state`` is one of pending, processing, completed, failed, revoking, revoked,
    or a word that Thanx has added since. Counts are numbers of identifiers, times are aware datetimes (UTC).

    Source: docs.thanx.com, partner/issuance-jobs.
    """

    id: str
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

    @property
    def is_finished(self) -> bool:
        """No further processing is to be expected: completed, failed or revoked."""
        return self.state in {"completed", "failed", "revoked"}
