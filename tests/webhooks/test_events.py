from collections.abc import Callable
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import MERCHANT, SECRET, completed, issued, sign
from thanx_async import ConfigurationError, SignatureError, WebhookError
from thanx_async.webhooks import RewardBatchCompleted, RewardIssued, UnknownEvent, verify


def test_a_completed_batch() -> None:
    """The event has Thanx's names, and tolerates fields that are new."""
    body = completed("job1", brand_new={"a": 1})
    event = verify(body, sign(body), SECRET)
    assert isinstance(event, RewardBatchCompleted)
    assert (event.issuance_job_id, event.merchant_id, event.state) == ("job1", MERCHANT, "completed")
    assert (event.total_count, event.issued_count, event.failed_count) == (2, 1, 1)
    assert [(row.user_identifier, row.reason) for row in event.failures] == [
        ("jane@example.com", "User not found")
    ]
    assert event.timestamp == datetime(2026, 11, 24, 6, tzinfo=UTC)


def test_an_issued_reward() -> None:
    """One guest, named by the index within the job's request."""
    body = issued("job1", 7)
    event = verify(body, sign(body), SECRET)
    assert isinstance(event, RewardIssued)
    assert (event.issuance_job_id, event.identifier.index, event.reward_id) == ("job1", 7, "rew1")
    assert event.expires_at == datetime(2026, 12, 31, tzinfo=UTC)


def test_null_is_as_good_as_missing() -> None:
    """What Thanx leaves empty has no value, in particular no index 0."""
    body = completed("job1", failures=None, issued_count=None)
    event = verify(body, sign(body), SECRET)
    assert isinstance(event, RewardBatchCompleted)
    assert (event.failures, event.issued_count) == ((), 0)
    body = issued("job1", 0, identifier={"type": None, "index": None})
    event = verify(body, sign(body), SECRET)
    assert isinstance(event, RewardIssued)
    assert event.identifier.index is None


def test_other_events_pass() -> None:
    """Purchases and whatever else comes to the same URL are told as they are."""
    body = b'{"event": "purchase.created", "data": {"email": "jane@example.com"}}'
    event = verify(body, sign(body), SECRET.encode())
    assert isinstance(event, UnknownEvent)
    assert event.name == "purchase.created"
    assert event.payload["data"] == {"email": "jane@example.com"}
    assert "jane" not in repr(event)


def test_no_guest_in_a_repr() -> None:
    """Events can be logged."""
    for body in (completed("job1"), issued("job1", 0, user_id="jane@example.com")):
        assert "jane" not in repr(verify(body, sign(body), SECRET))


BODY = completed("job1")


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "",
        "x",
        "é" * 64,
        sign(BODY)[:-1],
        sign(BODY) + "00",
        " ".join((sign(BODY)[:32], sign(BODY)[32:])),
        sign(BODY, "other"),
        sign(BODY + b" "),
    ],
)
def test_wrong_signatures(signature: str | None) -> None:
    """Missing, malformed and false signatures are all refused, and no message holds the secret."""
    with pytest.raises(SignatureError, match="X-Thanx-Signature") as caught:
        verify(BODY, signature, SECRET)
    assert SECRET not in str(caught.value)
    assert sign(BODY) not in str(caught.value)


@pytest.mark.parametrize("odd", [{"failures": "jane"}, {"failures": [7]}, {"failed_count": "many"}])
def test_a_field_that_nobody_needs_does_not_cost_the_event(odd: dict[str, object]) -> None:
    """What does not fit is left out, and only that."""
    body = completed("job1", **{"issued_count": 7, **odd})
    event = verify(body, sign(body), SECRET)
    assert isinstance(event, RewardBatchCompleted)
    assert (event.issuance_job_id, event.issued_count, event.total_count) == ("job1", 7, 2)
    assert len(event.failures) == ("failures" not in odd)
    body = issued("job1", 3, expires_at="soon", reward_id="r1")
    event = verify(body, sign(body), SECRET)
    assert isinstance(event, RewardIssued)
    assert (event.identifier.index, event.reward_id, event.expires_at) == (3, "r1", None)


def test_upper_case_digits_are_hexadecimal_too() -> None:
    """The case of the signature says nothing."""
    assert verify(BODY, sign(BODY).upper(), SECRET) == verify(BODY, sign(BODY), SECRET)


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        (b"", "not JSON"),
        (b"jane@example.com", "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b"[]", "not an object"),
        (b'{"event": 7}', "not an object"),
        (b'{"event": "reward.issued"}', "unexpected shape"),
        (b'{"event": "reward.issued", "data": []}', "unexpected shape"),
        (completed("job1", state=7), "unexpected shape"),
        (issued("job1", 0, identifier=None), "unexpected shape"),
        (b" " * (5 * 2**20 + 1), "more than 5,242,880 bytes"),
    ],
    ids=range(10),
)
def test_bodies_that_are_no_events(body: bytes, phrase: str) -> None:
    """A signed body that is wrong gets an error that says how, without repeating it."""
    with pytest.raises(WebhookError, match=phrase) as caught:
        verify(body, sign(body), SECRET)
    assert not isinstance(caught.value, SignatureError)
    assert "jane" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_wrong_use() -> None:
    """Text instead of bytes would not fit the signature, and an empty secret is a mistake."""
    with pytest.raises(ConfigurationError, match="raw bytes"):
        verify("{}", "", SECRET)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigurationError, match="secret is empty"):
        verify(b"{}", "", "")


@given(st.binary(max_size=100), st.one_of(st.none(), st.text(max_size=70)))
def test_nothing_unsigned_passes(body: bytes, signature: str | None) -> None:
    """Whatever comes without the secret is a SignatureError and nothing else."""
    with pytest.raises(SignatureError):
        verify(body, signature, SECRET)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
EVENTS: dict[str, Callable[[dict[str, object]], bytes]] = {
    "completed": lambda data: _replaced(completed("job1"), data),
    "issued": lambda data: _replaced(issued("job1", 0), data),
}
NAMES = ["issuance_job_id", "identifier", "state", "failures", "total_count", "expires_at"]


def _replaced(body: bytes, data: dict[str, object]) -> bytes:
    event = orjson.loads(body)
    event["data"] |= data
    return orjson.dumps(event)


@given(st.sampled_from(["completed", "issued"]), st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_signed_shape_is_an_event_or_an_error(kind: str, data: dict[str, object]) -> None:
    """A signed body of any shape never surfaces as anything else."""
    fields = {"issuance_job_id": "job1"} | data
    body = EVENTS[kind](fields)
    try:
        event = verify(body, sign(body), SECRET)
    except WebhookError:
        return
    assert isinstance(event, RewardIssued | RewardBatchCompleted)
