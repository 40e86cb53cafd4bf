"""Draws the picture of the command line's display in the README: python -m benchmarks.display"""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from thanx_async.cli._bars import Bars
from thanx_async.cli._figures import Counts, Figures, Phase

PICTURE = Path(__file__).parent.parent / ".github" / "display.svg"
_COMMAND = "$ thanx-async issue guests.csv --column email --campaign ... --failures failed.csv"


def picture() -> str:
    """The picture, as SVG; always the same."""
    counts = Counts(
        read=640_000, rejected=112, duplicates=388, jobs=63, accepted=630_000, rewarded=588_214, failed=1_286,
        processed=589_500,
    )  # fmt: skip
    midday = datetime.now().astimezone().replace(hour=12, microsecond=0)
    figures = Figures(
        counts,
        Phase("accepted", 630_000, 999_500, 23_870, midday.replace(minute=4, second=18)),
        Phase("rewarded", 588_214, 998_214, 22_460, midday.replace(minute=4, second=51)),
        "the limit of 5 requests in 1 s",
        elapsed=26.0,
    )
    console = Console(
        width=100, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text(_COMMAND))
    console.print(Bars(figures))
    return console.export_svg(title="thanx-async", unique_id="display")


if __name__ == "__main__":
    PICTURE.write_text(picture())
