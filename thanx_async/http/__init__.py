"""HTTP: the requests and answers of the Thanx API as data, the retry loop, and aiohttp."""

from thanx_async.http import _catalogue as catalogue
from thanx_async.http import _wire as wire
from thanx_async.http._delivery import Delivery
from thanx_async.http._readiness import ReadinessCheck, readiness
from thanx_async.http._settings import (
    USER_AGENT,
    check_parts,
    checked_url,
    environment,
    header,
    unpicklable,
    url_of,
    variable,
)
from thanx_async.http._transport import Transport
from thanx_async.http._turns import CutTurns

__all__ = [
    "USER_AGENT",
    "CutTurns",
    "Delivery",
    "ReadinessCheck",
    "Transport",
    "catalogue",
    "check_parts",
    "checked_url",
    "environment",
    "header",
    "readiness",
    "unpicklable",
    "url_of",
    "variable",
    "wire",
]
