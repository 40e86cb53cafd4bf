"""Outboxes as objects: what they show of themselves, and that they are not copied."""

import copy
import pickle
from typing import Any

import pytest

from tests.helpers import TARGET
from tests.outbox.conftest import Make
from tests.servers import PASSWORD
from thanx_async import ConfigurationError, SQLiteOutbox
from thanx_async.outbox import GuestOutcome, GuestState, OutboxStatus, StoredOutbox
from thanx_async.postgres import PostgresOutbox

DSN = f"postgresql://thanx:{PASSWORD}@127.0.0.1:1/none"


@pytest.mark.parametrize(
    "wrong",
    [{"campaign_id": ""}, {"client_id": 5}, {"base_url": "ftp://x"}, {"keep_ids": 90}, {"replay_within": -1}],
)
@pytest.mark.parametrize("kind", [SQLiteOutbox, PostgresOutbox])
def test_an_outbox_that_was_not_made(kind: type[StoredOutbox[Any]], wrong: dict[str, object]) -> None:
    """A tool that shows the local variables of the error's frames can show the half-made outbox, too."""
    settings: dict[str, Any] = {**TARGET, "client_id": "c", **wrong}
    place: Any = DSN if kind is PostgresOutbox else "x.sqlite"
    with pytest.raises(ConfigurationError) as caught:
        kind(place, **settings)
    names = [entry.frame.f_locals for entry in caught.traceback]
    shown = [repr(local["self"]) for local in names if "self" in local]
    assert any(kind.__name__ in text for text in shown)
    assert PASSWORD not in "".join(shown)


@pytest.mark.realtime
async def test_the_life_of_an_outbox(make: Make) -> None:
    """Unopened, open and closed outboxes say which they are; a closed one refuses, and opens again."""
    outbox = make()
    assert repr(outbox).endswith("(not open)>>")
    with pytest.raises(ConfigurationError, match="the outbox is not open: use it as `async with"):
        await outbox.put("a@example.com", id="1")
    async with outbox:
        assert "not open" not in repr(outbox)
        assert PASSWORD not in repr(outbox)
        for use in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(
                ConfigurationError, match="an outbox cannot be pickled or copied: make another"
            ):
                use(outbox)
    assert repr(outbox).endswith("(not open)>>")
    for use_closed in (outbox.put("a@example.com", id="1"), outbox.outcome("1"), outbox.status()):
        with pytest.raises(ConfigurationError, match="is not open"):
            await use_closed
    async with outbox:
        assert await outbox.put("a@example.com", id="1")


def test_what_an_outbox_tells() -> None:
    """Outcomes and statuses go to other processes, and are compared by value."""
    outcome = GuestOutcome("1", GuestState.ISSUED, None, "job")
    for told in (outcome, OutboxStatus(1, 2.0, 0, 0, 0, None, None)):
        assert pickle.loads(pickle.dumps(told)) == copy.deepcopy(told) == told  # noqa: S301 - its own
