"""What all benchmarks share: parts in processes of their own, rounds side by side, results and charts."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import attrs
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("aiohttp", "orjson", "attrs", "cattrs", "anyio", "uvloop", "httpx", "openapi-python-client")
_CALIBRATION_STEPS = 200_000

Sample = Mapping[str, float]
Part = Callable[..., Sample]
T = TypeVar("T")


def start(parts: Mapping[str, Part], main: Callable[[], None]) -> None:
    """Run a benchmark: a module with ``PARTS``, each measured in a process of its own, and ``main``.

        if __name__ == "__main__":
            harness.start(PARTS, main)

    This runs ``main`` or, in a process that `part` started, the part that its arguments name. ``main`` calls
    `interleave`, builds a `Report` and hands it to `publish`.
    """
    if len(sys.argv) > 1 and sys.argv[1] in parts:
        values = parts[sys.argv[1]](*sys.argv[2:])
        print(json.dumps({**values, "process_peak": peak()}))
    else:
        main()


def is_quick() -> bool:
    """Whether ``--quick`` asks for fewer rounds and smaller inputs, for a look while developing; nothing is
    written then."""
    return "--quick" in sys.argv


def size(full: T, *, quick: T) -> T:
    """A number of rounds, or the size of an input."""
    return quick if is_quick() else full


def part(module: str, name: str, *arguments: object) -> Sample:
    """Run a part of a benchmark in a process of its own.

    Returns:
        The part's own values, with ``process_cpu`` (seconds, user and system, its children included) and
        ``process_peak`` (bytes of resident memory, at most) of the whole process.
    """
    return command(sys.executable, "-m", module, name, *map(str, arguments), parse=True)


def command(*arguments: str, parse: bool = False) -> Sample:
    """Run any command to its end: its ``process_cpu``, and the values that it printed if ``parse``.

    Raises:
        SystemExit: it failed; its standard error was passed on.
    """
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    values = json.loads(output.splitlines()[-1]) if parse else {}
    return {**values, "process_cpu": usage.ru_utime + usage.ru_stime}


def peak() -> int:
    """The most resident memory that this process has had, in bytes.

    Linux counts in ru_maxrss what the parent had at the start, so that the kernel's own mark is read there.
    """
    status = Path("/proc/self/status")
    if status.exists() and (mark := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(mark[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """A server in a process of its own, by the URL that it prints first; it ends with the block."""
    with subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.stdout.read()


@attrs.define
class Noise:
    """How steady the machine was: a fixed calibration loop, run before every part.

    ``cpu`` and ``wall`` are its seconds. CPU times spread with clock speed and shared caches; wall over
    CPU time above 1 means that other programs had the cores.
    """

    cpu: list[float] = attrs.field(factory=list)
    wall: list[float] = attrs.field(factory=list)

    def probe(self) -> None:
        """Run the loop once."""
        cpu, wall = time.process_time(), time.perf_counter()
        total = 0
        for number in range(_CALIBRATION_STEPS):
            total += len(str(number))
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)

    def summary(self) -> dict[str, float]:
        """The loop's median in milliseconds, its spread (interquartile range over median), and wall/CPU."""
        middle = statistics.median(self.cpu)
        low, _, high = statistics.quantiles(self.cpu, n=4) if len(self.cpu) > 1 else (middle,) * 3
        return {
            "calibration_ms": round(1000 * middle, 2),
            "spread": round((high - low) / middle, 3),
            "wall_over_cpu": round(sum(self.wall) / sum(self.cpu), 2),
        }


@attrs.frozen
class Samples:
    """What the rounds gave for each contender, in order."""

    runs: Mapping[str, Sequence[Sample]]
    noise: Noise

    def median(self, contender: str, value: str) -> float:
        return statistics.median(sample[value] for sample in self.runs[contender])

    def ratio(self, contender: str, other: str, value: str) -> float:
        """The median of the ratios that contenders had within one round each."""
        pairs = zip(self.runs[contender], self.runs[other], strict=True)
        return statistics.median(one[value] / two[value] for one, two in pairs)


def interleave(contenders: Mapping[str, Callable[[], Sample]], *, rounds: int) -> Samples:
    """Run all contenders ``rounds`` times, each round beginning with another one.

    They take turns so that what disturbs the machine disturbs all of them, and ratios hold within one run.
    """
    names = list(contenders)
    runs: dict[str, list[Sample]] = {name: [] for name in names}
    noise = Noise()
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            noise.probe()
            runs[name].append(contenders[name]())
            print(".", end="", file=sys.stderr, flush=True)
    noise.probe()
    print(file=sys.stderr)
    return Samples(runs, noise)


@attrs.frozen
class Headline:
    """A row of the README's performance table: the question, what was measured, the target, the rivals."""

    what: str
    measured: str
    target: str = ""
    beside: str = ""
    met: bool | None = None

    @classmethod
    def at_most(
        cls, what: str, value: float, most: float, unit: str, *, digits: int = 1, beside: str = ""
    ) -> Headline:
        """One that meets its target where the value is not above it."""
        return cls(what, f"{value:.{digits}f} {unit}", f"{most:g} {unit}", beside, met=value <= most)


@attrs.frozen
class Report:
    """What a benchmark found.

    ``columns`` and ``rows`` are its table; ``headlines`` go into the README's; ``samples`` are the raw
    values, kept in the JSON file.
    """

    name: str
    question: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    headlines: Sequence[Headline]
    samples: Samples


def publish(report: Report) -> None:
    """Print the report, and write it to ``results/{name}.json``."""
    noise = report.samples.noise.summary()
    print(f"\n{report.question}\n\n{table(report.columns, report.rows)}\n")
    for headline in report.headlines:
        verdict = {True: "met", False: "MISSED", None: ""}[headline.met]
        print(f"{headline.what}: {headline.measured}; target {headline.target or 'none'} {verdict}".rstrip())
    print("\n" + "\n".join(f"{name}: {value}" for name, value in {**machine(), **noise}.items()))
    if is_quick():
        return
    RESULTS.mkdir(exist_ok=True)
    stored = {
        "question": report.question,
        "columns": report.columns,
        "rows": report.rows,
        "headlines": [attrs.asdict(headline) for headline in report.headlines],
        "machine": machine(),
        "noise": noise,
        "samples": {name: list(runs) for name, runs in report.samples.runs.items()},
    }
    path = RESULTS / f"{report.name}.json"
    path.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text: the first column left, the others right."""
    lines = [columns, *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def machine() -> dict[str, str]:
    """What the numbers were measured on, versions included."""
    versions = (f"{name} {version}" for name in _PACKAGES if (version := _version(name)))
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "versions": f"Python {platform.python_version()}, {', '.join(versions)}",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", information.read_text()) if information.exists() else None
    return found[1] if found else platform.processor() or "unknown processor"


@contextmanager
def chart(name: str, title: str, *, width: float = 7.0, height: float = 3.2) -> Iterator[Axes]:
    """Axes to draw on, saved as ``results/{name}.svg``; the same data give the same file."""
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        if not is_quick():
            RESULTS.mkdir(exist_ok=True)
            figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None, "Creator": None})


def bars(
    name: str, title: str, unit: str, values: Mapping[str, float], *, target: float | None = None
) -> None:
    """A chart of one horizontal bar for each contender, and a line at the target."""
    with chart(name, title, height=0.9 + 0.35 * len(values)) as axes:
        labels = list(values)[::-1]
        drawn = axes.barh(labels, [values[label] for label in labels], color="#4477aa")
        axes.bar_label(drawn, fmt="%.3g", padding=3)
        axes.set_xlabel(unit)
        axes.margins(x=0.12)
        if target is not None:
            axes.axvline(target, color="#cc3311", linestyle="--", linewidth=1)
            axes.annotate("target", (target, 1), xycoords=("data", "axes fraction"), color="#cc3311")
