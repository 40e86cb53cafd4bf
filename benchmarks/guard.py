"""Calls and instructions that the hot path takes for each guest, beside those stored in `guard.json`."""

from __future__ import annotations

import cProfile
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import harness
from benchmarks.hotpath import COUNT, INPUTS, work

_STORED = Path(__file__).with_name("guard.json")
_MARGIN = 0.2
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

Counts = dict[str, float]


def calls() -> Counts:
    """Calls (Python's and C's) a guest, by input."""
    counts = {}
    for name, made in INPUTS.items():
        texts = list(made(COUNT))
        profile = cProfile.Profile()
        profile.runcall(work, texts)
        counts[f"{name}: calls"] = sum(entry.callcount for entry in profile.getstats()) / COUNT
    return counts


def instructions() -> Counts:
    """Instructions a guest under valgrind's callgrind, by input, less those of making it; empty without
    valgrind. They are not the same in each minor version of Python."""
    if not shutil.which("valgrind"):
        return {}
    counts = {}
    for name in INPUTS:
        spent = _under_callgrind(name, "work") - _under_callgrind(name, "idle")
        counts[f"{name}: instructions, Python {_VERSION}"] = spent / COUNT
    return counts


def _under_callgrind(name: str, what: str) -> int:
    with TemporaryDirectory() as directory:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/out"]
        command += [sys.executable, "-m", "benchmarks.hotpath", name, what]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", finished.stderr)
    assert found is not None
    return int(found[1])


def main() -> None:
    """Count and compare, with exit status 1 if a count is above its margin; with ``--update``, store."""
    counted = {name: round(count, 2) for name, count in {**calls(), **instructions()}.items()}
    stored: Counts = json.loads(_STORED.read_text()) if _STORED.exists() else {}
    if "--update" in sys.argv:
        _STORED.write_text(json.dumps({**stored, **counted}, indent=1) + "\n")
    rows = [(name, f"{count:,.2f}", _change(count, stored.get(name))) for name, count in counted.items()]
    print(harness.table(("a guest", "counted", "beside the stored"), rows))
    grown = [name for name, count in counted.items() if count > stored.get(name, count) * (1 + _MARGIN)]
    if grown and "--update" not in sys.argv:
        raise SystemExit(f"more than {_MARGIN:.0%} above the stored counts: {', '.join(grown)}")


def _change(count: float, stored: float | None) -> str:
    return f"{count / stored - 1:+.1%}" if stored else "nothing stored"


if __name__ == "__main__":
    main()
