import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import guests
from thanx_async._batches import Positions
from thanx_async.batching._chunker import Chunk, Chunker
from thanx_async.errors import InvalidIdentifierError
from thanx_async.identifiers import normalise

ITEMS = st.one_of(
    st.sampled_from(["a@x.com", "A@X.com ", "b@x.com", "+14155551234", "junk", "", "x@y-.com", "a.-b@x.com"]),
    st.sampled_from(
        [None, 7, ("email", "c@x.com"), {"type": "phone", "value": "+14155551234"}, "p@x.com\nq@x.com"]
    ),
    st.integers(0, 50).map(lambda number: f"guest{number}@example.com"),
)


def cut(items: list[object], size: int, step: int, *, deduplicate: bool) -> tuple[Chunker, list[Chunk]]:
    chunker = Chunker(size, deduplicate=deduplicate)
    batches = [batch for at in range(0, len(items), step) for batch in chunker.feed(items[at : at + step])]
    return chunker, batches + chunker.flush()


@given(st.lists(ITEMS, max_size=60), st.integers(1, 7), st.integers(1, 9), st.booleans())
def test_each_item_has_one_place(items: list[object], size: int, step: int, deduplicate: bool) -> None:
    """Every item is in exactly one batch, or rejected, or a duplicate, under its own position."""
    chunker, batches = cut(items, size, step, deduplicate=deduplicate)
    placed = {
        position: value
        for batch in batches
        for position, value in zip(batch.positions, batch.values, strict=True)
    }
    rejected = {row.position for row in chunker.rejected}
    duplicates = {row.position for row in chunker.duplicates}
    assert sorted([*placed, *rejected, *duplicates]) == list(range(len(items))) == list(range(chunker.read))
    assert [batch.number for batch in batches] == list(range(len(batches)))
    assert all(len(batch.values) == size for batch in batches[:-1])
    for batch in batches:
        assert [batch.positions.index(position) for position in batch.positions] == [
            *range(len(batch.values))
        ]
    seen: set[str] = set()
    for position, item in enumerate(items):
        try:
            value = normalise(item)
        except InvalidIdentifierError:
            assert position in rejected
            continue
        assert (position in duplicates) == (deduplicate and value in seen)
        assert placed.get(position, value) == value
        seen.add(value)


@given(st.lists(ITEMS, max_size=60), st.integers(1, 7), st.integers(1, 60))
def test_slices_do_not_matter(items: list[object], size: int, step: int) -> None:
    """The batches are the same however the input is sliced."""
    one, batches = cut(items, size, 1, deduplicate=True)
    other, same = cut(items, size, step, deduplicate=True)
    assert [(batch.values, list(batch.positions)) for batch in batches] == [
        (batch.values, list(batch.positions)) for batch in same
    ]
    assert (one.rejected, one.duplicates) == (other.rejected, other.duplicates)


def test_values_are_kept_only_when_asked() -> None:
    """Without values, dropped items are known by position and reason alone."""
    chunker = Chunker(keep_values=False)
    chunker.feed(["junk", "a@x.com", "a@x.com"])
    assert [(row.position, row.identifier) for row in [*chunker.rejected, *chunker.duplicates]] == [
        (0, None),
        (2, None),
    ]


def test_what_finds_duplicates_is_freed_in_steps() -> None:
    """After the input a run holds no value that it does not report, and is let go of a part at a time."""
    chunker = Chunker(keep_values=False)
    chunker.feed(guests(1000))
    chunker.flush()
    seen = chunker._seen
    assert seen is not None
    left = [len(seen) for _ in chunker.free()]
    assert left == sorted(set(left), reverse=True)
    assert len(left) > 10
    assert left[-1] == 0
    assert chunker.feed([]) == []


def test_the_waiting_part_is_known() -> None:
    """What waits for the rest of its batch has positions too."""
    chunker = Chunker(10)
    chunker.feed(["junk", "a@x.com", "junk", "b@x.com"])
    assert list(chunker.pending) == [1, 3]
    assert chunker.pending.last == 3


def test_positions_end() -> None:
    """Positions are a sequence with an end."""
    with pytest.raises(IndexError):
        Positions(0, 1)[1]


def test_reprs_hold_no_values() -> None:
    """A batch and a dropped item show numbers, not guests."""
    chunker = Chunker(1)
    (batch,) = chunker.feed(["jane@x.com"])
    chunker.feed(["jane@x.com"])
    assert "jane" not in repr(batch) + repr(chunker.duplicates)
