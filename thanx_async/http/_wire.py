"""The wire format: encodes requests, decodes answers into models, and maps HTTP errors to classes. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar

import attrs
import cattrs
import orjson

from thanx_async._core import checks
from thanx_async._core.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    IdempotencyConflictError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
    ThanxError,
    UnprocessableError,
)
from thanx_async._decoding import enveloped, masked
from thanx_async.models import IssuanceJob

T = TypeVar("T")

API_VERSION = "v4.0"
_BODY_START = 200
_SLICE = 1_000
_ERRORS: Mapping[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: UnprocessableError,
    429: RateLimitedError,
}
_ID = re.compile(r"(/issuance_jobs|/campaigns|/reward_templates)/(?!issue$)[^/]+")


@attrs.frozen
class Request:
    """A request, ready to be sent any number of times with the same bytes."""

    method: str
    path: str
    params: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes | None = attrs.field(default=None, repr=lambda body: f"<{len(body or b'')} bytes>")
    idempotency_key: str | None = None

    @property
    def endpoint(self) -> str:
        """The path without ids, for records and metrics."""
        return _ID.sub(r"\1/{id}", self.path)

    @property
    def repeatable(self) -> bool:
        """Whether sending the request again is harmless even if Thanx has already acted on it."""
        return self.method == "GET" or self.idempotency_key is not None


@attrs.frozen
class Answer:
    """An answer of Thanx. ``headers`` are looked up case-insensitively."""

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")


def issue_body(campaign_id: str, merchant_id: str, variant_id: str, values: Sequence[str]) -> bytes:
    """The body of an Issue Rewards request for normalized identifiers.

    Normalized values contain nothing that JSON escapes, so they are joined as they are. The body is joined
    only once: another copy would take as long as the encoding, for fresh memory.
    """
    target = orjson.dumps({"campaign_id": campaign_id, "merchant_id": merchant_id, "variant_id": variant_id})
    parts = [target[:-1], b',"identifiers":[']
    for first in range(0, len(values), _SLICE):
        parts += [b"," if first else b"", _members(values[first : first + _SLICE])]
    return b"".join([*parts, b"]}"])


def _members(values: Sequence[str]) -> bytes:
    """The elements of ``identifiers``: first all as email addresses, then values with a leading + as phones.

    Every phone number starts with +. If an email address does so too, each value is encoded separately.
    """
    joined = '"},{"type":"email","value":"'.join(values)
    parts = f'{{"type":"email","value":"{joined}"}}'.split('"email","value":"+')
    if len(parts) - 1 == len(values) - "".join(values).count("@"):
        return '"phone","value":"+'.join(parts).encode("ascii")
    email, phone = '{"type":"email","value":"', '{"type":"phone","value":"'
    return ",".join([(email if "@" in value else phone) + value + '"}' for value in values]).encode("ascii")


def issue_rewards(body: bytes, idempotency_key: str) -> Request:
    """The Issue Rewards request with a body of `issue_body`."""
    return Request("POST", "/partner/campaigns/issue", body=body, idempotency_key=idempotency_key)


def get_issuance_job(job_id: str, merchant_id: str) -> Request:
    """The request for a snapshot of a job."""
    return Request(
        "GET",
        f"/partner/issuance_jobs/{checks.segment('job_id', job_id)}",
        {"merchant_id": checks.text("merchant_id", merchant_id)},
    )


def revoke_issuance_job(job_id: str, merchant_id: str) -> Request:
    """The request that revokes a job's rewards."""
    body = orjson.dumps({"merchant_id": checks.text("merchant_id", merchant_id)})
    return Request("POST", f"/partner/issuance_jobs/{checks.segment('job_id', job_id)}/revoke", body=body)


def decode(answer: Answer, decoder: Callable[[object], T]) -> T:
    """The model in a success.

    Raises:
        APIError: the class for the status, if the answer has Thanx's error envelope.
        InvalidResponseError: anything else.
    """
    try:
        payload = orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        raise _invalid(answer, f"{_content(answer)} instead of JSON") from error
    if not 200 <= answer.status < 300:
        raise _api_error(answer, payload)
    try:
        return decoder(payload)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError) as error:
        # The cause is left out: it would repeat the payload in the traceback.
        raise _invalid(answer, f"JSON of an unexpected shape ({type(error).__name__})") from None


def _invalid(answer: Answer, what: str) -> InvalidResponseError | RateLimitedError:
    if answer.status == 429:  # a proxy's refusal is a refusal, whatever it looks like
        return RateLimitedError(429, None, what)
    hint = "; redirects are not followed" if 300 <= answer.status < 400 else ""
    return InvalidResponseError(
        f"HTTP {answer.status}{_phrase(answer.status)} with {what}{hint}",
        status=answer.status,
        body_start=answer.body[:_BODY_START],
    )


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _content(answer: Answer) -> str:
    if not answer.body:
        return "an empty body"
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
    return f"{len(answer.body)} bytes of {kind if kind.isprintable() and kind else 'something'}"


def _api_error(answer: Answer, payload: object) -> ThanxError:
    match payload:
        case {"error": {**error}}:
            code, message = error.get("code"), error.get("message")
        case _:
            return _invalid(answer, "JSON without an error envelope")
    text = masked(str(message or _phrase(answer.status).strip(" ()")))
    code = None if code is None else masked(str(code))
    return _error_class(answer.status, f"{code} {message}")(answer.status, code, text)


def _error_class(status: int, text: str) -> type[APIError]:
    if status == 422 and "idempoten" in text.lower():
        return IdempotencyConflictError
    if status >= 500:
        return ServerError
    return _ERRORS.get(status, APIError)


_decode_job = enveloped(IssuanceJob, "issuance_job")


def decode_job(payload: object) -> IssuanceJob:
    """The job, which knows whether Thanx has said how many got a reward."""
    job = _decode_job(payload)
    match payload:
        case {"issuance_job": {"summary": {"success_count": None}}}:
            return attrs.evolve(job, is_counted=False)
        case {"issuance_job": {"summary": {}}} | {"issuance_job": {"success_count": int() | float()}}:
            return job
    return attrs.evolve(job, is_counted=False)
