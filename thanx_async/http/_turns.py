"""`CutTurns`, by which all outboxes that a client drains take turns."""

from __future__ import annotations

from collections.abc import Callable
from math import inf


class CutTurns:
    """The turns in which parties cut batches for one client.

    Only one of them at a time has a batch that waits for the rate limits. The guests of all others can still
    join a batch, or be cancelled. Whoever has had a turn comes after all others who want one.

    Attributes:
        last_cut: when anybody has last cut a batch, on the loop's clock.
    """

    def __init__(self) -> None:
        self.last_cut: float = -inf
        self._queue: dict[object, Callable[[], None]] = {}

    def is_turn_of(self, party: object, wake: Callable[[], None]) -> bool:
        """Whether it is the party's turn. Otherwise ``wake`` is called once it is."""
        self._queue.setdefault(party, wake)
        return next(iter(self._queue)) is party

    def leave(self, party: object) -> None:
        """End the party's turn, or its wait for one."""
        had_turn = next(iter(self._queue), None) is party
        self._queue.pop(party, None)
        if had_turn and self._queue:
            next(iter(self._queue.values()))()
