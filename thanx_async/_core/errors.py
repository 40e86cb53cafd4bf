"""Errors that carry plain values. An error that carries another object is defined beside that object.

Users import all errors from `thanx_async.errors`, which shows the tree.
"""

from __future__ import annotations


class ThanxError(Exception):
    """The base class of all errors.

    ``in_doubt`` is True if Thanx may have acted on the request, although no success was received. Repeat an
    Issue Rewards request then only with the same ``idempotency_key`` and the same identifiers.
    """

    in_doubt: bool = False
    idempotency_key: str | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[ThanxError], args: tuple[object, ...], fields: dict[str, object]) -> ThanxError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


class ConfigurationError(ThanxError):
    """A usage error. The message says what is wrong, and what would be right.

    ``argument`` names the argument at fault, with its class where it is a part of another one
    (``Guard.max_rewards``, ``NewCampaign.variants``). It is None where no argument is at fault.
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
    """The connection could not be made, or broke before the answer was complete."""


class RequestTimeoutError(TransportError):
    """The answer did not come within the client's timeout."""


class InvalidResponseError(TransportError):
    """A success or redirect that is not documented: HTML, an empty or truncated body, unexpected JSON.

    ``status`` is the HTTP status and ``body_start`` the first bytes of the answer. They stay out of the
    message, since an answer may repeat what was sent.
    """

    def __init__(self, message: str, *, status: int, body_start: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.body_start = body_start


class APIError(ThanxError):
    """Thanx refused a request.

    ``status`` is the HTTP status, ``code`` the stable error code (None when the answer had none) and
    ``message`` Thanx's text, in which whatever looks like an e-mail address or a phone number is masked.
    ``retry_after`` is how many seconds the answer asks to wait, and ``request_id`` its ``X-Request-Id``;
    both are None where it says nothing of the kind.
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
    """400: the request itself is wrong, nothing was issued."""


class AuthenticationError(APIError):
    """401: the access token or the client id is not accepted."""


class PermissionDeniedError(APIError):
    """403: the credential lacks the scope, usually ``rewards.issue``."""


class NotFoundError(APIError):
    """404: no such campaign, merchant, variant or job for this credential."""


class UnprocessableError(APIError):
    """422: the request is valid but not allowed, such as revoking a job that is still running."""


class IdempotencyConflictError(UnprocessableError):
    """422: this idempotency key was used before, with another body. Nothing was issued."""


class RateLimitedError(APIError):
    """429: the client waits and retries by itself, so callers rarely see this error."""


class ServerError(APIError):
    """5xx: an Issue Rewards request is in doubt after it."""


class GuardError(ThanxError):
    """A guard rail stopped the run: too many rewards, or too many failures."""


class BatcherClosedError(ThanxError):
    """The batcher was closed before Thanx answered for this guest.

    If it is not ``in_doubt``, the guest was certainly not sent.
    """


class AddTimeoutError(ThanxError):
    """`AsyncBatcher.add` was not answered within its timeout.

    Unless it is ``in_doubt``, the guest was taken out and certainly not sent. Otherwise the guest is on the
    way, in the batch with the ``idempotency_key`` (None if the batch is not cut yet, because another caller
    has added the same guest): wait for `AsyncBatcher.outcome`, and do not add the guest again.
    """

    def __init__(self, message: str, *, in_doubt: bool, idempotency_key: str | None) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt
        self.idempotency_key = idempotency_key


class LedgerError(ThanxError):
    """The ledger cannot be read or written, or does not allow the operation.

    It is ``in_doubt`` if a batch may have been recorded although writing failed, and so may be sent later.
    """


class InputChangedError(LedgerError):
    """The input differs from the one that the run was started with. Nothing was sent.

    ``batch`` is the number of the first batch that differs, from 0; ``first`` and ``last`` are its
    positions in the input as recorded.
    """

    def __init__(self, message: str, *, batch: int, first: int, last: int) -> None:
        super().__init__(message)
        self.batch = batch
        self.first = first
        self.last = last


class WebhookError(ThanxError):
    """A webhook request is not a valid Thanx event."""


class SignatureError(WebhookError):
    """The signature is missing, malformed or wrong: the request does not come from Thanx."""


for _kind in [kind for kind in vars().values() if isinstance(kind, type)]:
    _kind.__module__ = "thanx_async.errors"  # where users import it from
