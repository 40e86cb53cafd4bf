"""Milliseconds that things took, or held a loop: median and high percentiles beside the worst."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """What most took, and the worst of all."""
    quantiles = statistics.quantiles(seconds, n=1000, method="inclusive")
    found = {"p50": quantiles[499], "p99": quantiles[989], "p999": quantiles[998], "worst": max(seconds)}
    return {name: 1000 * value for name, value in found.items()}


class Held:
    """Seconds that turns of a loop took, as wall time and as CPU time of the loop's thread.

    The CPU time tells what the code did, even where other programs had the core in between.
    """

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._begun = self._now()

    def begin(self) -> None:
        """A turn begins now."""
        self._begun = self._now()

    def end(self, *, least: float = 0.0) -> None:
        """The turn ends now; one that took less than ``least`` is left out."""
        (wall, cpu), (now, spent) = self._begun, self._now()
        if now - wall >= least:
            self.wall.append(now - wall)
            self.cpu.append(spent - cpu)

    def summary(self) -> dict[str, float]:
        """How many turns, and their milliseconds by both clocks."""
        clocks = {"wall": milliseconds(self.wall), "cpu": milliseconds(self.cpu)}
        found = {f"{clock}_{name}": value for clock, held in clocks.items() for name, value in held.items()}
        return {"turns": len(self.wall), **found}

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.thread_time()
