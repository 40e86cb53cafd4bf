"""`ServerAddress`, a server's URL whose password is never shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from thanx_async._core import checks
from thanx_async._core.escaping import printable

_HOST = re.compile(r"(\[[\w:.%]+\]|[^:\[\]]*)(:([0-9]{1,5}))?")

_LARGEST_PORT = 65_535


class ServerAddress:
    """The URL of a server, which may contain a password.

    Creating one never fails, so no traceback shows the URL as a local variable; `check` raises the errors.

    Args:
        argument: the name of the argument that the user gave the URL as.
        url: the URL.
        schemes: the accepted schemes; the first one is preferred.
    """

    __slots__ = ("_argument", "_problem", "_secrets", "_url", "label")

    def __init__(self, argument: str, url: object, schemes: Sequence[str]) -> None:
        self._argument = argument
        self._url = url if isinstance(url, str) else ""
        self._secrets: tuple[str, ...] = ()
        self.label = "an invalid address"
        self._problem = _problem(url, schemes)
        if not self._problem:
            self._read()

    def __repr__(self) -> str:
        return f"<ServerAddress {self.label}>"

    def __reduce__(self) -> NoReturn:
        raise checks.unpicklable("the address of a server", "it may contain a password")

    def check(self) -> None:
        """Raise a `ConfigurationError` if the URL is invalid."""
        if self._problem:
            raise checks.wrong(self._argument, self._problem)

    def reveal(self) -> str:
        """The URL, with its password."""
        return self._url

    def masked(self, text: str) -> str:
        """The text without this URL and its password."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _read(self) -> None:
        parts = urlsplit(self._url)
        user, _, host = parts.netloc.rpartition("@")
        query = parse_qsl(parts.query)
        hosts = [value for name, value in query if name == "host"]
        self.label = printable((host or ",".join(hosts)) + parts.path)
        password = user.partition(":")[2]
        found = {self._url, password, unquote(password)}
        found |= {value for name, value in query if "password" in name}
        self._secrets = tuple(sorted(found - {""}, key=len, reverse=True))


def _problem(url: object, schemes: Sequence[str]) -> str:
    """What is wrong with the URL, without any part of it; empty if nothing is."""
    if not isinstance(url, str):
        return f"must be text, not {type(url).__name__}"
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in schemes:
        return f"must be a URL that begins with {' or '.join(f'{name}://' for name in schemes)}"
    netloc = rest.partition("/")[0].partition("?")[0]
    if rest.count("@") > netloc.count("@") or netloc.count("@") > 1 or "#" in rest:
        return "has a user name or password with an @, /, ? or # in it: percent-encode that character"
    try:
        hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    except ValueError:
        hosts = ["]"]
    if not all(map(_is_host, hosts)):
        return "is not a valid URL: check the host and port, and percent-encode any [ or ] in the password"
    return ""


def _is_host(text: str) -> bool:
    """Whether the text is a host with or without a port."""
    found = _HOST.fullmatch(text)
    return found is not None and int(found[3] or 0) <= _LARGEST_PORT
