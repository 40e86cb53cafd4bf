"""CPU of a program's start, of imports and of the command line's help, beside `import aiohttp`."""

from __future__ import annotations

import os
import sys
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks import harness

_IMPORT, _USED = "import thanx_async", "from thanx_async import AsyncBatcher, ThanxClient"
_AIOHTTP, _HELP = "import aiohttp", "thanx-async --help"
_PROGRAMS = {
    "python, nothing imported": ("-c", "pass"),
    _AIOHTTP: ("-c", "import aiohttp"),
    _IMPORT: ("-c", _IMPORT),
    _USED: ("-c", _USED),
    _HELP: ("-m", "thanx_async", "--help"),
}
_TARGET_RATIO, _TARGET_HELP = 1.25, 0.3


def main() -> None:
    """Measure, compare, publish."""
    with TemporaryDirectory() as cache:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = cache  # compiled once, as an installed package is
        contenders = {
            name: partial(harness.command, sys.executable, *arguments)
            for name, arguments in _PROGRAMS.items()
        }
        harness.interleave(contenders, rounds=1)
        samples = harness.interleave(contenders, rounds=harness.size(11, quick=3))
    harness.publish(_report(samples))


def _report(samples: harness.Samples) -> harness.Report:
    aiohttp = samples.median(_AIOHTTP, "process_cpu")
    ratios = {name: samples.ratio(name, _AIOHTTP, "process_cpu") for name in (_IMPORT, _USED)}
    spent = samples.median(_HELP, "process_cpu")
    return harness.Report(
        name="start",
        question="CPU seconds of a program's start",
        columns=("", "CPU s", "times import aiohttp"),
        rows=[
            (
                name,
                f"{samples.median(name, 'process_cpu'):.3f}",
                f"{samples.ratio(name, _AIOHTTP, 'process_cpu'):.2f}",
            )
            for name in _PROGRAMS
        ],
        headlines=[
            *(
                harness.Headline(
                    f"Start: `{name}`",
                    f"{ratio:.2f} times `import aiohttp`",
                    f"{_TARGET_RATIO} times",
                    f"{aiohttp:.2f} s",
                    met=ratio <= _TARGET_RATIO,
                )
                for name, ratio in ratios.items()
            ),
            harness.Headline.at_most("`thanx-async --help`, CPU", spent, _TARGET_HELP, "s", digits=2),
        ],
        samples=samples,
    )


if __name__ == "__main__":
    harness.start({}, main)
