"""The guard rails of a run: how many rewards at most, and how many failures are too many."""

from __future__ import annotations

import attrs

from thanx_async import _checks
from thanx_async._core.errors import ConfigurationError
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
    def _check_rewards(self, _: object, value: object) -> None:
        if value is not None:
            _checks.number("Guard.max_rewards", value, 0, whole=True)

    @canary.validator
    def _check_canary(self, _: object, value: object) -> None:
        if value is not None:
            _checks.number("Guard.canary", value, 1, MAX_BATCH, whole=True)

    @max_failure_rate.validator
    def _check_rate(self, _: object, value: object) -> None:
        if value is not None:
            _checks.number("Guard.max_failure_rate", value, 0, 1)
        elif self.canary is not None:
            raise ConfigurationError("Guard.canary needs max_failure_rate, such as 0.1")
