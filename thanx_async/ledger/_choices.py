"""Which guests the runs of a ledger have chosen, so that no two of them issue to the same guest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

Choices: TypeAlias = Mapping[bytes, Mapping[str, int]]
"""For each guest, the runs that have decided about the guest, and the position there.

The position of a guest whom a run has left out is negative: -1 less the position of the next one.
"""

Choose = Callable[[Choices], Mapping[bytes, int]]
"""Takes what is known of guests, and returns what a run decides about some of them."""

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""Ranges of positions, each as the first and the last one."""
