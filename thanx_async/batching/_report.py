"""What became of everybody, as numbers, rows and ranges."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from thanx_async.models import counted


@attrs.frozen
class GuestRow:
    """One guest who got no reward, and why.

    ``position`` counts from 0 in the input; ``identifier`` is the value, None where values are not kept.
    """

    position: int
    identifier: str | None = attrs.field(repr=False)
    reason: str
    job_id: str | None = None


@attrs.frozen
class BatchRange:
    """A batch: the first and last position in the input, the count of identifiers, key and job id."""

    first: int
    last: int
    count: int
    key: str | None = None
    job_id: str | None = None


@attrs.frozen
class IssuanceReport:
    """What became of everybody: numbers for the issued, rows for single guests, ranges for batches."""

    run_id: str
    total: int
    issued: int
    failed: list[GuestRow] = attrs.field(repr=counted)
    rejected: list[GuestRow] = attrs.field(repr=counted)
    duplicates: list[GuestRow] = attrs.field(repr=counted)
    unsent: list[BatchRange] = attrs.field(repr=counted)
    in_doubt: list[BatchRange] = attrs.field(repr=counted)
    unfinished: list[BatchRange] = attrs.field(repr=counted)

    @property
    def counts(self) -> dict[str, int]:
        """Identifiers by fate; the values always sum to ``total``."""
        return {
            "issued": self.issued,
            "failed": len(self.failed),
            "rejected": len(self.rejected),
            "duplicates": len(self.duplicates),
            "unsent": _count(self.unsent),
            "in_doubt": _count(self.in_doubt),
            "unfinished": _count(self.unfinished),
        }


@attrs.frozen
class NotRevoked:
    """A batch whose rewards could not be taken back, and why."""

    batch: BatchRange
    reason: str


@attrs.frozen
class RevocationReport:
    """What was taken back: how many rewards, the batches of the revoked jobs, and the batches that were
    not revoked."""

    run_id: str
    rewards: int
    revoked: list[BatchRange] = attrs.field(repr=counted)
    not_revoked: list[NotRevoked] = attrs.field(repr=counted)


@attrs.frozen
class BatchInDoubt:
    """A batch that was sent and not answered. `ThanxClient.issue_rewards` with the same identifiers and key
    settles it: Thanx issues nothing twice."""

    idempotency_key: str
    identifiers: tuple[str, ...] = attrs.field(repr=counted)


@attrs.frozen
class CloseReport:
    """Whom a batcher left behind as it closed; both are empty if Thanx answered for everybody.

    ``unsent``: the guests who were not sent, or whose batch failed without a doubt. Their callers were told
    so, as were those of the batches in doubt.
    """

    unsent: tuple[str, ...] = attrs.field(repr=counted)
    in_doubt: tuple[BatchInDoubt, ...]


def _count(batches: Iterable[BatchRange]) -> int:
    return sum(batch.count for batch in batches)
