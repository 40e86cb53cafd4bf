"""Everything that this library raises on its own account.

    ThanxError
    ├── ConfigurationError              wrong use, found before anything is sent
    ├── InvalidIdentifierError          not an e-mail address and not a phone number
    ├── TransportError                  no usable answer: Thanx may or may not have acted
    │   ├── ConnectionFailedError
    │   ├── RequestTimeoutError
    │   └── InvalidResponseError        an answer, but not one of Thanx's
    ├── APIError                        Thanx answered with an error
    │   ├── BadRequestError             400
    │   ├── AuthenticationError         401
    │   ├── PermissionDeniedError       403
    │   ├── NotFoundError               404
    │   ├── UnprocessableError          422
    │   │   └── IdempotencyConflictError
    │   ├── RateLimitedError            429
    │   └── ServerError                 5xx
    ├── JobTimeoutError                 the job lives on
    ├── BatchError                      a run that stopped; `.run` knows every fate
    ├── GuardError                      a guard rail stopped the run
    ├── BatcherClosedError              a guest who was added too late
    ├── LedgerError
    │   └── InputChangedError           a run started again with another input
    └── WebhookError
        └── SignatureError

Messages hold positions, counts, codes and job ids; never a token, a secret or a guest's value.
Errors survive pickling, with all their fields.
"""

from thanx_async._core.errors import (
    APIError,
    AuthenticationError,
    BadRequestError,
    BatcherClosedError,
    ConfigurationError,
    ConnectionFailedError,
    GuardError,
    IdempotencyConflictError,
    InputChangedError,
    InvalidIdentifierError,
    InvalidResponseError,
    LedgerError,
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
from thanx_async.batching import BatchError
from thanx_async.jobs import JobTimeoutError

__all__ = [
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "BatchError",
    "BatcherClosedError",
    "ConfigurationError",
    "ConnectionFailedError",
    "GuardError",
    "IdempotencyConflictError",
    "InputChangedError",
    "InvalidIdentifierError",
    "InvalidResponseError",
    "JobTimeoutError",
    "LedgerError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitedError",
    "RequestTimeoutError",
    "ServerError",
    "SignatureError",
    "ThanxError",
    "TransportError",
    "UnprocessableError",
    "WebhookError",
]
