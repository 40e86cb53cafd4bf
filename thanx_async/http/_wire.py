"""The wire format: encodes requests, decodes answers into models, and maps HTTP errors to classes. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TypeVar

import attrs
import orjson

from thanx_async._core import checks
from thanx_async._core.errors import (
    APIError,
    IdempotencyConflictError,
    InvalidResponseError,
    UnprocessableError,
)
from thanx_async._core.escaping import printable
from thanx_async._decoding import MISFITS, enveloped, masked
from thanx_async.models import IssuanceJob
from thanx_async.retry import meaning_of

T = TypeVar("T")

API_VERSION = "v4.0"
_BODY_START = 200
_NO_JSON = object()
_SLICE = 1_000
_LONGEST_KIND = 100
_LONGEST_ID = 200
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
    headers: Mapping[str, str] = attrs.field(repr=lambda headers: f"<{len(headers)} headers>")
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")

    @property
    def retry_after(self) -> float | None:
        """The seconds of ``Retry-After``; None for a date or anything else."""
        text = self.headers.get("Retry-After", "").strip()
        return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None

    @property
    def request_id(self) -> str | None:
        """The ``X-Request-Id``, by which Thanx finds the request; None if there is no printable one."""
        text = self.headers.get("X-Request-Id", "")
        return text[:_LONGEST_ID] if text.isprintable() and text else None


class Body(bytes):
    """A request body. Its repr hides the guests from tools that record local variables."""

    def __repr__(self) -> str:
        return f"<{len(self):,} bytes>"


def issue_body(campaign_id: str, merchant_id: str, variant_id: str, values: Sequence[str]) -> bytes:
    """The body of an Issue Rewards request for normalized identifiers.

    Normalized values contain nothing that JSON escapes, so they are joined as they are. The body is joined
    only once: another copy would take as long as the encoding, for fresh memory.
    """
    target = orjson.dumps({"campaign_id": campaign_id, "merchant_id": merchant_id, "variant_id": variant_id})
    parts = [target[:-1], b',"identifiers":[']
    for first in range(0, len(values), _SLICE):
        parts += [b"," if first else b"", _members(values[first : first + _SLICE])]
    return Body(b"".join([*parts, b"]}"]))


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
    """Decode the model in a success.

    Raises:
        APIError: a status of 400 or more. The class follows from the status alone, whatever the body holds.
        InvalidResponseError: a success without the model, or a redirect.
    """
    if answer.status >= 400:
        raise api_error(answer)
    found = _decoded(answer, decoder)
    if isinstance(found, _Misfit):
        hint = "; redirects are not followed" if 300 <= answer.status < 400 else ""
        raise invalid(answer, f"{_phrase(answer.status)} with {found.what}{hint}")
    return found


@attrs.frozen
class _Misfit:
    """What an answer is in place of the model."""

    what: str


def _decoded(answer: Answer, decoder: Callable[[object], T]) -> T | _Misfit:
    """In a function of its own, so that neither the payload nor a decoder's error is in a traceback."""
    payload = _parsed(answer.body)
    if payload is _NO_JSON:
        return _Misfit(f"{_content(answer)} instead of JSON")
    if not 200 <= answer.status < 300:
        return _Misfit(_content(answer))
    try:
        return decoder(payload)
    except AnotherJob:
        return _Misfit("another job than was asked for")
    except MISFITS as error:
        return _Misfit(f"JSON of an unexpected shape ({type(error).__name__})")


def _parsed(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _NO_JSON


def invalid(answer: Answer, what: str) -> InvalidResponseError:
    """The error for an answer of no use, with what follows the status in the message."""
    return InvalidResponseError(
        f"HTTP {answer.status}{what}",
        status=answer.status,
        body_start=answer.body[:_BODY_START],
        retry_after=answer.retry_after,
        request_id=answer.request_id,
    )


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _content(answer: Answer) -> str:
    if not answer.body:
        return "an empty body"
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()[:_LONGEST_KIND]
    return f"{len(answer.body)} bytes of {kind if kind.isprintable() and kind else 'something'}"


def api_error(answer: Answer) -> APIError:
    """The error for an answer with a status of 400 or more, whatever its body holds."""
    code, message = _envelope(answer)
    meaning = meaning_of(answer.status)
    kind = meaning.error
    if kind is UnprocessableError and "idempoten" in f"{code} {message}".lower():
        kind = IdempotencyConflictError
    phrase = _phrase(answer.status).strip(" ()") or "an unknown status"
    hint = "; a smaller batch_size makes smaller requests" if answer.status == 413 else ""
    return kind(
        answer.status,
        None if code is None else masked(code),
        masked(message or f"{phrase}, with {_content(answer)}") + hint,
        in_doubt=meaning.in_doubt or kind is IdempotencyConflictError,  # its guests may have had a reward
        retry_after=answer.retry_after,
        request_id=answer.request_id,
    )


def _envelope(answer: Answer) -> tuple[str | None, str]:
    """The error code and message, if the body has them."""
    match _parsed(answer.body):
        case {"error": {**error}}:
            code, message = error.get("code"), error.get("message")
            return (code if isinstance(code, str) else None), (message if isinstance(message, str) else "")
    return None, ""


_decode_job = enveloped(IssuanceJob, "issuance_job")


def decode_job(payload: object) -> IssuanceJob:
    """Decode a job, and note whether Thanx has counted its rewards."""
    job = _decode_job(payload)
    match payload:
        case {"issuance_job": {"summary": {"success_count": count}}} if job.summary is not None:
            pass
        case {"issuance_job": {"success_count": count}}:
            pass
        case _:
            count = None
    is_counted = isinstance(count, int | float) and not isinstance(count, bool)
    return attrs.evolve(job, state=printable(job.state), is_counted=is_counted, by_event=False)


def decoder_of_job(job_id: str) -> Callable[[object], IssuanceJob]:
    """The decoder for an answer about this job. An answer about another job is rejected."""

    def decoder(payload: object) -> IssuanceJob:
        job = decode_job(payload)
        if job.id != job_id:
            raise AnotherJob
        return job

    return decoder


class AnotherJob(ValueError):  # noqa: N818 - named in a message
    """The answer is about a different job than the request."""
