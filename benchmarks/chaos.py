"""Guests doubled or lost when 4 requests in 10 fail and runs are cut off, beside the emulator's own count."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import looptime

from benchmarks import harness
from tests.ledger.chaos import JOBS_GO_WRONG, REQUESTS_GO_WRONG, Chaos, Verdict, emulator_of

_SEEDS, _SEEDS_QUICK = 100, 4
_AT_ONCE = 10
_GUESTS = 10_000
_BATCH = 100
_KINDS = {"requests": REQUESTS_GO_WRONG, "requests and jobs": JOBS_GO_WRONG}
_COLUMNS = ("doubled", "lost", "wrong", "seeds", "guests", "starts", "cancelled", "stopped", "requests")
_SUMS = ("guests", "doubled", "lost", "starts", "cancelled", "stopped", "requests", "gone_wrong")


async def _live(kind: str, seed: int) -> Verdict:
    """A run with a ledger, on virtual time over real sockets, some of its guests junk, duplicates or unknown.

    It stops at failed requests, is cancelled at random moments, and is started again with its input or
    resumed without, until Thanx has accepted everybody.
    """
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        async with emulator_of(_KINDS[kind], seed) as emulator:
            path = Path(folder) / "ledger.sqlite"
            return await Chaos(emulator, path, seed=seed, count=_GUESTS, batch_size=_BATCH).live()


def _run(kind: str, first: str, seeds: str) -> harness.Sample:
    """Live through some seeds; what was wrong is told on standard error."""
    logging.getLogger("thanx_async").setLevel(logging.ERROR)
    verdicts = []
    for seed in range(int(first), int(first) + int(seeds)):
        with asyncio.Runner(loop_factory=looptime.new_event_loop) as runner:
            verdict = runner.run(_live(kind, seed))
        for problem in verdict.wrong:
            print(f"seed {seed}: {problem}", file=sys.stderr)
        verdicts.append(verdict)
    return {
        "seeds": len(verdicts),
        "wrong": sum(len(row.wrong) for row in verdicts),
        **{name: sum(getattr(row, name) for row in verdicts) for name in _SUMS},
    }


PARTS: dict[str, harness.Part] = {"run": _run}


def _contender(kind: str, firsts: Callable[[], int], seeds: int) -> harness.Sample:
    return harness.part("benchmarks.chaos", "run", kind, firsts(), seeds)


def main() -> None:
    """Live, sum up, publish."""
    seeds = harness.size(_SEEDS, quick=_SEEDS_QUICK)
    at_once = min(_AT_ONCE, seeds // len(_KINDS))
    firsts = partial(next, count(0, at_once))
    contenders = {kind: partial(_contender, kind, firsts, at_once) for kind in _KINDS}
    harness.publish(_report(harness.interleave(contenders, rounds=seeds // len(_KINDS) // at_once), seeds))


def _report(samples: harness.Samples, seeds: int) -> harness.Report:
    def total(name: str, *kinds: str) -> int:
        return int(sum(sample[name] for kind in kinds or _KINDS for sample in samples.runs[kind]))

    return harness.Report(
        name="chaos",
        question=f"Runs of {_GUESTS:,} guests under faults, until everybody is accepted",
        columns=("what goes wrong", *_COLUMNS, "gone wrong"),
        rows=[
            (
                kind,
                *(f"{total(name, kind):,}" for name in _COLUMNS),
                f"{total('gone_wrong', kind) / total('requests', kind):.0%}",
            )
            for kind in _KINDS
        ],
        headlines=[
            harness.Headline(
                f"{seeds} runs of {_GUESTS:,} guests, each stopped or cancelled"
                f" {(total('cancelled') + total('stopped')) / seeds:.0f} times on average,"
                f" {total('gone_wrong') / total('requests'):.0%} of the requests going wrong",
                f"{total('doubled')} doubled, {total('lost')} lost, {total('wrong')} wrong accounts",
                "0, 0, 0",
                met=not (total("doubled") or total("lost") or total("wrong")),
            )
        ],
        samples=samples,
    )


if __name__ == "__main__":
    harness.start(PARTS, main)
