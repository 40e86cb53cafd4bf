"""The hot path over a fixed input, with few imports; `benchmarks.guard` counts it beside what is stored."""

from __future__ import annotations

import sys

from benchmarks import guests
from thanx_async.batching._chunker import Chunker
from thanx_async.http import _wire as wire

INPUTS = {"plain": guests.plain, "exported": guests.exported}
COUNT = 20_000
_SLICE = 1_000


def work(texts: list[str]) -> None:
    """Parse, validate, normalise, de-duplicate, cut and encode."""
    chunker = Chunker()
    for at in range(0, len(texts), _SLICE):
        for batch in chunker.feed(texts[at : at + _SLICE]):
            wire.issue_body("camp_abc123", "k2lye10h32l5wzo", "var_treat1", batch.values)


if __name__ == "__main__":
    given = list(INPUTS[sys.argv[1]](COUNT))
    if sys.argv[2] == "work":
        work(given)
