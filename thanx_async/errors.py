"""The tree of all errors that this library raises.

    ThanxError
    ├── ConfigurationError              a usage error, found before anything is sent
    │   ├── MissingExtraError           a package is not installed; the message names its extra
    │   └── StoreAwayError              the server of a rate limiter does not answer now
    ├── InvalidIdentifierError          neither an email address nor a phone number
    ├── TransportError                  no usable answer: Thanx may or may not have acted
    │   ├── ConnectionFailedError
    │   ├── RequestTimeoutError
    │   └── InvalidResponseError        an answer that does not follow Thanx's API
    ├── APIError                        Thanx answered with an error
    │   ├── BadRequestError             400
    │   ├── AuthenticationError         401
    │   ├── PermissionDeniedError       403
    │   ├── NotFoundError               404
    │   ├── UnprocessableError          422
    │   │   └── IdempotencyConflictError
    │   ├── RateLimitedError            429
    │   └── ServerError                 5xx
    ├── JobTimeoutError                 the job is still running at Thanx
    ├── BatchError                      a run stopped early; `.run` knows the fate of every identifier
    ├── GuardError                      the guard stopped the run
    ├── BatcherClosedError              the batcher closed before Thanx answered for the guest
    ├── AddTimeoutError                 add() was not answered in time
    ├── LedgerError                     the ledger failed, or does not allow what was asked
    │   ├── InputChangedError           a run was started again with another input
    │   ├── LeaseError                  another process works on the run
    │   ├── LedgerUnavailableError      the ledger's database does not answer
    │   └── IdReusedError               an id of the outbox was used for two guests
    └── WebhookError                    not a valid Thanx event
        └── SignatureError              not signed by Thanx

Messages contain positions, counts, codes and job ids, but never a token, a secret or a guest's identifier.
Errors keep all their fields when pickled.
"""

from thanx_async._core.errors import (
    AddTimeoutError,
    APIError,
    AuthenticationError,
    BadRequestError,
    BatcherClosedError,
    ConfigurationError,
    ConnectionFailedError,
    GuardError,
    IdempotencyConflictError,
    IdReusedError,
    InputChangedError,
    InvalidIdentifierError,
    InvalidResponseError,
    LeaseError,
    LedgerError,
    LedgerUnavailableError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    SignatureError,
    ThanxError,
    TransportError,
    UnprocessableError,
    WebhookError,
)
from thanx_async._core.extras import MissingExtraError
from thanx_async.batching import BatchError
from thanx_async.jobs import JobTimeoutError
from thanx_async.limiter import StoreAwayError

__all__ = [
    "APIError",
    "AddTimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "BatchError",
    "BatcherClosedError",
    "ConfigurationError",
    "ConnectionFailedError",
    "GuardError",
    "IdReusedError",
    "IdempotencyConflictError",
    "InputChangedError",
    "InvalidIdentifierError",
    "InvalidResponseError",
    "JobTimeoutError",
    "LeaseError",
    "LedgerError",
    "LedgerUnavailableError",
    "MissingExtraError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestTimeoutError",
    "ServerError",
    "SignatureError",
    "StoreAwayError",
    "ThanxError",
    "TransportError",
    "UnprocessableError",
    "WebhookError",
]
