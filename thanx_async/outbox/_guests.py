"""Makes rows of identifiers and ids: checked, normalized and hashed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from itertools import islice

from thanx_async._core import checks
from thanx_async._core.errors import ConfigurationError, IdReusedError, InvalidIdentifierError, without_frames
from thanx_async._core.messages import Message
from thanx_async._decoding import masked
from thanx_async.identifiers import MAX_BATCH, normalise_all
from thanx_async.ledger import NewGuest, Put
from thanx_async.outbox._protocol import Pairs

_AT_ONCE = 500  # a divisor of MAX_BATCH


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
        try:
            hashed = self.id(id)
            values, reasons = normalise_all([identifier])
        finally:
            del identifier  # tools that record the local variables of errors would record the guest
        if reasons:
            raise InvalidIdentifierError(reasons[0])
        return _guest(hashed, values[0])

    def make_all(self, pairs: Sequence[object], first: int) -> tuple[list[str], list[NewGuest]]:
        """The ids and the guests of pairs. Errors name the place of a pair, ``first`` for the first one.

        Raises:
            InvalidIdentifierError: an identifier is invalid.
            ConfigurationError: an id is, or an item is not a pair.
        """
        try:
            items, ids, hashes = self._unzipped(pairs, first)
        except ConfigurationError as error:
            raise without_frames(error) from None
        finally:
            del pairs  # see `make`
        values, reasons = normalise_all(items)
        del items
        if reasons:
            del values
            index, reason = next(iter(reasons.items()))
            raise InvalidIdentifierError(f"pair {first + index}: {reason}")
        return ids, list(map(_guest, hashes, values))

    def _unzipped(self, pairs: Sequence[object], first: int) -> tuple[list[object], list[str], list[bytes]]:
        """The identifiers of pairs, their ids, and the hashes of these."""
        items: list[object] = []
        ids: list[str] = []
        hashes: list[bytes] = []
        for place, pair in enumerate(pairs, first):
            try:
                if not isinstance(pair, list | tuple) or len(pair) != 2:
                    raise checks.wrong("pairs", "must be pairs of an identifier and an id")
                item, id = pair
                hashes.append(self.id(id))
            except ConfigurationError as error:
                message = Message(f"pair {place}: ", *error.args)
                raise ConfigurationError(message, argument=error.argument) from None
            items.append(item)
            ids.append(id)
        return items, ids, hashes


def _guest(hashed: bytes, value: str) -> NewGuest:
    digest = hashlib.sha256(hashed + value.encode()).digest()[:8]
    return NewGuest(hashed, int.from_bytes(digest, "little", signed=True), value)


def check_put(put: Put, id: str, place: int | None = None) -> bool:
    """Whether the guest with this id is new.

    Args:
        put: what became of the guest.
        id: the caller's id.
        place: the place of the guest among many.

    Raises:
        IdReusedError: the id was put before, with another guest.
    """
    if put is Put.REUSED:
        where = "" if place is None else f"pair {place}: "
        raise IdReusedError(f"{where}the id {masked(id)!r} was put before, with another guest")
    return put is Put.NEW


async def slices(pairs: Pairs, guests: Guests) -> AsyncIterator[tuple[list[str], list[NewGuest]]]:
    """The pairs in slices, as ids and guests. Yields to the event loop now and then.

    Raises:
        InvalidIdentifierError: a pair has an invalid identifier; earlier slices were yielded.
        ConfigurationError: a pair has an invalid id, or is none; likewise.
    """
    parts = _parts(pairs)
    del pairs  # see `Guests.make`
    ids: list[str] = []
    made: list[NewGuest] = []
    place = 0
    async for part in parts:
        try:
            more_ids, more = guests.make_all(part, place)
        finally:
            del part
        place += len(more)
        ids += more_ids
        made += more
        if len(made) == MAX_BATCH:
            yield ids, made
            ids, made = [], []
    if made:
        yield ids, made


async def _parts(pairs: Pairs) -> AsyncIterator[list[object]]:
    """The pairs, some at a time."""
    if isinstance(pairs, AsyncIterable):
        source = _async_parts(pairs)
        del pairs
        async for part in source:
            yield part
            del part
        return
    checks.kind("pairs", isinstance(pairs, Iterable), "an iterable or async iterable of pairs", pairs)
    rest = iter(pairs)
    del pairs
    while part := list[object](islice(rest, _AT_ONCE)):
        yield part
        del part
        await asyncio.sleep(0)


async def _async_parts(pairs: AsyncIterable[object]) -> AsyncIterator[list[object]]:
    part: list[object] = []
    try:
        async for pair in pairs:
            part.append(pair)
            del pair
            if len(part) == _AT_ONCE:
                yield part
                part = []
        if part:
            yield part
    finally:
        part.clear()  # see `Guests.make`
