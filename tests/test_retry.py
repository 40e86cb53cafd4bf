import re
from math import inf

import pytest

from tests.helpers import README
from thanx_async import ConfigurationError, RetryPolicy, errors, retry

BROKEN = errors.ConnectionFailedError("x")


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (BROKEN, True),
        (errors.RequestTimeoutError("x"), True),
        (errors.ServerError(503, None, "x"), True),
        *((errors.APIError(status, None, "x"), True) for status in (408, 409, 421, 425, 499)),
        *((errors.APIError(status, None, "x"), False) for status in (402, 413, 415, 418)),
        (errors.InvalidResponseError("x", status=202, body_start=b""), True),
        (errors.InvalidResponseError("x", status=302, body_start=b""), False),
        (errors.BadRequestError(400, None, "x"), False),
        (errors.AuthenticationError(401, None, "x"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: errors.ThanxError, again: bool) -> None:
    """Broken connections and server errors are worth another attempt, refusals are not."""
    assert (RetryPolicy().delay(1, error) is not None) is again


def test_backoff_grows_to_its_bound_and_ends() -> None:
    """Waits double up to the longest, and attempts are counted."""
    policy = RetryPolicy(max_attempts=6, base_delay=1, max_delay=5, jitter=0)
    assert [policy.delay(attempt, BROKEN) for attempt in range(1, 7)] == [1, 2, 4, 5, 5, None]


def test_patience_is_counted_in_seconds() -> None:
    """Attempts go on until the time is over, and the last wait ends with it."""
    policy = RetryPolicy(jitter=0)
    assert [policy.delay(99, BROKEN, since=since) for since in (0, 299, 300)] == [30, 1, None]
    assert RetryPolicy(patience=inf, jitter=0).delay(99, BROKEN, since=1e6) == 30


def test_a_longer_wait_is_honored() -> None:
    """``Retry-After`` lengthens the wait, and never shortens it."""
    policy = RetryPolicy(jitter=0)
    asked = [errors.ServerError(503, None, "x", retry_after=seconds) for seconds in (0.0, 20.0)]
    assert [policy.delay(3, error) for error in asked] == [2, 20]


def test_jitter_takes_its_share() -> None:
    """Full jitter reaches from 0 to the whole wait, half of it from the middle."""
    waits = [RetryPolicy(jitter=share).delay(1, BROKEN, draw=lambda: 0.0) for share in (1, 0.5)]
    assert waits == [0.5, 0.5]
    waits = [RetryPolicy(jitter=share).delay(1, BROKEN, draw=lambda: 1.0) for share in (1, 0.5)]
    assert waits == [0, 0.25]


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryPolicy(max_attempts=0),
        lambda: RetryPolicy(base_delay=-1),
        lambda: RetryPolicy(base_delay=9, max_delay=1),
        lambda: RetryPolicy(jitter=2),
        lambda: RetryPolicy(patience=-1),
    ],
)
def test_impossible_policies_are_refused(make: object) -> None:
    """A policy that makes no sense is a configuration error that names its field."""
    assert callable(make)
    with pytest.raises(ConfigurationError, match=r"max_attempts|base_delay|jitter|patience"):
        make()


def answers() -> list[tuple[str, str, bool, bool]]:
    """The table of answers in the docstring: answer, name of the error, in doubt, sent again."""
    rule = "=  ===========\n"
    lines = (retry.__doc__ or "").split(rule)[2].splitlines()[:-1]
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
    return [(answer, name.strip("`"), doubt == "yes", again == "yes") for answer, name, doubt, again in rows]


def test_the_readme_has_the_table_of_answers() -> None:
    """The README shows the docstring's table, row for row."""
    _, _, below = README.read_text().partition(
        "| Answer | Error | In doubt? | Sent again? |\n|---|---|---|---|\n"
    )
    table, _, _ = below.partition("\n\n")
    yes = {True: "yes", False: "no"}
    assert table.splitlines() == [
        f"| {answer} | `{name}` | {yes[doubt]} | {yes[again]} |" for answer, name, doubt, again in answers()
    ]


STATUSES = {"5xx": [500, 502, 503, 504, 599], "any other 4xx": [402, 418, 451]}


def test_the_table_of_answers_is_true() -> None:
    """Each row is what the code makes of that answer."""
    seen = set()
    for answer, name, doubt, again in answers():
        error = getattr(errors, name)
        for status in STATUSES.get(answer) or map(int, re.findall(r"\b[45]\d\d\b", answer)):
            assert retry.meaning_of(status) == retry.Meaning(error, in_doubt=doubt, sent_again=again), status
            seen.add(status)
        policy = RetryPolicy()
        if issubclass(error, errors.InvalidResponseError):
            made = error("x", status=int(answer[0]) * 100, body_start=b"")
            assert (policy.delay(1, made) is not None) is again
        elif not issubclass(error, errors.APIError):
            assert (policy.delay(1, error("x")) is not None) is again
    assert seen >= {400, 401, 403, 404, 408, 409, 413, 415, 421, 422, 425, 429, 499, 503}
