"""Identifiers of guests: parsing and normalization."""

from thanx_async.identifiers._national import phone_normalizer
from thanx_async.identifiers._parsing import (
    MAX_BATCH,
    MAX_EMAIL,
    Identifier,
    checked_values,
    is_single,
    normalise,
    normalise_all,
    raw_value,
    type_of,
)

__all__ = [
    "MAX_BATCH",
    "MAX_EMAIL",
    "Identifier",
    "checked_values",
    "is_single",
    "normalise",
    "normalise_all",
    "phone_normalizer",
    "raw_value",
    "type_of",
]
