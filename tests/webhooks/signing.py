"""Requests as Thanx sends them."""

import hashlib
import hmac

import orjson

from tests.conftest import MERCHANT

SECRET = "whsec-s3cret"


def sign(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def completed(job_id: str, **data: object) -> bytes:
    return _event(
        "reward_batch.completed",
        {
            "issuance_job_id": job_id,
            "state": "completed",
            "total_count": 2,
            "issued_count": 1,
            "failed_count": 1,
        }
        | {"failures": [{"user_identifier": "jane@example.com", "reason": "User not found"}]}
        | data,
    )


def issued(job_id: str, index: int, **data: object) -> bytes:
    return _event(
        "reward.issued",
        {"issuance_job_id": job_id, "reward_id": "rew1", "user_id": "usr1", "state": "active"}
        | {"identifier": {"type": "email", "index": index}, "expires_at": "2026-12-31T00:00:00Z"}
        | {"campaign": {"id": "camp_abc123", "variant": {"id": "var_treat1"}}}
        | data,
    )


def _event(name: str, data: dict[str, object]) -> bytes:
    stamped = {"event": name, "timestamp": "2026-11-24T06:00:00Z", "data": {"merchant_id": MERCHANT} | data}
    return orjson.dumps(stamped)
