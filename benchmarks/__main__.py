"""Runs every benchmark, and puts what they found beside their targets into the table in README.md."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import harness

_PROGRAMS = (
    "throughput",
    "memory",
    "loop",
    "add",
    "service",
    "ledger",
    "outbox",
    "chaos",
    "start",
    "growth",
    "limiter",
    "budget",
    "lanes",
    "guard",
)
_README = Path(__file__).parents[1] / "README.md"
_HEAD = ("", "| | measured | target | beside |", "|---|---|---|---|")
_BEGIN, _END = "<!-- performance -->\n", "<!-- /performance -->\n"


def main() -> None:
    """Run, then write; exits with the number of programs that failed."""
    failed = []
    for name in _PROGRAMS:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if not harness.is_quick():
        refresh(_README)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def refresh(readme: Path) -> None:
    """Put the headlines of all stored results between the markers."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    readme.write_text(before + _BEGIN + _table() + _END + after, encoding="utf-8")


def _table() -> str:
    stored = [
        json.loads(path.read_text(encoding="utf-8"))
        for name in _PROGRAMS
        if (path := harness.RESULTS / f"{name}.json").exists()
    ]
    rows = [_row(headline) for result in stored for headline in result["headlines"]]
    machine = stored[0]["machine"] if stored else {}
    measured_on = f"Measured on {machine.get('machine')}; {machine.get('versions')}."
    return "\n".join([*_HEAD, *rows, "", measured_on, "", ""])


def _row(stored: Mapping[str, object]) -> str:
    headline = harness.Headline(**stored)  # type: ignore[arg-type]  # as publish() wrote it
    missed = " (missed)" if headline.met is False else ""
    return f"| {headline.what} | {headline.measured}{missed} | {headline.target} | {headline.beside} |"


if __name__ == "__main__":
    main()
