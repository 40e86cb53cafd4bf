"""Asks before something is done that cannot be undone."""

from __future__ import annotations

import sys
from collections.abc import Callable

from anyio import to_thread

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._output import write


async def confirm(what: str, *, yes: bool, tell: Callable[[str], None] = write) -> bool:
    """Say what is about to be done, and ask whether to do it; ``yes`` answers in advance.

    Raises:
        ConfigurationError: there is nobody to ask.
    """
    tell(what)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationError("nothing was done: standard input is no terminal to ask on, so give --yes")
    answer = await to_thread.run_sync(_asked, abandon_on_cancel=True)
    return answer.strip().lower() in {"y", "yes"}


def _asked() -> str:
    sys.stderr.write("Go on? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline()
