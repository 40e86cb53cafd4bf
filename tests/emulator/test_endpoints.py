"""The emulator as any HTTP client sees it."""

import asyncio

import aiohttp
import pytest

from tests.emulator.plain import HEADERS, ISSUE, call, code
from tests.helpers import MERCHANT
from thanx_async.emulator import Emulator, JobSpeed

BODY = """{
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
  }"""


async def test_the_documented_example(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Thanx's own example is accepted as it stands, and its repetition gives the same answer."""
    status, first = await call(http, "POST", ISSUE, body=BODY)
    assert status == 202
    job = first["issuance_job"]
    assert isinstance(job, dict)
    assert (job["state"], job["total_count"], job["campaign_id"]) == ("pending", 2, "camp_abc123")
    assert set(job) == {
        "id",
        "campaign_id",
        "variant_id",
        "state",
        "total_count",
        "processed_count",
        "success_count",
        "failure_count",
        "progress_percent",
        "created_at",
        "started_at",
        "completed_at",
    }
    await asyncio.sleep(1)
    assert await call(http, "POST", ISSUE, body=BODY) == (202, first)
    assert emulator.jobs_accepted == 1
    assert emulator.statistics() == {
        "requests": {"202": 2},
        "faults": {},
        "webhooks": {},
        "jobs": 1,
        "rewards": 2,
        "most_for_one_guest": 1,
    }


async def test_a_key_is_bound_to_its_body(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """Another body under the same key is a 422; without a key everything is issued anew."""
    await call(http, "POST", ISSUE, body=BODY)
    status, answer = await call(http, "POST", ISSUE, body=BODY + " ")
    assert (status, code(answer)) == (422, "UNPROCESSABLE_ENTITY")
    async with aiohttp.ClientSession(
        emulator.url, headers={name: text for name, text in HEADERS.items() if name != "X-Idempotency-Key"}
    ) as keyless:
        await call(keyless, "POST", ISSUE, body=BODY)
    assert emulator.reward_counts()["jane.smith@example.com"] == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Basic x"}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"X-ClientId": ""}, 401),
        ({"X-ClientId": "wrong"}, 401),
        ({"Accept-Version": "v3.0"}, 400),
        ({"Content-Type": "text/plain"}, 400),
        ({"User-Agent": ""}, 400),
    ],
)
async def test_headers_are_required(headers: dict[str, str], status: int) -> None:
    """Each documented header is checked."""
    async with (
        Emulator(client_id="{client_id}", access_token="{access_token}") as emulator,
        aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
    ):
        assert (await call(http, "POST", ISSUE, body=BODY))[0] == 202
        refused, answer = await call(http, "POST", ISSUE, body=BODY, headers=headers)
        assert refused == status
        assert code(answer)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "bearer  {access_token}"},
        {"Content-Type": "Application/JSON; charset=utf-8"},
        {"Accept": "*/*"},
        {"X-Extra": "1"},
    ],
)
async def test_headers_that_say_the_same(headers: dict[str, str]) -> None:
    """What HTTP leaves free is left free."""
    async with (
        Emulator(client_id="{client_id}", access_token="{access_token}") as emulator,
        aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
    ):
        assert (await call(http, "POST", ISSUE, body=BODY, headers=headers))[0] == 202


async def test_repetitions_at_the_same_time(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A key holds from the first moment: one job, one answer, and a refusal for another body."""
    bodies = [BODY] * 5 + [BODY + " "]
    answers = await asyncio.gather(*(call(http, "POST", ISSUE, body=text) for text in bodies))
    assert emulator.jobs_accepted == 1
    first = answers[0]
    assert [(status, answer == first[1]) for status, answer in answers] == [(202, True)] * 5 + [(422, False)]


async def test_a_blank_key_is_no_key(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A client that sends one is not protected, and the counts show it."""
    for _ in range(2):
        assert (await call(http, "POST", ISSUE, body=BODY, headers={"X-Idempotency-Key": ""}))[0] == 202
    assert emulator.statistics()["most_for_one_guest"] == 2


@pytest.mark.parametrize(
    ("old", "new", "status", "reason"),
    [
        ("{", "[", 400, "BAD_REQUEST"),
        (BODY, "[]", 400, "BAD_REQUEST"),
        ('"merchant_id"', '"merchant"', 400, "BAD_REQUEST"),
        ('"campaign_id"', '"more": 1, "campaign_id"', 400, "BAD_REQUEST"),
        ("k2lye10h32l5wzo", "other", 404, "RESOURCE_NOT_FOUND"),
        ("camp_abc123", "camp_other", 404, "RESOURCE_NOT_FOUND"),
        ("var_treat1", "var_other", 422, "UNPROCESSABLE_ENTITY"),
        ("jane.smith@example.com", "jane", 400, "USER_EMAIL_INVALID"),
        ("+14155551234", "4155551234", 400, "USER_PHONE_INVALID"),
        ('"type": "phone"', '"type": "fax"', 400, "BAD_REQUEST"),
        ('"value": "+14155551234"', '"value": 14155551234', 400, "BAD_REQUEST"),
        ('"type": "email"', '"type": ["email"]', 400, "BAD_REQUEST"),
        ("jane.smith@example.com", r"a@example.com\nb@example.com", 400, "USER_EMAIL_INVALID"),
        ('"camp_abc123"', "1", 400, "BAD_REQUEST"),
        ('"k2lye10h32l5wzo"', "null", 400, "BAD_REQUEST"),
        ('"identifiers": [', '"identifiers": "all"}', 400, "BAD_REQUEST"),
    ],
)
async def test_bodies_are_checked(
    emulator: Emulator, http: aiohttp.ClientSession, old: str, new: str, status: int, reason: str
) -> None:
    """What the reference page rules out is refused with the error envelope."""
    refused, answer = await call(http, "POST", ISSUE, body=BODY.replace(old, new, 1))
    assert (refused, code(answer)) == (status, reason)
    assert emulator.jobs_accepted == 0


@pytest.mark.parametrize("count", [0, 10_001])
async def test_batches_have_a_size(http: aiohttp.ClientSession, count: int) -> None:
    """No more than 10,000, and at least one."""
    guest = '{"type": "email", "value": "a@b.co"}'
    start, _, _ = BODY.partition("[")
    status, _ = await call(http, "POST", ISSUE, body=f"{start}[{','.join([guest] * count)}]}}")
    assert status == 400


async def test_a_job_runs_and_is_revoked(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A job goes from pending over processing to completed, and its rewards can be taken back then."""
    _, answer = await call(http, "POST", ISSUE, body=BODY.replace("jane", "unknown"))
    job = answer["issuance_job"]
    assert isinstance(job, dict)
    path, merchant = f"/partner/issuance_jobs/{job['id']}", f"?merchant_id={MERCHANT}"
    revocation = f'{{"merchant_id": "{MERCHANT}"}}'
    status, answer = await call(http, "POST", f"{path}/revoke", body=revocation)
    assert (status, code(answer)) == (422, "UNPROCESSABLE_ENTITY")
    await asyncio.sleep(1)
    _, answer = await call(http, "GET", path + merchant)
    job = answer["issuance_job"]
    assert isinstance(job, dict)
    assert (job["state"], job["progress_percent"], job["completed_at"] is not None) == (
        "completed",
        100,
        True,
    )
    assert job["summary"] == {
        "success_count": 1,
        "failure_count": 1,
        "failures": [{"identifier_index": 0, "identifier_type": "email", "error": "User not found"}],
    }
    status, answer = await call(http, "POST", f"{path}/revoke", body=revocation)
    assert status == 202
    await asyncio.sleep(1)
    _, answer = await call(http, "GET", path + merchant)
    job = answer["issuance_job"]
    assert isinstance(job, dict)
    assert job["state"] == "revoked"
    assert emulator.reward_counts() == {}
    status, answer = await call(http, "POST", f"{path}/revoke", body=revocation)
    assert (status, code(answer)) == (422, "UNPROCESSABLE_ENTITY")
    for odd in (path + "?merchant_id=other", "/partner/issuance_jobs/nope" + merchant):
        assert (await call(http, "GET", odd))[0] == 404
    assert (await call(http, "GET", path))[0] == 400
    assert (await call(http, "POST", f"{path}/revoke", body="{}"))[0] == 400


async def test_the_first_answer_is_pending(http: aiohttp.ClientSession) -> None:
    """However fast jobs are, the 202 shows one that has not started."""
    async with (
        Emulator(limits=[], speed=JobSpeed(1e9, 0, 0)) as fast,
        aiohttp.ClientSession(fast.url, headers=HEADERS) as session,
    ):
        _, answer = await call(session, "POST", ISSUE, body=BODY)
        job = answer["issuance_job"]
        assert isinstance(job, dict)
        assert (job["state"], job["processed_count"], job["started_at"]) == ("pending", 0, None)
        await asyncio.sleep(0.001)
        _, answer = await call(session, "GET", f"/partner/issuance_jobs/{job['id']}?merchant_id={MERCHANT}")
        job = answer["issuance_job"]
        assert isinstance(job, dict)
        assert (job["state"], job["processed_count"]) == ("completed", 2)


async def test_campaigns_templates_merchants_scopes(http: aiohttp.ClientSession) -> None:
    """The endpoints around issuing answer with pages, single objects and lists."""
    merchant = f"?merchant_id={MERCHANT}"
    status, answer = await call(http, "GET", f"/partner/campaigns{merchant}&per_page=2&page=2")
    assert status == 200
    assert answer["pagination"] == {"current_page": 2, "per_page": 2, "total_pages": 2}
    _, answer = await call(http, "GET", f"/partner/reward_templates/tmpl002{merchant}")
    template = answer["reward_template"]
    assert isinstance(template, dict)
    assert template["name"] == "Treat 2"
    _, answer = await call(http, "GET", f"/partner/reward_templates{merchant}")
    templates = answer["reward_templates"]
    assert isinstance(templates, list)
    assert len(templates) == 3
    _, answer = await call(http, "GET", "/partner/merchants")
    assert answer == {"merchants": [{"id": MERCHANT, "name": "Seed Bakery", "handle": "seed-bakery"}]}
    assert await call(http, "GET", "/partner/scopes") == (200, {"scopes": ["rewards.issue"]})
    for path in ("/partner/campaigns/nope", f"/partner/reward_templates/nope{merchant}", "/nope"):
        assert (await call(http, "GET", path))[0] == 404
    for odd in ("page=0", "page=x", "per_page=101", "page=" + "9" * 5000):
        assert (await call(http, "GET", f"/partner/campaigns{merchant}&{odd}"))[0] == 400
    assert (await call(http, "DELETE", "/partner/merchants"))[0] == 405


CAMPAIGN = """{"campaign": {
    "merchant_id": "k2lye10h32l5wzo", "name": "N", "objective": null, "variants": [
        {"name": "A", "reward_template_id": "tmpl001"}, {"name": "Control"}, {"name": "B"}
    ],
    "start_at": "2026-03-01T00:00:00Z", "end_at": "2026-03-09T00:00:00Z",
    "redeemable_from": "2026-03-01T00:00:00+01:00", "redeemable_to": "2026-04-01T00:00:00Z"
}}"""


async def test_a_campaign_is_created(http: aiohttp.ClientSession) -> None:
    """It is found again, and rewards can be issued from its variants."""
    status, answer = await call(http, "POST", "/partner/campaigns", body=CAMPAIGN)
    assert status == 200
    campaign = answer["campaign"]
    assert isinstance(campaign, dict)
    assert (await call(http, "GET", f"/partner/campaigns/{campaign['id']}"))[1] == answer
    body = BODY.replace("camp_abc123", campaign["id"])
    for variant in campaign["variants"]:
        issued = await call(
            http,
            "POST",
            ISSUE,
            body=body.replace("var_treat1", variant["id"]),
            headers={"X-Idempotency-Key": variant["id"]},
        )
        assert issued[0] == 202


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (CAMPAIGN, "{}", 400),
        ("k2lye10h32l5wzo", "other", 404),
        ('"name": "N"', '"name": 1', 400),
        ('"name": "N"', '"name": " "', 400),
        ('"objective": null', '"objective": 1', 400),
        ('"objective": null', '"goal": ""', 400),
        ('{"name": "B"}', '{"name": "B"}, {"name": "C"}, {"name": "D"}', 400),
        ('{"name": "B"}', "{}", 400),
        ('{"name": "Control"}', '{"name": "Control", "reward_template_id": "tmpl001"}', 422),
        ("tmpl001", "tmpl999", 422),
        ('"2026-03-01T00:00:00Z"', '"soon"', 400),
        ('"2026-03-01T00:00:00Z"', "20260301", 400),
        ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00", 400),
        ("2026-03-09", "2026-02-09", 422),
        ("2026-04-01", "2026-02-01", 422),
    ],
)
async def test_campaigns_are_checked(http: aiohttp.ClientSession, old: str, new: str, status: int) -> None:
    """What the documentation rules out is not created."""
    refused, answer = await call(http, "POST", "/partner/campaigns", body=CAMPAIGN.replace(old, new, 1))
    assert refused == status
    assert code(answer)
    _, answer = await call(http, "GET", f"/partner/campaigns?merchant_id={MERCHANT}")
    campaigns = answer["campaigns"]
    assert isinstance(campaigns, list)
    assert len(campaigns) == 3


async def test_without_the_scope_only_merchants_and_scopes() -> None:
    """``rewards.issue`` is needed for everything that touches rewards."""
    async with (
        Emulator(scopes=frozenset()) as emulator,
        aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
    ):
        status, answer = await call(http, "POST", ISSUE, body=BODY)
        assert (status, code(answer)) == (403, "FORBIDDEN")
        assert (await call(http, "GET", "/partner/scopes"))[1] == {"scopes": []}


async def test_too_many_requests_are_refused() -> None:
    """All endpoints count, and the answer is the documented 429."""
    async with (
        Emulator() as emulator,
        aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
    ):
        answers = [await call(http, "GET", "/partner/scopes") for _ in range(6)]
    assert [status for status, _ in answers] == [200] * 5 + [429]
    assert code(answers[5][1]) == "TOO_MANY_REQUESTS"
    assert emulator.refused == 1
    assert "6 requests, 1 refused" in repr(emulator)
