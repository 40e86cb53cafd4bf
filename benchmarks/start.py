"""CPU seconds of a program's start: the imports, and the command line's help.

Run: python -m benchmarks.start
"""

from __future__ import annotations

import os
import sys
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks import harness

_OURS, _AIOHTTP, _HELP = "from thanx_async import ...", "import aiohttp", "thanx-async --help"
_PROGRAMS = {
    "python, nothing imported": ("-c", "pass"),
    _AIOHTTP: ("-c", "import aiohttp"),
    _OURS: ("-c", "from thanx_async import AsyncBatcher, ThanxClient"),
    _HELP: ("-m", "thanx_async", "--help"),
}
_TARGET_RATIO, _TARGET_HELP = 1.25, 0.3


def main() -> None:
    """Measure, compare, publish."""
    rounds = 3 if harness.is_quick() else 11
    with TemporaryDirectory() as cache:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = cache  # compiled once, as an installed package is
        contenders = {
            name: partial(harness.command, sys.executable, *arguments)
            for name, arguments in _PROGRAMS.items()
        }
        harness.interleave(contenders, rounds=1)
        samples = harness.interleave(contenders, rounds=rounds)
    harness.publish(_report(samples))


def _report(samples: harness.Samples) -> harness.Report:
    ratio = samples.ratio(_OURS, _AIOHTTP, "process_cpu")
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
            harness.Headline(
                "Start: `from thanx_async import AsyncBatcher, ThanxClient`",
                f"{ratio:.2f} times `import aiohttp`",
                f"{_TARGET_RATIO} times",
                f"{samples.median(_AIOHTTP, 'process_cpu'):.2f} s",
                met=ratio <= _TARGET_RATIO,
            ),
            harness.Headline(
                "`thanx-async --help`, CPU",
                f"{spent:.2f} s",
                f"{_TARGET_HELP} s",
                met=spent <= _TARGET_HELP,
            ),
        ],
        samples=samples,
    )


if __name__ == "__main__":
    harness.start({}, main)
