"""Makes rows of identifiers and ids: checked, normalized and hashed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from itertools import islice

from thanx_async._core import checks
from thanx_async._core.errors import IdReusedError, InvalidIdentifierError
from thanx_async._decoding import masked
from thanx_async.identifiers import MAX_BATCH, normalise
from thanx_async.ledger import NewGuest, Put
from thanx_async.outbox._protocol import Pairs

_AT_ONCE = 500


class Guests:
    """Makes guests of one lane. The hashes of their ids differ from those of other lanes."""

    def __init__(self, lane: str) -> None:
        self._hash = hashlib.sha256(lane.encode() + b"\0")

    def id(self, id: str) -> bytes:
        """The hash of an id."""
        hashed = self._hash.copy()
        hashed.update(checks.text("id", id).encode())
        return hashed.digest()[:16]

    def make(self, identifier: object, id: str) -> NewGuest:
        """A guest.

        Raises:
            InvalidIdentifierError: the identifier is invalid.
            ConfigurationError: the id is.
        """
        value = normalise(identifier)
        del identifier  # tools that record the local variables of errors would record the guest
        hashed = self.id(id)
        digest = hashlib.sha256(hashed + value.encode()).digest()[:8]
        return NewGuest(hashed, int.from_bytes(digest, "little", signed=True), value)


def check_put(put: Put, id: str) -> bool:
    """Whether the guest with this id is new.

    Raises:
        IdReusedError: the id was put before, with another guest.
    """
    if put is Put.REUSED:
        raise IdReusedError(f"the id {masked(id)!r} was put before, with another guest")
    return put is Put.NEW


async def slices(pairs: Pairs, guests: Guests) -> AsyncIterator[tuple[list[str], list[NewGuest]]]:
    """The pairs in slices, as ids and guests. Yields to the event loop now and then.

    Raises:
        InvalidIdentifierError: a pair has an invalid identifier; earlier slices were yielded.
    """
    ids: list[str] = []
    made: list[NewGuest] = []
    place = 0
    async for identifier, id in _each(pairs):
        try:
            made.append(guests.make(identifier, id))
        except InvalidIdentifierError as error:
            raise InvalidIdentifierError(f"pair {place}: {error.reason}") from None
        ids.append(id)
        place += 1
        if len(made) == MAX_BATCH:
            yield ids, made
            ids, made = [], []
    if made:
        yield ids, made


async def _each(pairs: Pairs) -> AsyncIterator[tuple[object, str]]:
    if isinstance(pairs, AsyncIterable):
        async for pair in pairs:
            yield pair
        return
    rest: Iterator[tuple[object, str]] = iter(pairs)
    while part := list(islice(rest, _AT_ONCE)):
        for pair in part:
            yield pair
        await asyncio.sleep(0)
