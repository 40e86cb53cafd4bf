import pickle

import pytest

from thanx_async import errors
from thanx_async._core import checks
from thanx_async._core.messages import Message, Name
from thanx_async.models import IssuanceJob


def every(kind: type[BaseException]) -> list[type[BaseException]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in every(child))]


SAMPLES: list[errors.ThanxError] = [
    errors.ConfigurationError("x"),
    checks.wrong("Guard.canary", "is empty"),
    errors.InvalidIdentifierError("reason"),
    errors.ConnectionFailedError("x", in_doubt=False),
    errors.RequestTimeoutError("x"),
    errors.InvalidResponseError("x", status=502, body_start=b"<html>"),
    errors.ServerError(500, "GENERIC_ERROR", "x"),
    errors.RateLimitedError(429, None, "x"),
    errors.JobTimeoutError("x", job_id="job1", job=IssuanceJob("job1", "pending")),
    errors.SignatureError("x"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_pickling_keeps_everything(error: errors.ThanxError) -> None:
    """An error that crosses processes is the same on the other side."""
    error.idempotency_key = "key"
    twin = pickle.loads(pickle.dumps(error))  # noqa: S301 - made right here
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)


def test_names_in_messages_can_be_replaced() -> None:
    """A message reads like any text, and shows other names for its arguments, also after pickling."""
    differences = [Message(Name("batch_size"), " 5 instead of 10"), Message(Name("linger"), " 1")]
    message = Message("batch_size: ", Message("; ").join(differences))
    assert message == "batch_size: batch_size 5 instead of 10; linger 1"
    twin = pickle.loads(pickle.dumps(message))  # noqa: S301 - made right here
    assert (
        twin.renamed({"batch_size": "--batch-size"}) == "batch_size: --batch-size 5 instead of 10; linger 1"
    )


def test_the_drawing_is_the_tree() -> None:
    """The docstring shows every error, and nothing else."""
    drawn = {word for word in (errors.__doc__ or "").split() if word.endswith("Error")}
    ours = {kind for kind in every(errors.ThanxError) if kind.__module__.startswith("thanx_async.")}
    assert drawn == {kind.__name__ for kind in ours}
    assert {kind.__name__ for kind in ours} == set(errors.__all__)
