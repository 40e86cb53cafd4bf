"""The emulator as any HTTP client sees it."""

import asyncio
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from tests.emulator.plain import HEADERS, ISSUE, call, code
from tests.helpers import MERCHANT
from thanx_async.emulator import Emulator, Faults, JobSpeed

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
        ({"Authorization": "Bearer another"}, 401),
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
    del job["summary"]
    assert answer["issuance_job"] == job | {"state": "revoking"}
    await asyncio.sleep(1)
    _, answer = await call(http, "GET", path + merchant)
    assert answer["issuance_job"] == job | {"state": "revoked"}
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


@pytest.mark.realtime
async def test_accepted_work_has_not_begun(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """However fast the emulator and its jobs are, each 202 shows the state in which the work begins."""
    emulator.speed = JobSpeed(1e9, 0, 0)
    for key in map(str, range(20)):
        _, answer = await call(http, "POST", ISSUE, body=BODY, headers={"X-Idempotency-Key": key})
        job = answer["issuance_job"]
        assert isinstance(job, dict)
        assert (job["state"], job["processed_count"], job["completed_at"]) == ("pending", 0, None)
        path = f"/partner/issuance_jobs/{job['id']}"
        _, answer = await call(http, "GET", f"{path}?merchant_id={MERCHANT}")
        job = answer["issuance_job"]
        assert isinstance(job, dict)
        assert (job["state"], job["summary"]) == ("completed", {"success_count": 2, "failure_count": 0})
        _, answer = await call(http, "POST", f"{path}/revoke", body=f'{{"merchant_id": "{MERCHANT}"}}')
        job = answer["issuance_job"]
        assert isinstance(job, dict)
        assert job["state"] == "revoking"


async def test_unknown_fields_are_ignored(emulator: Emulator, http: aiohttp.ClientSession) -> None:
    """A client that sends more than the documentation names is not refused, wherever that stands."""
    more = BODY.replace('"campaign_id"', '"more": 1, "campaign_id"').replace('"type"', '"name": "J", "type"')
    status, answer = await call(http, "POST", ISSUE, body=more)
    assert status == 202
    assert len(emulator.reward_counts()) == 2
    job = answer["issuance_job"]
    assert isinstance(job, dict)
    emulator.advance(60)
    revocation = f'{{"merchant_id": "{MERCHANT}", "reason": "test"}}'
    assert (await call(http, "POST", f"/partner/issuance_jobs/{job['id']}/revoke", body=revocation))[0] == 202
    campaign = CAMPAIGN.replace('"name": "N"', '"name": "N", "goal": ""').replace('"A"', '"A", "size": 1')
    status, answer = await call(http, "POST", "/partner/campaigns", body=campaign)
    assert status == 200
    assert "goal" not in str(answer)


async def test_ids_are_not_used_again() -> None:
    """Another emulator has other ids, so that nobody takes its jobs or campaigns for earlier ones."""
    seen: list[object] = []
    for tag in (None, None, "x1", "x1"):
        async with (
            Emulator(id_tag=tag) as emulator,
            aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
        ):
            _, answer = await call(http, "POST", ISSUE, body=BODY)
            _, created = await call(http, "POST", "/partner/campaigns", body=CAMPAIGN)
        job, campaign = answer["issuance_job"], created["campaign"]
        assert isinstance(job, dict)
        assert isinstance(campaign, dict)
        ids = [job["id"], campaign["id"], *(row["id"] for row in campaign["variants"])]
        assert all(one.isalnum() and one == one.lower() for one in ids)
        seen += ids if tag is None else []
    assert len(set(seen)) == len(seen) == 10
    assert ids[:2] == ["jobx1000001", "campx10004"]


async def test_several_credentials(http: aiohttp.ClientSession) -> None:
    """Only they are accepted, each id with its own tokens, and each has rate limits of its own."""
    pairs = {("one", "t1"), ("one", "t2"), ("two", "t3")}
    async with (
        Emulator(credentials=pairs, limits=[(2, 60.0)]) as emulator,
        aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
    ):
        for client_id, token in [
            (name, token) for name in ("one", "two", "") for token in ("t1", "t2", "t3")
        ]:
            own = {"X-ClientId": client_id, "Authorization": f"Bearer {token}"}
            status, _ = await call(http, "GET", "/partner/scopes", headers=own)
            assert status == (200 if (client_id, token) in pairs else 401)
            if status == 200:
                seen = [(await call(http, "GET", "/partner/scopes", headers=own))[0] for _ in range(2)]
                assert seen == [200, 429]


async def test_what_other_processes_read() -> None:
    """Rewards and counts can be read without a credential, whatever the limits and the faults are."""
    async with (
        Emulator(limits=[(1, 900.0)], access_token="{access_token}") as emulator,
        aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
    ):
        await call(http, "POST", ISSUE, body=BODY)
        emulator.faults = Faults(html_502=1)
        async with aiohttp.ClientSession(emulator.url) as reader:
            assert await call(reader, "GET", "/emulator/rewards") == (
                200,
                {"jane.smith@example.com": 1, "+14155551234": 1},
            )
            assert await call(reader, "GET", "/emulator/statistics") == (200, emulator.statistics())
            assert (await call(reader, "POST", "/emulator/rewards"))[0] == 405
            assert (await call(reader, "GET", "/emulator/nothing"))[0] == 404
        assert len(emulator.requests) == 1


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
    assert template["discount"] == {"type": "amount", "value": 2}
    assert template["description"]
    assert template["fine_print"]
    assert set(template["images"]) == {"small", "large"}
    _, answer = await call(http, "GET", f"/partner/reward_templates{merchant}")
    templates = answer["reward_templates"]
    assert isinstance(templates, list)
    assert len(templates) == 3
    assert {**templates[1], "images": None} == {**template, "images": None}
    assert set(templates[1]["images"]) == {"default"}
    _, answer = await call(http, "GET", "/partner/merchants")
    assert answer == {"merchants": [{"id": MERCHANT, "name": "Seed Bakery", "handle": "seed-bakery"}]}
    assert await call(http, "GET", "/partner/scopes") == (200, {"scopes": ["rewards.issue"]})
    for path in ("/partner/campaigns/nope", f"/partner/reward_templates/nope{merchant}", "/nope"):
        assert (await call(http, "GET", path))[0] == 404
    for odd in ("page=0", "page=x", "per_page=101", "page=" + "9" * 5000):
        assert (await call(http, "GET", f"/partner/campaigns{merchant}&{odd}"))[0] == 400
    for path, allowed in (("/partner/merchants", {"GET", "HEAD"}), (ISSUE, {"GET", "HEAD", "POST"})):
        async with http.delete(path) as response:
            assert response.status == 405
            assert set(response.headers["Allow"].split(",")) == allowed
            assert code(await response.json()) == "METHOD_NOT_ALLOWED"


CAMPAIGN = """{"campaign": {
    "merchant_id": "k2lye10h32l5wzo", "name": "N", "objective": null, "variants": [
        {"name": "A", "reward_template_id": "tmpl001"}, {"name": "Control"},
        {"name": "B", "reward_template_id": "tmpl002"}
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
    assert campaign["redeemable_from"] == "2026-02-28T23:00:00Z"
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


async def test_only_active_campaigns_are_listed() -> None:
    """A campaign is in the list from its start to its end; alone it is always found."""
    start = datetime.now(UTC) + timedelta(days=1)
    body = CAMPAIGN.replace("2026-03-01T00:00:00Z", start.isoformat(), 1)
    body = body.replace("2026-03-09T00:00:00Z", (start + timedelta(days=8)).isoformat())
    listed = []
    async with (
        Emulator(limits=[], id_tag="") as emulator,
        aiohttp.ClientSession(emulator.url, headers=HEADERS) as http,
    ):
        created = await call(http, "POST", "/partner/campaigns", body=body)
        for _ in range(3):
            _, page = await call(http, "GET", f"/partner/campaigns?merchant_id={MERCHANT}")
            rows = page["campaigns"]
            assert isinstance(rows, list)
            listed.append([row["id"] for row in rows[3:]])
            assert await call(http, "GET", "/partner/campaigns/camp0004") == created
            emulator.advance(5 * 86_400)
    assert listed == [[], ["camp0004"], []]


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (CAMPAIGN, "{}", 400),
        ("k2lye10h32l5wzo", "other", 404),
        ('"name": "N"', '"name": 1', 400),
        ('"name": "N"', '"name": " "', 400),
        ('"objective": null', '"objective": 1', 400),
        ('{"name": "Control"}', ", ".join(['{"name": "Control"}'] * 3), 400),
        ('{"name": "Control"}', "{}", 400),
        (', "reward_template_id": "tmpl002"', "", 400),
        ('"tmpl002"', '["tmpl002"]', 422),
        ('{"name": "Control"}', '{"name": "Control", "reward_template_id": "tmpl001"}', 422),
        ("tmpl001", "tmpl999", 422),
        ('"2026-03-01T00:00:00Z"', '"soon"', 400),
        ('"2026-03-01T00:00:00Z"', "20260301", 400),
        ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00", 400),
        ("2026-03-01T00:00:00Z", "0001-01-01T00:00:00+09:00", 400),
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
