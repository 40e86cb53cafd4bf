"""Variables from a file: `--env-file`, and the hint at a file that was not given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from thanx_async._core.errors import ConfigurationError

_OPTION = "--env-file"
_OURS = "THANX_"
_USUAL = ".env"


def take_env_file(arguments: Sequence[str]) -> list[str]:
    """Set the variables of the file that ``--env-file`` names, and return the other arguments.

    Variables that are set already stay as they are. Only those of this program are taken.

    Raises:
        ConfigurationError: the file cannot be read, or has none of them.
    """
    options = list(takewhile(lambda argument: argument != "--", arguments))
    rest: list[str] = []
    given = iter(options)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name != _OPTION:
            rest.append(argument)
            continue
        _load(value if equals else next(given, ""))
    return [*rest, *arguments[len(options) :]]


def _load(name: str) -> None:
    if not name:
        raise ConfigurationError(f"{_OPTION} needs the name of a file")
    for variable, value in _read(Path(name)).items():
        os.environ.setdefault(variable, value)


def _read(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values  # on use only

    try:
        with path.open(encoding="utf-8-sig") as stream:
            found = dotenv_values(stream=stream, interpolate=False)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", argument="env_file") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not text in UTF-8", argument="env_file") from None
    ours = {name: value for name, value in found.items() if name.startswith(_OURS) and value}
    if not ours:
        raise ConfigurationError(f"{path} sets none of this program's variables, such as THANX_CLIENT_ID")
    return ours


def hint(message: str) -> str:
    """What to add to a message about a missing variable that a file in this directory sets."""
    path = Path(_USUAL)
    if "environment variable THANX_" not in message or not path.is_file():
        return ""
    try:
        _read(path)
    except ConfigurationError:
        return ""
    return f"; the file {_USUAL} here is not read by itself: give {_OPTION} {_USUAL}"
