"""The error classes. An error that carries an object of another module is defined there.

Users import all errors from `thanx_async.errors`, which shows the class tree.
"""

from __future__ import annotations

from typing import TypeVar

from thanx_async._core.escaping import printable

E = TypeVar("E", bound=BaseException)


class ThanxError(Exception):
    """The base class of all errors.

    ``in_doubt`` is True if Thanx may have acted on the request, although the client received no success.
    Repeat an Issue Rewards request in doubt only with the same ``idempotency_key`` and the same identifiers.
    """

    in_doubt: bool = False
    idempotency_key: str | None = None

    def __str__(self) -> str:
        return printable(super().__str__())

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[ThanxError], args: tuple[object, ...], fields: dict[str, object]) -> ThanxError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class ConfigurationError(ThanxError):
    """A usage error. The message says what is wrong and how to fix it.

    ``argument`` is the name of the invalid argument, with the class if it is a field of another argument
    (``Guard.max_rewards``, ``NewCampaign.variants``). It is None if no argument is invalid.
    """

    def __init__(self, message: str, *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class InvalidIdentifierError(ThanxError):
    """The input is not an identifier. ``reason`` says why, without the input."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TransportError(ThanxError):
    """No usable answer arrived."""

    def __init__(self, message: str, *, in_doubt: bool = True) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt


class ConnectionFailedError(TransportError):
    """The connection failed, or broke before the answer was complete."""


class RequestTimeoutError(TransportError):
    """No answer arrived within the client's timeout."""


class InvalidResponseError(TransportError):
    """An undocumented success or redirect: HTML, an empty or truncated body, unexpected JSON.

    ``status`` is the HTTP status and ``body_start`` the first bytes of the answer. The message omits these
    bytes, since an answer may repeat the request's identifiers. ``retry_after`` is the wait that the answer
    asks for, in seconds, and ``request_id`` its ``X-Request-Id``; each is None if the answer has none.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        body_start: bytes,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body_start = body_start
        self.retry_after = retry_after
        self.request_id = request_id


class APIError(ThanxError):
    """Thanx refused a request.

    ``status`` is the HTTP status, and ``code`` the stable error code (None if the answer has none).
    ``message`` is Thanx's text, with anything masked that looks like an email address or a phone number.
    ``retry_after`` is the wait that the answer asks for, in seconds, and ``request_id`` its
    ``X-Request-Id``; each is None if the answer has none.
    Source: docs.thanx.com, consumer/usage/errors.
    """

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        *,
        in_doubt: bool = False,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"HTTP {status} {code or 'without an error code'}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.in_doubt = in_doubt
        self.retry_after = retry_after
        self.request_id = request_id


class BadRequestError(APIError):
    """400: the request is invalid. Nothing was issued."""


class AuthenticationError(APIError):
    """401: Thanx does not accept the access token or the client id."""


class PermissionDeniedError(APIError):
    """403: the credential lacks the scope, usually ``rewards.issue``."""


class NotFoundError(APIError):
    """404: no such campaign, merchant, variant or job for this credential."""


class UnprocessableError(APIError):
    """422: the request is valid but not allowed, such as revoking a job that is still running."""


class IdempotencyConflictError(UnprocessableError):
    """422: the idempotency key was used before with another body. This request issued nothing."""


class RateLimitedError(APIError):
    """429: the client waits and retries automatically, so callers rarely see this error."""


class ServerError(APIError):
    """5xx: Thanx failed. An Issue Rewards request is in doubt."""


class GuardError(ThanxError):
    """The `Guard` stopped the run: too many rewards, or too many failures."""


class BatcherClosedError(ThanxError):
    """The batcher was closed before Thanx answered for this guest.

    Unless the error is ``in_doubt``, the guest was certainly not sent.
    """


class AddTimeoutError(ThanxError):
    """`AsyncBatcher.add` did not finish within its timeout.

    Unless the error is ``in_doubt``, the guest was removed from the queue and certainly not sent. Otherwise
    the guest is on the way, in the batch with the ``idempotency_key``, which is None if another caller has
    added the same guest and the batch is not cut yet. Wait for `AsyncBatcher.outcome`, and do not add the
    guest again. Only after the process has died, a key that is in no batch of the ledger means that nothing
    was sent; see `AsyncBatcher.add`.
    """

    def __init__(self, message: str, *, in_doubt: bool, idempotency_key: str | None) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt
        self.idempotency_key = idempotency_key


class LedgerError(ThanxError):
    """The ledger cannot be read or written, or does not allow the operation.

    The error is ``in_doubt`` if the batch may have been recorded although writing failed, and so may be sent
    later. ``sqlstate`` is PostgreSQL's code of an error on a connection of the caller's, None otherwise.
    After a ``40001`` or ``40P01`` the caller's transaction can be repeated.
    """

    sqlstate: str | None = None


class LeaseError(LedgerError):
    """Something else works on the run: it holds the lease, or has taken the run over.

    It is another process, or another object in this process, as the message says.
    """


class LedgerUnavailableError(LedgerError):
    """The ledger's database does not answer. Try again later."""


class IdReusedError(LedgerError):
    """The id was put into the outbox before, with another guest. Nothing was put under it."""


class InputChangedError(LedgerError):
    """The input differs from the recorded input of the run. Nothing was sent.

    ``batch`` is the number of the first batch that differs, from 0; ``first`` and ``last`` are its
    positions in the input as recorded.
    """

    def __init__(self, message: str, *, batch: int, first: int, last: int) -> None:
        super().__init__(message)
        self.batch = batch
        self.first = first
        self.last = last


class WebhookError(ThanxError):
    """The webhook request is not a valid Thanx event."""


class SignatureError(WebhookError):
    """The signature is missing, malformed or wrong: the request does not come from Thanx."""


def without_frames(error: E) -> E:
    """The error without the frames of its whole chain, whose local variables hold secrets and guests."""
    found: list[BaseException] = [error]
    for one in found:
        one.__traceback__ = None
        found += [next_ for next_ in (one.__cause__, one.__context__) if next_ and next_ not in found]
    return error


for _kind in [kind for kind in vars().values() if isinstance(kind, type)]:
    _kind.__module__ = "thanx_async.errors"  # where users import it from
