"""Is the rate limiter right under every way of counting, and what does it cost?

Run: python -m benchmarks.limiter (about four minutes); with --quick only what runs on virtual time.

Virtual time has no noise: the same seeds give the same numbers. What needs real servers or processes runs
in real time, contenders side by side.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from benchmarks import (
    harness,
    limiter_cells,
    limiter_jobs,
    limiter_processes,
    limiter_report,
    limiter_restart,
    servers,
)
from benchmarks.limiter_rivals import CONTESTS

PARTS: Mapping[str, harness.Part] = {
    "virtual": limiter_cells.virtual,
    "real": limiter_cells.real,
    "agreement": limiter_cells.agreement,
    "jobs": limiter_jobs.jobs,
    "restart": limiter_restart.restart,
    "processes": limiter_processes.processes,
    "sharer": limiter_processes.sharer,
}

Key = tuple[str, ...]


def main() -> None:
    virtual = _side_by_side(
        *(("virtual", contender) for contender in CONTESTS),
        *(("restart", contender) for contender in limiter_restart.CONTENDERS),
        *(("jobs", str(count)) for count in limiter_jobs.COUNTS),
    )
    noise = harness.Noise()
    real: dict[Key, harness.Sample] = {}
    if not harness.is_quick():
        real = _one_by_one(noise, _parts_in_real_time())
    noise.probe()
    found = virtual | real
    for report in (limiter_report.counting, limiter_restart.report, limiter_jobs.report):
        harness.publish(report(found, noise))
    if real:
        harness.publish(limiter_processes.report(found, noise))
    limiter_report.draw(virtual)
    for server, version in servers.versions().items():
        print(f"{server}: {version}")


def _parts_in_real_time() -> Iterable[Key]:
    if servers.versions():
        yield from (("agreement",), ("real",))
    else:
        print("Neither nginx nor HAProxy is installed: real servers are left out.", file=sys.stderr)
    yield from (("processes", *key) for key in limiter_processes.CONTESTED)


def _side_by_side(*parts: Key) -> dict[Key, harness.Sample]:
    """Parts on virtual time, which do not mind each other."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(parts, pool.map(_measured, parts), strict=True))


def _one_by_one(noise: harness.Noise, parts: Iterable[Key]) -> dict[Key, harness.Sample]:
    found = {}
    for part in parts:
        noise.probe()
        found[part] = _measured(part)
    return found


def _measured(part: Key) -> harness.Sample:
    return harness.part("benchmarks.limiter", *part)


if __name__ == "__main__":
    harness.start(PARTS, main)
