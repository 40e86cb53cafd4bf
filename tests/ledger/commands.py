"""Commands as processes that are forked from a warm one, so that none of them waits for its imports."""

import asyncio
import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from uuid import uuid4

from tests.helpers import environment
from thanx_async.__main__ import main

_WARM = (
    "aiohttp",
    "anyio._backends._asyncio",
    "sqlite3",
    "thanx_async.cli._issue",
    "thanx_async.cli._resume",
    "thanx_async.batching._recorder",
    "thanx_async.batching._recorded_input",
    "thanx_async.ledger._sqlite_runs",
)


class Command:
    """``thanx-async`` with limits of its own: what a killed one left in shared ones would hold it up."""

    def __init__(self, url: str, ledger: Path, *arguments: str) -> None:
        home = ledger.parent / uuid4().hex
        self._output = home.with_suffix(".txt")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, *_WARM])
        variables = environment(url, XDG_STATE_HOME=str(home))
        line = (*arguments, "--ledger", str(ledger))
        self.process: ForkServerProcess = context.Process(target=_run, args=(line, variables, self._output))
        self.process.start()

    async def ended(self) -> tuple[int | None, str]:
        """Its exit status and what it has printed."""
        await asyncio.to_thread(self.process.join)
        return self.process.exitcode, self._output.read_text()


def _run(line: tuple[str, ...], variables: dict[str, str], output: Path) -> None:
    os.environ.update(variables)
    with output.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.argv[1:] = line
    main()
