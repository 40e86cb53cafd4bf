"""The guard rails of a run: how many rewards at most, and how many failures are too many."""

from __future__ import annotations

import attrs

from thanx_async.errors import ConfigurationError
from thanx_async.identifiers import MAX_BATCH


@attrs.frozen
class Guard:
    """The blast radius of a run.

    Args:
        max_rewards: the run stops before the batch that could exceed this many rewards. Guests who are
            known to have got none do not count; whoever is in doubt does, and so does what earlier
            processes sent under the same ``run_id``, with a ledger.
        canary: the first batch holds this many guests (1 to 10,000), and nothing else is sent before its
            job is finished. Needs ``max_failure_rate``.
        max_failure_rate: from 0 to 1. The run stops once more than this part of the guests in finished jobs
            have failed, the canary's first. Jobs are looked at while the run goes on, the newest first and
            as often as issuing leaves room in the rate limits. Rejected items and duplicates do not count:
            they were never sent.
    """

    max_rewards: int | None = attrs.field(default=None)
    canary: int | None = attrs.field(default=None)
    max_failure_rate: float | None = attrs.field(default=None)

    @max_rewards.validator
    def _check_rewards(self, _: object, value: int | None) -> None:
        if value is not None and value < 0:
            raise ConfigurationError(f"Guard.max_rewards must be 0 or more, not {value}")

    @canary.validator
    def _check_canary(self, _: object, value: int | None) -> None:
        if value is not None and not 1 <= value <= MAX_BATCH:
            raise ConfigurationError(f"Guard.canary must be 1 to {MAX_BATCH:,} guests, not {value}")

    @max_failure_rate.validator
    def _check_rate(self, _: object, value: float | None) -> None:
        if value is not None and not 0 <= value <= 1:
            raise ConfigurationError(f"Guard.max_failure_rate must be from 0 to 1, not {value:g}")
        if value is None and self.canary is not None:
            raise ConfigurationError("Guard.canary needs max_failure_rate, such as 0.1")
