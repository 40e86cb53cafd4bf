"""What the options of the command line hold, and how messages call what was typed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

_TYPED = {
    "access_token": "THANX_ACCESS_TOKEN",
    "base_url": "THANX_BASE_URL",
    "batch_size": "--batch-size",
    "campaign_id": "--campaign",
    "canary": "--canary",
    "client_id": "THANX_CLIENT_ID",
    "max_failure_rate": "--max-failure-rate",
    "max_rewards": "--max-rewards",
    "merchant_id": "--merchant",
    "run_id": "--run-id",
    "user_agent": "THANX_USER_AGENT",
    "variant_id": "--variant",
}
# Only where the library names them: columns and files may be called the same.
_PLACES = "|".join(["^", *(f"(?<={words} )" for words in ("settings:", ";", "needs", "another"))])
_ARGUMENT = re.compile(rf"(?:{_PLACES})(?:Guard\.)?({'|'.join(_TYPED)})(?=[ ,]|$)")


def as_typed(message: str) -> str:
    """A message of the library with options and variables in place of its arguments."""
    return _ARGUMENT.sub(lambda match: _TYPED[match[1]], message)


def _whole(_: object, tokens: Sequence[Token]) -> int:
    text = tokens[0].value
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None


def _file(_: object, tokens: Sequence[Token]) -> Path:
    if not tokens[0].value:
        raise ValueError("the name is empty")
    return Path(tokens[0].value)


Flag = Annotated[bool, Parameter(negative=())]
Whole = Annotated[int, Parameter(converter=_whole)]
FileName = Annotated[Path, Parameter(converter=_file)]
