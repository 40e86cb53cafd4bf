"""Verify that a webhook request comes from Thanx, and parse its event. No I/O.

Source: docs.thanx.com, webhooks.
"""

from __future__ import annotations

import hashlib
import hmac
from contextlib import suppress
from datetime import datetime

import attrs
import cattrs
import orjson
from attrs import NOTHING

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, SignatureError, WebhookError
from thanx_async._decoding import enveloped
from thanx_async.models import counted

MAX_BODY = 5 * 2**20
SIGNATURE = "X-Thanx-Signature"
_DIGEST = 32


@attrs.frozen
class EventIdentifier:
    """The guest of a job that an event is about. ``index`` counts from 0 within the job's request."""

    index: int | None = None
    type: str | None = None


@attrs.frozen
class EventFailure:
    """A guest without a reward, and why."""

    reason: str
    user_identifier: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class RewardIssued:
    """``reward.issued``: a guest has got a reward. ``campaign`` is as Thanx sends it."""

    issuance_job_id: str
    merchant_id: str
    identifier: EventIdentifier
    reward_id: str | None = None
    user_id: str | None = attrs.field(default=None, repr=False)
    state: str | None = None
    expires_at: datetime | None = None
    campaign: object = None
    timestamp: datetime | None = None


@attrs.frozen
class RewardBatchCompleted:
    """``reward_batch.completed``: a job has ended. ``state`` is completed or failed."""

    issuance_job_id: str
    merchant_id: str
    state: str
    total_count: int = 0
    issued_count: int = 0
    failed_count: int = 0
    failures: tuple[EventFailure, ...] = attrs.field(default=(), repr=counted)
    timestamp: datetime | None = None


@attrs.frozen
class UnknownEvent:
    """Any other event, such as a purchase. ``payload`` is the complete event, as Thanx sends it."""

    name: str
    payload: dict[str, object] = attrs.field(repr=counted)


Event = RewardIssued | RewardBatchCompleted | UnknownEvent

_KINDS: dict[str, type[RewardIssued | RewardBatchCompleted]] = {
    "reward.issued": RewardIssued,
    "reward_batch.completed": RewardBatchCompleted,
}
_MISFITS = cattrs.BaseValidationError, KeyError, TypeError, ValueError, OverflowError


def verify(body: bytes, signature: str | None, secret: str | bytes) -> Event:
    """Verify the signature of a webhook request, and parse its event.

    Args:
        body: the raw bytes of the request, exactly as received; at most 5 MB.
        signature: the header ``X-Thanx-Signature``, or None if it is missing.
        secret: the webhook secret from Thanx.

    Raises:
        SignatureError: the signature is missing, malformed or wrong.
        WebhookError: the body is too large, not JSON, or not an event.
        ConfigurationError: the secret is empty, or the body is not bytes.
    """
    if not isinstance(body, bytes | bytearray):
        raise checks.wrong("body", "must be the raw bytes of the request, not text or parsed JSON")
    check_secret(secret)
    if len(body) > MAX_BODY:
        raise WebhookError(f"the body has more than {MAX_BODY:,} bytes")
    key = secret.encode() if isinstance(secret, str) else secret
    if not hmac.compare_digest(hmac.digest(key, body, hashlib.sha256), _given(signature)):
        raise SignatureError(f"{SIGNATURE} does not match the body and the secret")
    return _parsed(body)


def check_secret(value: object) -> None:
    """Check the secret that signs webhooks."""
    if not isinstance(value, str | bytes):
        raise ConfigurationError(
            f"the webhook secret must be text or bytes, not {type(value).__name__}", argument="secret"
        )
    if not value:
        raise ConfigurationError("the webhook secret is empty", argument="secret")
    if isinstance(value, str):
        checks.text("secret", value)


def _given(signature: str | None) -> bytes:
    if not signature:
        raise SignatureError(f"the header {SIGNATURE} is missing")
    checks.kind("signature", isinstance(signature, str), "text", signature)
    try:
        digest = bytes.fromhex(signature)
    except ValueError:
        digest = b""
    if len(digest) != _DIGEST or len(signature) != 2 * _DIGEST:
        raise SignatureError(f"{SIGNATURE} is not a hexadecimal HMAC-SHA256")
    return digest


def _parsed(body: bytes) -> Event:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise WebhookError("the body is not JSON") from None
    if not isinstance(payload, dict) or not isinstance(name := payload.get("event"), str):
        raise WebhookError('the body is not an object with an "event"')
    kind = _KINDS.get(name)
    if kind is None:
        return UnknownEvent(name, payload)
    try:
        return _structured(kind, {**payload["data"], "timestamp": payload.get("timestamp")})
    except _MISFITS as error:
        # The cause is left out: it would repeat the payload in the traceback.
        raise WebhookError(f"{name} has an unexpected shape ({type(error).__name__})") from None


def _structured(
    kind: type[RewardIssued | RewardBatchCompleted], data: dict[str, object]
) -> RewardIssued | RewardBatchCompleted:
    """The event. Optional fields of an unexpected shape are left out, so that the rest is not lost."""
    decoder = enveloped(kind, "data")
    given = {name: value for name, value in data.items() if value is not None}
    try:
        return decoder({"data": given})
    except _MISFITS:
        event = {
            name: given[name] for name, field in attrs.fields_dict(kind).items() if field.default is NOTHING
        }
    for name in given:
        with suppress(*_MISFITS):
            decoder({"data": event | {name: given[name]}})
            event[name] = given[name]
    return decoder({"data": event})
