"""Measures the rate limiters at every way of counting, beside public limiters and an even pace."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from benchmarks import harness
from benchmarks.limiter import cells, jobs, machines, processes, report, restart, servers
from benchmarks.limiter.rivals import CONTESTS

PARTS: Mapping[str, harness.Part] = {
    "virtual": cells.virtual,
    "real": cells.real,
    "agreement": cells.agreement,
    "jobs": jobs.jobs,
    "restart": restart.restart,
    "processes": processes.processes,
    "sharer": processes.sharer,
    "machines": machines.machines,
    "machine": machines.machine,
}

Key = tuple[str, ...]


def main() -> None:
    """Measure, compare, publish; with ``--quick`` only on virtual time, which takes the same seeds to the
    same numbers. Real servers and processes take real time."""
    virtual = _side_by_side(
        *(("virtual", contender) for contender in CONTESTS),
        *(("restart", contender) for contender in restart.CONTENDERS),
        *(("jobs", str(count)) for count in jobs.COUNTS),
    )
    noise = harness.Noise()
    real: dict[Key, harness.Sample] = {}
    if not harness.is_quick():
        real = _one_by_one(noise, _parts_in_real_time())
    noise.probe()
    found = virtual | real
    for made in (report.counting, restart.report, jobs.report):
        harness.publish(made(found, noise))
    if real:
        harness.publish(processes.report(found, noise))
        harness.publish(machines.report(found, noise))
    report.draw(virtual)
    for server, version in servers.versions().items():
        print(f"{server}: {version}")


def _parts_in_real_time() -> Iterable[Key]:
    if servers.versions():
        yield from (("agreement",), ("real",))
    else:
        print("Neither nginx nor HAProxy is installed: real servers are left out.", file=sys.stderr)
    yield from (("processes", *key) for key in processes.CONTESTED)
    for store in machines.installed():
        yield from (("machines", store, str(count)) for count in machines.COUNTS)


def _side_by_side(*parts: Key) -> dict[Key, harness.Sample]:
    """Parts on virtual time, which do not disturb each other."""
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
