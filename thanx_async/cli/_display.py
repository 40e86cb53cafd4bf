"""Shows on standard error how far a command is."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from thanx_async._core.escaping import printable
from thanx_async.batcher import IssuanceRun
from thanx_async.cli._bars import Bars, Reading
from thanx_async.cli._figures import Meter
from thanx_async.client import ThanxClient

_LIVE_EVERY, _PLAIN_EVERY = 0.25, 2.0
_MOST_SHARE = 20
"""The display takes one part in so many of the time."""


class _Console(Console):
    """A console that goes quiet when its reader has gone; rich would end the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Display:
    """Shows progress: live on a terminal, otherwise as a plain line every two seconds.

    An async context manager; what it shows is gone from a terminal after it, and while the process is
    suspended.
    """

    def __init__(self) -> None:
        self._console = _Console(stderr=True)
        self._meter = Meter()
        self._run: IssuanceRun | None = None
        self._read: Callable[[], Reading] | None = None
        self._live: Live | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._suspension = _Suspension(self._close, self._open)

    def watch(self, client: ThanxClient) -> None:
        """Also show the waits of this client."""
        self._meter.client = client

    def expect(self, total: Callable[[IssuanceRun], int | None]) -> None:
        """Show parts of the number of items in the input, which ``total`` returns once it is known."""
        self._meter.total = total

    def follow(self, run: IssuanceRun) -> None:
        """Show this run. The progress callback of a batcher."""
        self._run = run

    def follow_reading(self, read: Callable[[], Reading]) -> None:
        """Show how far a file is read."""
        self._read = read

    def stopping(self) -> None:
        """Expect no end any more: the run stops before it."""
        self._meter.is_stopping = True

    def say(self, text: str) -> None:
        self._console.print(Text(printable(text)), soft_wrap=True)

    async def __aenter__(self) -> Self:
        is_live = _is_live(self._console)
        if is_live:
            self._open()
            self._suspension.begin()
        self._ticker = asyncio.create_task(self._tick_live() if is_live else self._tick_plainly())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._ticker is not None:
                self._ticker.cancel()
                await asyncio.wait([self._ticker])
        finally:
            self._suspension.end()
            self._close()

    def _open(self) -> None:
        self._live = Live(
            console=self._console,
            get_renderable=self._scene,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # it may be a file, and its lines are no part of what is shown
        )
        self._live.start()
        self._console.show_cursor()  # whatever ends the process, its terminal has a cursor

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _scene(self) -> Bars | Reading | str:
        if self._run is not None:
            return Bars(self._meter.take(self._run))
        return self._read() if self._read is not None else ""

    async def _tick_live(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            begin = loop.time()
            if self._live is not None:
                self._live.refresh()
            await asyncio.sleep(max(_LIVE_EVERY, _MOST_SHARE * (loop.time() - begin)))

    async def _tick_plainly(self) -> None:
        said: object = None
        while True:
            await asyncio.sleep(_PLAIN_EVERY)
            key, text = self._plain()
            if text and key != said:
                self.say(text)
            said = key

    def _plain(self) -> tuple[object, str]:
        """A line, and what makes it worth another one: times alone do not."""
        if self._run is not None:
            figures = self._meter.take(self._run)
            return (figures.counts, figures.reason), str(figures)
        text = str(self._read()) if self._read is not None else ""
        return text, text


def _is_live(console: Console) -> bool:
    """Whether lines can be drawn again; FORCE_COLOR makes a terminal of everything for rich."""
    return console.is_interactive and not console.is_dumb_terminal and console.file.isatty()


class _Suspension:
    """Calls before Ctrl-Z stops the process, and after it goes on."""

    def __init__(self, before: Callable[[], object], after: Callable[[], object]) -> None:
        self._before = before
        self._after = after
        self._number = getattr(signal, "SIGTSTP", None)
        self._is_set = False

    def begin(self) -> None:
        """Handle the signal, unless the parent process has set it to be ignored."""
        if self._number is None or signal.getsignal(self._number) is signal.SIG_IGN:
            return
        try:
            asyncio.get_running_loop().add_signal_handler(self._number, self._suspend)
        except (NotImplementedError, RuntimeError, ValueError):
            return
        self._is_set = True

    def end(self) -> None:
        if self._is_set and self._number is not None:
            asyncio.get_running_loop().remove_signal_handler(self._number)
            self._is_set = False

    def _suspend(self) -> None:
        self._before()
        self.end()
        if self._number is not None:
            signal.raise_signal(self._number)
        self.begin()
        self._after()
