"""Runs a small run once for each of its steps, and dies there: python -m tests.ledger.crash URL LEDGER."""

import asyncio
import os
import sys
import threading
from pathlib import Path

from tests.ledger.steps import CountingLoop, issue

DIED = 9


def warm_up(url: str, path: Path) -> None:
    """A whole run, so that no child imports anything; nobody forks while its threads are there."""
    asyncio.run(issue(url, path, 0, []))
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join()


def attempt(url: str, path: Path, number: int, at: int) -> int:
    """Run in a child that dies at a step (0: never); returns its exit status."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        with asyncio.Runner(loop_factory=lambda: CountingLoop(at, lambda: os._exit(DIED))) as runner:
            runner.run(issue(url, path, number, [], again=at == 0))
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def main(url: str, path: Path) -> None:
    warm_up(url, path)
    step = 0
    while True:
        step += 1
        status = attempt(url, path, step, step)
        if attempt(url, path, step, 0) or status not in {0, DIED}:
            sys.exit(f"step {step} ended with {status}")
        if status == 0:
            break
    sys.stdout.write(f"{step}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
