"""The checks of what a client is made of."""

from __future__ import annotations

import os
from ipaddress import ip_address

from aiohttp import ClientTimeout
from yarl import URL

from thanx_async._version import __version__
from thanx_async.errors import ConfigurationError
from thanx_async.models import Environment
from thanx_async.retry import RetryPolicy

USER_AGENT = f"thanx-async/{__version__}"


def checked_url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError as error:
        raise ConfigurationError("base_url is not a URL") from error
    if url.user or url.password or url.query_string or url.fragment:
        raise ConfigurationError("base_url must be just a scheme, a host and perhaps a path")
    if not url.host or not (url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.host))):
        raise ConfigurationError("base_url must begin with https:// (http:// only on a loopback address)")
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_of(environment: Environment) -> str:
    if not isinstance(environment, Environment):
        raise ConfigurationError("environment must be Environment.SANDBOX or Environment.PRODUCTION")
    return environment.value


def check_parts(timeout: object, retry: object, hook: object) -> None:
    if not isinstance(timeout, ClientTimeout):
        raise ConfigurationError("timeout must be an aiohttp.ClientTimeout, such as ClientTimeout(total=60)")
    if not isinstance(retry, RetryPolicy):
        raise ConfigurationError("retry must be a RetryPolicy, such as RetryPolicy(max_attempts=3)")
    if not callable(hook):
        raise ConfigurationError("hook must be callable with a record")


def header(name: str, value: str, *, spaces: bool = False) -> str:
    if not isinstance(value, str | None):
        raise ConfigurationError(f"{name} must be text, not {type(value).__name__}")
    if not value:
        raise ConfigurationError(f"{name} is empty")
    if not value.isascii() or not value.isprintable() or (not spaces and " " in value):
        raise ConfigurationError(f"{name} has a character that a header may not hold, such as a line end")
    return value


def variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigurationError(f"the environment variable {name} is not set")
    return value


def environment(name: str) -> Environment:
    try:
        return Environment[name.upper()]
    except KeyError:
        raise ConfigurationError("THANX_ENVIRONMENT must be sandbox or production") from None
