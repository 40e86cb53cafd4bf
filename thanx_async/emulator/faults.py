"""What may go wrong on the way, by seed and rate."""

from __future__ import annotations

import random
from enum import StrEnum

import attrs


class Fault(StrEnum):
    """One thing that goes wrong with one request. "After" means that Thanx has acted on it."""

    RESET_BEFORE = "reset_before"
    RESET_AFTER = "reset_after"
    TRUNCATED = "truncated"
    HTML_502 = "html_502"
    ERROR_500 = "error_500"
    ANSWER_LOST = "answer_lost"


@attrs.frozen
class Faults:
    """Rates from 0 to 1, for requests to issue and to look at jobs; ``delay`` is in seconds."""

    seed: int = 0
    reset_before: float = 0
    reset_after: float = 0
    truncated: float = 0
    html_502: float = 0
    error_500: float = 0
    answer_lost: float = 0
    delay: float = 0

    def __attrs_post_init__(self) -> None:
        rates = [getattr(self, fault) for fault in Fault]
        if min(rates) < 0 or sum(rates) > 1 or self.delay < 0:
            raise ValueError("the rates of Faults must be 0 or more and sum to at most 1, delay 0 s or more")


class Dice:
    """Draws a fault for each request."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._random = random.Random(faults.seed)  # noqa: S311 - repeatable on purpose

    def draw(self) -> Fault | None:
        left = self._random.random()
        for fault in Fault:
            left -= getattr(self.faults, fault)
            if left < 0:
                return fault
        return None


@attrs.frozen
class ScriptedAnswer:
    """What one coming request gets: a body of your own, or the usual answer with a fault."""

    status: int = 200
    body: bytes | None = None
    content_type: str = "application/json"
    headers: dict[str, str] = attrs.field(factory=dict)
    fault: str | None = None
