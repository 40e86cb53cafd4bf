import contextlib

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanx_async import (
    APIError,
    InvalidResponseError,
    IssuanceFailure,
    JobSummary,
    RateLimitedError,
    errors,
)
from thanx_async._batches import batch_key
from thanx_async.http import _wire as wire
from thanx_async.http._wire import Answer, decode, decode_job

JSON = {"Content-Type": "application/json"}
JOB = {"id": "job1", "state": "pending"}


def answer(status: int, payload: object) -> Answer:
    return Answer(status, JSON, orjson.dumps(payload))


def test_the_body_is_the_documented_one() -> None:
    """The bytes of a request are JSON of the documented shape, in the given order."""
    body = wire.issue_body('c"1', "m", "v", ["jane@x.com", "+14155551234"])
    assert orjson.loads(bytes(body)) == {
        "campaign_id": 'c"1',
        "merchant_id": "m",
        "variant_id": "v",
        "identifiers": [{"type": "email", "value": "jane@x.com"}, {"type": "phone", "value": "+14155551234"}],
    }


VALUES = st.sampled_from(["a@x.com", "+a@x.com", "+14155551234", "'{}&`@x.com", "x=@y.io"])


@given(st.lists(VALUES, max_size=8), st.integers(1, 1_500))
def test_the_body_is_what_a_serializer_writes(values: list[str], repeats: int) -> None:
    """Any mixture of values, of any length, has the bytes of an ordinary serializer."""
    values = values * repeats
    assert wire.issue_body("c", "m", "v", values) == orjson.dumps(
        {
            "campaign_id": "c",
            "merchant_id": "m",
            "variant_id": "v",
            "identifiers": [
                {"type": "email" if "@" in value else "phone", "value": value} for value in values
            ],
        }
    )


def test_keys_follow_from_run_and_number() -> None:
    """A batch's key repeats for its run and number, and for no other."""
    assert batch_key("run", 1) == batch_key("run", 1)
    assert len({batch_key(run, number) for run in ("a", "b") for number in range(3)}) == 6


def test_job_ids_stay_within_their_path_segment() -> None:
    """An id with a slash cannot reach another endpoint."""
    assert wire.get_issuance_job("../x", "m").path == "/partner/issuance_jobs/..%2Fx"


def test_unknown_fields_and_states_are_tolerated() -> None:
    """What Thanx may add does not break decoding; null counts are 0."""
    row = {
        **JOB,
        "state": "napping",
        "new": [1],
        "processed_count": None,
        "created_at": "2025-06-15T10:30:00",
    }
    job = decode(answer(200, {"issuance_job": row, "more": 1}), decode_job)
    assert (job.state, job.processed_count, job.is_finished) == ("napping", 0, False)
    assert job.created_at is not None
    assert job.created_at.utcoffset() is not None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequestError),
        (401, errors.AuthenticationError),
        (403, errors.PermissionDeniedError),
        (404, errors.NotFoundError),
        (409, APIError),
        (413, APIError),
        (418, APIError),
        (422, errors.UnprocessableError),
        (429, RateLimitedError),
        (500, errors.ServerError),
        (503, errors.ServerError),
        (799, errors.ServerError),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[APIError]) -> None:
    """The class follows from the status, whatever the body is; the envelope has code and message."""
    with pytest.raises(APIError) as caught:
        decode(answer(status, {"error": {"code": "NEW_CODE", "message": "because"}}), decode_job)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (status, "NEW_CODE")
    assert caught.value.message.startswith("because")
    for body in (
        b"",
        b"<html>",
        b'{"error": "invalid_token"}',
        b'{"status": 404, "error": "Not Found"}',
        b"[[[",
    ):
        with pytest.raises(APIError) as caught:
            decode(Answer(status, {}, body), decode_job)
        assert (type(caught.value), caught.value.code) == (kind, None)
        assert f"with {len(body)} bytes" in str(caught.value) or not body


def test_a_body_that_is_too_large_names_what_to_change() -> None:
    """A 413 points at the batch size, after whatever the server says; no other status does."""
    for body, words in (
        (b"", "an empty body"),
        (b'{"error": {"message": "limit is 1 MB"}}', "limit is 1 MB"),
    ):
        with pytest.raises(APIError, match=f"{words}; a smaller batch_size makes smaller requests$"):
            decode(Answer(413, {}, body), decode_job)
    with pytest.raises(APIError) as caught:
        decode(Answer(400, {}, b""), decode_job)
    assert "batch_size" not in str(caught.value)


PROOFS = {400, 401, 403, 404, 413, 415, 422, 429}


@pytest.mark.parametrize("status", range(300, 600))
def test_only_a_proof_ends_the_doubt(status: int) -> None:
    """Whatever does not prove that nothing was issued leaves the request in doubt."""
    with pytest.raises(errors.ThanxError) as caught:
        decode(answer(status, {"error": {"code": "X", "message": "Y"}}), decode_job)
    assert caught.value.in_doubt == (status not in PROOFS)


def test_what_an_answer_says_beside_its_body() -> None:
    """The wait that is asked for and the id of the request are told; what is neither is not."""
    headers = {"Retry-After": "7", "X-Request-Id": "abc"}
    with pytest.raises(APIError) as caught:
        decode(Answer(503, headers, b""), decode_job)
    assert (caught.value.retry_after, caught.value.request_id) == (7.0, "abc")
    with pytest.raises(APIError) as caught:
        decode(Answer(503, {"Retry-After": "soon", "X-Request-Id": "\x1b[2J"}, b""), decode_job)
    assert (caught.value.retry_after, caught.value.request_id) == (None, None)


def test_a_reused_key_is_recognised() -> None:
    """A 422 that speaks of idempotency is a conflict."""
    envelope = {"error": {"code": "X", "message": "Idempotency key reused"}}
    with pytest.raises(errors.IdempotencyConflictError):
        decode(answer(422, envelope), decode_job)


def test_an_envelope_without_code_or_message() -> None:
    """A poor envelope still gives the right class and a text."""
    with pytest.raises(errors.NotFoundError) as caught:
        decode(answer(404, {"error": {}}), decode_job)
    assert (caught.value.code, caught.value.message) == (None, "Not Found, with 12 bytes of application/json")


def test_guests_are_masked_in_messages() -> None:
    """What looks like a guest never shows in an error."""
    text = "jane@x.com, 'o'brien@x.com' and +1 415 555 1234 are wrong"
    with pytest.raises(APIError) as caught:
        decode(answer(400, {"error": {"code": "jane@x.com", "message": text}}), decode_job)
    assert "jane" not in str(caught.value) + repr(caught.value)
    assert "555" not in str(caught.value)
    assert "brien" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "headers", "phrase", "in_doubt"),
    [
        (202, b"", {}, "an empty body", True),
        (202, b'{"issuance_job": {"id"', JSON, "application/json", True),
        (200, b"[]", JSON, "unexpected shape", True),
        (200, b"{}", JSON, "unexpected shape", True),
        (200, b'{"issuance_job": {"id": 7, "state": "x"}}', JSON, "unexpected shape", True),
        (202, b'{"issuance_job": {"id": "", "state": "x"}}', JSON, "unexpected shape", True),
        (200, b"<html>jane@x.com</html>", {"Content-Type": "text/html; charset=x"}, "of text/html", True),
        (301, b"", {}, "redirects are not followed", True),
        (303, b'{"issuance_job": {"id": "7", "state": "x"}}', JSON, "redirects are not followed", True),
    ],
)
def test_other_answers(
    status: int, body: bytes, headers: dict[str, str], phrase: str, in_doubt: bool
) -> None:
    """An answer that is not Thanx's says what it was; its bytes stay out of the message."""
    with pytest.raises(InvalidResponseError) as caught:
        decode(Answer(status, headers, body), decode_job)
    assert phrase in str(caught.value)
    assert (caught.value.status, caught.value.body_start) == (status, body)
    assert "jane" not in str(caught.value)
    assert caught.value.in_doubt is in_doubt


def test_null_for_a_list_or_a_count_is_none_of_it() -> None:
    """A job that nobody failed in may say null where others have a list or a number."""
    summary = {"success_count": 2, "failure_count": None, "failures": None}
    body = {"issuance_job": {"id": "j", "state": "completed", "failure_count": None, "summary": summary}}
    job = decode(answer(200, body), decode_job)
    assert job.failure_count == 0
    assert job.summary == JobSummary(success_count=2, failure_count=0, failures=())


def finished(failures: object) -> Answer:
    """A completed job of three guests with these failures."""
    summary = {"success_count": 1, "failure_count": 2, "failures": failures}
    return answer(200, {"issuance_job": {"id": "j", "state": "completed", "summary": summary}})


def test_failures_share_their_texts() -> None:
    """Thousands of guests who failed for one reason hold its text once."""
    rows = [{"identifier_index": index, "identifier_type": "email", "error": "No user"} for index in (0, 2)]
    summary = decode(finished(rows), decode_job).summary
    assert summary is not None
    first, second = summary.failures
    assert (first, second) == (IssuanceFailure(0, "email", "No user"), IssuanceFailure(2, "email", "No user"))
    assert first.error is second.error
    assert first.identifier_type is second.identifier_type


def test_guests_are_masked_in_reasons() -> None:
    """A reason that names the guest is kept without."""
    row = {"identifier_index": 0, "identifier_type": "email", "error": "jane@x.com is unknown"}
    summary = decode(finished([row]), decode_job).summary
    assert summary is not None
    assert [failure.error for failure in summary.failures] == ["[masked] is unknown"]


@pytest.mark.parametrize(
    "changes",
    [
        {"total_count": "2"},
        {"created_at": "2025-06-15 10:30:00 UTC"},
        {"created_at": 7, "started_at": [], "completed_at": "soon"},
        {"progress_percent": "half", "campaign_id": 5, "variant_id": {}},
        {"summary": 7},
        {"summary": {"success_count": "2"}},
    ],
)
def test_a_field_of_another_shape_is_left_out(changes: dict[str, object]) -> None:
    """A job that was accepted is known by its id and state, whatever else the answer holds."""
    job = decode(answer(202, {"issuance_job": {**JOB, **changes}}), decode_job)
    assert (job.id, job.state) == (JOB["id"], JOB["state"])
    plain = decode(answer(202, {"issuance_job": {**JOB, **dict.fromkeys(changes)}}), decode_job)
    assert job == plain


@pytest.mark.parametrize(
    ("failures", "read"),
    [
        ({}, None),
        ("none", None),
        ([None], []),
        (["identifier_index"], []),
        ([{"identifier_index": None, "identifier_type": "email", "error": "No user"}], []),
        ([{"identifier_index": True, "identifier_type": "email", "error": "No user"}], []),
        ([{"identifier_index": 1.5, "identifier_type": "email", "error": "No user"}], []),
        ([{"identifier_index": 0, "identifier_type": "email"}], [(0, "email", "no reason given")]),
        ([{"identifier_index": 0, "identifier_type": 7, "error": "No user"}], [(0, "", "No user")]),
        ([{"identifier_index": 0, "error": None}], [(0, "", "no reason given")]),
    ],
)
def test_a_failure_is_put_down_to_a_guest_whom_thanx_named(
    failures: object, read: list[tuple[int, str, str]] | None
) -> None:
    """A row without a place is left out, by which the counts do not match; nothing else is made of it."""
    summary = decode(finished(failures), decode_job).summary
    assert summary is not None
    assert list(map(attrs.astuple, summary.failures)) == (read or [])


def test_an_answer_about_another_job() -> None:
    """A proxy that mixes answers up does not settle a job with the numbers of another one."""
    with pytest.raises(InvalidResponseError, match="another job than was asked for"):
        decode(answer(200, {"issuance_job": JOB}), wire.decoder_of_job("other"))
    assert decode(answer(200, {"issuance_job": JOB}), wire.decoder_of_job(str(JOB["id"]))).id == JOB["id"]


def test_a_proxys_refusal_is_a_refusal() -> None:
    """A 429 is one whatever its body is."""
    with pytest.raises(RateLimitedError):
        decode(Answer(429, {}, b"<html>"), decode_job)


@given(
    st.integers(200, 599),
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["issuance_job", "error", "id", "state", "summary", "code"]), inner
            )
        ),
        max_leaves=8,
    ).map(lambda value: orjson.dumps(value)),
)
def test_no_answer_breaks_the_decoder(status: int, body: bytes) -> None:
    """Whatever comes back ends in a model or in an error of ours."""
    with contextlib.suppress(errors.ThanxError):
        assert decode(Answer(status, JSON, body), decode_job).id is not None


def test_reprs_hold_no_bodies() -> None:
    """Requests and answers show sizes, not contents."""
    shown = repr(wire.issue_rewards(b"jane@x.com", "key")) + repr(Answer(200, {}, b"jane@x.com"))
    assert "jane" not in shown
