"""Exit statuses, warnings, and what to do when nobody reads standard output."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

from thanx_async._core.escaping import printable

ISSUED, SOME_FAILED, USAGE_ERROR, STOPPED = range(4)


def warn(text: str) -> None:
    """Write a line to standard error, with control characters escaped."""
    with suppress(OSError):
        sys.stderr.write(f"thanx-async: {printable(text)}\n")


def escape_unencodable() -> None:
    """Let standard output and error escape what their encoding lacks: a report would break off there."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Discard further standard output, whose reader has gone; flushing at exit would fail otherwise."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
