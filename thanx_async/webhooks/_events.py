"""Verify that a webhook request comes from Thanx, and parse its event. No I/O.

Source: docs.thanx.com, webhooks.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from datetime import datetime

import attrs
import orjson

from thanx_async._batches import EndedJob
from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, SignatureError, WebhookError
from thanx_async._decoding import MISFITS, enveloped
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
    """``reward_batch.completed``: a job has ended. ``state`` is completed or failed; ``merchant_id`` is None
    where Thanx leaves it out."""

    issuance_job_id: str
    state: str
    merchant_id: str | None = attrs.field(default=None, kw_only=True)
    total_count: int = 0
    issued_count: int = 0
    failed_count: int = 0
    failures: tuple[EventFailure, ...] = attrs.field(default=(), repr=counted)
    timestamp: datetime | None = None

    def without_guests(self) -> EndedJob:
        """What may be stored of the event: nothing about any guest."""
        return EndedJob(
            self.issuance_job_id,
            self.state,
            self.merchant_id,
            self.total_count,
            self.issued_count,
            self.failed_count,
            self.timestamp,
        )


@attrs.frozen
class UnknownEvent:
    """Any other event, such as a purchase. ``payload`` is the complete event, as Thanx sends it."""

    name: str
    payload: dict[str, object] = attrs.field(repr=counted)


Event = RewardIssued | RewardBatchCompleted | UnknownEvent

Secret = str | bytes | Sequence[str | bytes]
"""A webhook secret, or several of them."""

_KINDS: dict[str, type[RewardIssued | RewardBatchCompleted]] = {
    "reward.issued": RewardIssued,
    "reward_batch.completed": RewardBatchCompleted,
}


def verify(body: bytes, signature: str | None, secret: Secret) -> Event:
    """Verify the signature of a webhook request, and parse its event.

    Args:
        body: the raw bytes of the request, exactly as received; at most 5 MB.
        signature: the header ``X-Thanx-Signature``, or None if it is missing.
        secret: the webhook secret from Thanx, or several of them, each of which is accepted: while a secret
            is being replaced, events come with the old and with the new one.

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
    given = _given(signature)
    fits = [hmac.compare_digest(hmac.digest(key, body, hashlib.sha256), given) for key in _keys(secret)]
    if not any(fits):
        raise SignatureError(f"{SIGNATURE} does not match the body and the secret")
    return _parsed(body)


def check_secret(value: object) -> None:
    """Check the secret, or the secrets, that webhooks are signed with."""
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    secrets = list(value) if isinstance(value, Iterable) and several else [value]
    if not secrets:
        raise ConfigurationError("the webhook secret is empty", argument="secret")
    for secret in secrets:
        if not isinstance(secret, str | bytes):
            raise ConfigurationError(
                f"the webhook secret must be text or bytes, not {type(secret).__name__}", argument="secret"
            )
        if not secret:
            raise ConfigurationError("the webhook secret is empty", argument="secret")
        if isinstance(secret, str):
            checks.text("secret", secret)


def _keys(secret: Secret) -> list[bytes]:
    secrets = [secret] if isinstance(secret, str | bytes) else secret
    return [key.encode() if isinstance(key, str) else key for key in secrets]


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
    if not isinstance(payload, dict):
        raise WebhookError('the body is not an object with an "event"')
    name = payload.get("event")
    if "event" not in payload and len(payload) == 1:
        (name,) = payload  # as Thanx sends events about purchases and the like
    if not isinstance(name, str):
        raise WebhookError('the body is not an object with an "event"')
    kind = _KINDS.get(name)
    if kind is None or "event" not in payload:
        return UnknownEvent(name, payload)
    try:
        data = {**payload["data"], "timestamp": payload.get("timestamp")}
        given = {name: value for name, value in data.items() if value is not None}
        return enveloped(kind, "data")({"data": given})
    except MISFITS as error:
        # The cause is left out: it would repeat the payload in the traceback.
        raise WebhookError(f"{name} has an unexpected shape ({type(error).__name__})") from None
