"""Checks the arguments of `ThanxClient`: base URL, headers, session; reads its environment variables."""

from __future__ import annotations

import os
from ipaddress import ip_address

from aiohttp import ClientTimeout
from yarl import URL

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError
from thanx_async._version import __version__
from thanx_async.models import Environment
from thanx_async.retry import RetryPolicy

_LONGEST_LABEL = 63
USER_AGENT = f"thanx-async/{__version__}"


def checked_url(base_url: str) -> str:
    """The canonical form of a base URL, by which runs, ledgers and rate limits know it.

    HTTPS is required, except for loopback addresses.
    """
    try:
        url = URL(checks.text("base_url", base_url).strip())
        host = _host(url)
    except ValueError as error:
        raise checks.wrong("base_url", "is not a URL") from error
    if url.user or url.password or url.query_string or url.fragment:
        raise checks.wrong("base_url", "must be just a scheme, a host and perhaps a path")
    if not host or not (url.scheme == "https" or (url.scheme == "http" and _is_loopback(host))):
        raise checks.wrong("base_url", "must begin with https:// (http:// only on a loopback address)")
    name = f"[{host}]" if ":" in host else host
    port = "" if url.explicit_port is None or url.is_default_port() else f":{url.port}"
    return f"{url.scheme}://{name}{port}{url.raw_path.rstrip('/')}"


def _host(url: URL) -> str:
    """The name in lower case and ASCII, or the address.

    Raises:
        ValueError: it can be neither.
    """
    host = (url.raw_host or "").removesuffix(".").lower()
    try:
        return ip_address(host).compressed
    except ValueError:
        if host and not all(0 < len(label) <= _LONGEST_LABEL for label in host.split(".")):
            raise
        return host


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(environment: Environment) -> str:
    """The base URL of an environment."""
    if not isinstance(environment, Environment):
        raise checks.wrong("environment", "must be Environment.SANDBOX or Environment.PRODUCTION")
    return environment.value


def check_parts(session: object, timeout: object, retry: object, limiter: object, hook: object) -> None:
    """Check the types of a client's parts."""
    if session is not None:
        checks.has("session", session, "an aiohttp.ClientSession", "request", "closed")
    checks.kind("timeout", isinstance(timeout, ClientTimeout), "an aiohttp.ClientTimeout(total=60)", timeout)
    checks.kind("retry", isinstance(retry, RetryPolicy), "a RetryPolicy(max_attempts=3)", retry)
    if limiter is not None:
        checks.has("limiter", limiter, "a RateLimiter", "slot", "status", "limits")
    checks.callback("hook", hook, "callable with a record")


def unpicklable() -> ConfigurationError:
    """The error of a client, or of what belongs to one, that is to be pickled."""
    return checks.unpicklable(
        "a client, and what belongs to it,",
        "make a client in each process, such as ThanxClient.from_env(), and attach to a job by its id with"
        " client.job(job_id, merchant_id=...)",
    )


def header(name: str, value: str, *, spaces: bool = False) -> str:
    """The value, checked for use in a header.

    Args:
        name: the argument that the value was given for.
        value: printable ASCII text.
        spaces: allow spaces.
    """
    checks.text(name, value)
    if not value.isascii() or not value.isprintable() or (not spaces and " " in value):
        raise checks.wrong(name, "has a character that a header may not hold, such as a line end")
    return value


def variable(name: str) -> str:
    """The value of an environment variable that must be set."""
    value = os.environ.get(name)
    if not value:
        raise ConfigurationError(f"the environment variable {name} is not set")
    return value


def environment(name: str) -> Environment:
    """The environment with this name, from THANX_ENVIRONMENT."""
    try:
        return Environment[name.upper()]
    except KeyError:
        raise ConfigurationError("THANX_ENVIRONMENT must be sandbox or production") from None
