"""Makes text from servers and files harmless to terminals and logs."""

from __future__ import annotations

import logging
import re

# C0 with DEL and C1, invisible and bidirectional controls, separators of lines, halves of surrogate pairs.
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""The text as one line, with control characters shown as escapes such as ``\x1b``."""
    return _CONTROLS.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python decodes it from files and file names
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode("ascii")


def get_logger(name: str) -> logging.Logger:
    """The logger of this name. It escapes the control characters in the arguments of its messages."""
    logger = logging.getLogger(name)
    logger.addFilter(_escape_arguments)
    return logger


def _escape_arguments(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(map(_printable_argument, record.args))
    return True


def _printable_argument(argument: object) -> object:
    text = str(argument)
    shown = printable(text)
    return argument if shown == text else shown


get_logger("thanx_async")  # the logger of `instrumentation`, which imports nothing of the package
