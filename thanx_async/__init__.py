"""Issue Thanx loyalty rewards in bulk from asyncio: each guest exactly once, and every outcome known."""

from importlib import import_module
from typing import TYPE_CHECKING

from thanx_async._version import __version__

if TYPE_CHECKING:
    from thanx_async.batcher import (
        AsyncBatcher,
        BatchInDoubt,
        BatchRange,
        CloseReport,
        Eta,
        Guard,
        GuestRow,
        IssuancePlan,
        IssuanceReport,
        IssuanceRun,
        IssuanceStream,
        NotRevoked,
        NotVerified,
        Outcome,
        RevocationReport,
        VerificationReport,
    )
    from thanx_async.client import ThanxClient
    from thanx_async.errors import (
        AddTimeoutError,
        APIError,
        AuthenticationError,
        BadRequestError,
        BatcherClosedError,
        BatchError,
        ConfigurationError,
        ConnectionFailedError,
        GuardError,
        IdempotencyConflictError,
        IdReusedError,
        InputChangedError,
        InvalidIdentifierError,
        InvalidResponseError,
        JobTimeoutError,
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
    from thanx_async.http import ReadinessCheck
    from thanx_async.identifiers import Identifier, phone_normalizer
    from thanx_async.jobs import JobHandle
    from thanx_async.ledger import Ledger, SQLiteLedger
    from thanx_async.limiter import (
        THANX_RATE_LIMITS,
        Lane,
        LimiterStatus,
        LocalRateLimiter,
        RateLimit,
        RateLimiter,
        Slot,
        SQLiteRateLimiter,
        WindowStatus,
    )
    from thanx_async.models import (
        Campaign,
        Environment,
        Events,
        IdentifierType,
        IssuanceFailure,
        IssuanceJob,
        JobSummary,
        Merchant,
        NewCampaign,
        RewardTemplate,
        Variant,
    )
    from thanx_async.outbox import GuestOutcome, GuestState, Outbox, OutboxStatus, SQLiteOutbox
    from thanx_async.retry import RetryPolicy

__all__ = [
    "THANX_RATE_LIMITS",
    "APIError",
    "AddTimeoutError",
    "AsyncBatcher",
    "AuthenticationError",
    "BadRequestError",
    "BatchError",
    "BatchInDoubt",
    "BatchRange",
    "BatcherClosedError",
    "Campaign",
    "CloseReport",
    "ConfigurationError",
    "ConnectionFailedError",
    "Environment",
    "Eta",
    "Events",
    "Guard",
    "GuardError",
    "GuestOutcome",
    "GuestRow",
    "GuestState",
    "IdReusedError",
    "IdempotencyConflictError",
    "Identifier",
    "IdentifierType",
    "InputChangedError",
    "InvalidIdentifierError",
    "InvalidResponseError",
    "IssuanceFailure",
    "IssuanceJob",
    "IssuancePlan",
    "IssuanceReport",
    "IssuanceRun",
    "IssuanceStream",
    "JobHandle",
    "JobSummary",
    "JobTimeoutError",
    "Lane",
    "LeaseError",
    "Ledger",
    "LedgerError",
    "LedgerUnavailableError",
    "LimiterStatus",
    "LocalRateLimiter",
    "Merchant",
    "NewCampaign",
    "NotFoundError",
    "NotRevoked",
    "NotVerified",
    "Outbox",
    "OutboxStatus",
    "Outcome",
    "PermissionDeniedError",
    "RateLimit",
    "RateLimitedError",
    "RateLimiter",
    "ReadinessCheck",
    "RequestTimeoutError",
    "RetryPolicy",
    "RevocationReport",
    "RewardTemplate",
    "SQLiteLedger",
    "SQLiteOutbox",
    "SQLiteRateLimiter",
    "ServerError",
    "SignatureError",
    "Slot",
    "ThanxClient",
    "ThanxError",
    "TransportError",
    "UnprocessableError",
    "Variant",
    "VerificationReport",
    "WebhookError",
    "WindowStatus",
    "__version__",
    "phone_normalizer",
]

_HOMES = (
    "_core.errors",  # before `errors`, which loads more modules
    "models",
    "identifiers",
    "retry",
    "limiter",
    "instrumentation",
    "jobs",
    "client",
    "batcher",
    "ledger",
    "errors",
    "outbox",
)

if not TYPE_CHECKING:

    def __getattr__(name):
        """Import a public name on first use: `thanx-async --help` does not load aiohttp."""
        if name in _HOMES:
            return import_module(f"thanx_async.{name}")
        if name in __all__:
            for home in _HOMES:
                module = import_module(f"thanx_async.{home}")
                if hasattr(module, name):
                    return globals().setdefault(name, getattr(module, name))
        raise AttributeError(f"module 'thanx_async' has no attribute {name!r}")

    def __dir__():
        return __all__
