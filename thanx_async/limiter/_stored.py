"""The stored form of a `LimiterState`: JSON, or compressed JSON where it travels over a network."""

from __future__ import annotations

import zlib

import orjson
from cattrs.preconf.orjson import make_converter

from thanx_async.limiter._state import LimiterState

_converter = make_converter(detailed_validation=False)


def dump_state(state: LimiterState) -> bytes:
    """Serialize the state."""
    return bytes(_converter.dumps(state))


def load_state(data: bytes) -> LimiterState:
    """The state from its serialized form. Invalid data raises one of various exceptions."""
    fields = orjson.loads(data)
    if not isinstance(fields, dict):  # a list would be a state in which nothing was sent
        raise TypeError
    state = _converter.structure(fields, LimiterState)
    if not state.is_sound():
        raise ValueError
    return state


def pack_state(state: LimiterState) -> bytes:
    """Serialize and compress the state, to about a fifth."""
    return zlib.compress(dump_state(state), 1)


def unpack_state(data: bytes) -> LimiterState:
    """The state from its compressed form. Invalid data raises one of various exceptions."""
    return load_state(zlib.decompress(data))
