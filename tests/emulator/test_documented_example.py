"""Thanx's own example, as its reference page has it, against the emulator."""

import asyncio
import json
import shutil
import subprocess

import pytest

from thanx_async.emulator import Emulator

pytestmark = pytest.mark.realtime
SANDBOX = "https://api.thanxsandbox.com"
CURL = """curl https://api.thanxsandbox.com/partner/campaigns/issue \\
  -X POST \\
  -H 'X-ClientId: {client_id}' \\
  -H 'Accept-Version: v4.0' \\
  -H 'Content-Type: application/json' \\
  -H 'Authorization: Bearer {access_token}' \\
  -H 'X-Idempotency-Key: 550e8400-e29b-41d4-a716-446655440000' \\
  -d '{
    "campaign_id": "camp_abc123",
    "merchant_id": "k2lye10h32l5wzo",
    "variant_id": "var_treat1",
    "identifiers": [
      {
        "type": "email",
        "value": "jane.smith@example.com"
      },
      {
        "type": "phone",
        "value": "+14155551234"
      }
    ]
  }'"""
BODY = CURL.partition("-d '")[2].removesuffix("'")


def check(job: dict[str, object]) -> None:
    documented = {
        "campaign_id": "camp_abc123",
        "variant_id": "var_treat1",
        "state": "pending",
        "total_count": 2,
        "processed_count": 0,
        "success_count": 0,
        "failure_count": 0,
        "progress_percent": 0,
        "started_at": None,
        "completed_at": None,
    }
    assert set(job) == {*documented, "id", "created_at"}
    assert job | documented == job
    assert str(job["created_at"]).endswith("Z")
    assert len(str(job["created_at"])) == len("2025-06-15T10:30:00Z")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_with_curl() -> None:
    """The command works as it stands, against another host; repeated, it issues nothing more."""
    async with Emulator(client_id="{client_id}", access_token="{access_token}") as emulator:
        command = ["sh", "-c", CURL.replace(SANDBOX, emulator.url)]
        answers = [
            await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
            for _ in range(2)
        ]
        assert answers[0].stdout == answers[1].stdout
        check(json.loads(answers[0].stdout)["issuance_job"])
        assert set(emulator.reward_counts().values()) == {1}


async def test_with_the_bytes_that_curl_sends() -> None:
    """Nothing is asked for beyond the documented headers and curl's own."""
    async with Emulator() as emulator:
        host = emulator.url.removeprefix("http://")
        given = [line.split("'")[1] for line in CURL.splitlines() if line.startswith("  -H")]
        own = [f"Host: {host}", "User-Agent: curl/8.5.0", "Accept: */*", "Connection: close"]
        head = ["POST /partner/campaigns/issue HTTP/1.1", *own, *given, f"Content-Length: {len(BODY)}"]
        name, _, port = host.partition(":")
        reader, writer = await asyncio.open_connection(name, int(port))
        writer.write("\r\n".join([*head, "", BODY]).encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 202 ")
    assert b"Content-Type: application/json" in top
    check(json.loads(body)["issuance_job"])
