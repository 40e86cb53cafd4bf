"""Services and bulk runs beside each other, within Thanx's limits scaled down by ten."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.limiter.traffic import traffic
from thanx_async import RateLimit, SQLiteRateLimiter

LIMITS = (RateLimit(5, 1), RateLimit(200, 90))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.sqlite3"


async def test_guests_do_not_wait_for_a_run(wall: SimpleNamespace, path: Path) -> None:
    """Beside a run that spends all it may, `add` takes 2 s at most, and the run a tenth longer."""

    def limiter() -> SQLiteRateLimiter:
        return SQLiteRateLimiter(path, LIMITS)

    alone = await traffic([], limits=LIMITS, batches=300, bulk=limiter())
    path.unlink()
    beside = await traffic([limiter()], limits=LIMITS, every=7, batches=300, bulk=limiter())
    assert beside.refused == alone.refused == 0
    assert len(beside.adds) > 10
    assert max(beside.adds) <= 2
    assert beside.run <= 1.1 * alone.run


async def test_guests_of_a_process_do_not_wait_for_its_run(wall: SimpleNamespace, path: Path) -> None:
    """The same holds for one process with one limiter."""
    limiter = SQLiteRateLimiter(path, LIMITS)
    beside = await traffic([limiter], limits=LIMITS, every=7, batches=300, bulk=limiter)
    assert beside.refused == 0
    assert max(beside.adds) <= 2


async def test_many_replicas_pace_their_guests_together(wall: SimpleNamespace, path: Path) -> None:
    """Eight services do not spend the long limit on their first guests, and then stand still."""
    limiters = [SQLiteRateLimiter(path, LIMITS) for _ in range(8)]
    found = await traffic(limiters, limits=LIMITS, every=1, seconds=240)
    assert found.refused == 0
    assert found.quantile(0.99) <= 15
    assert max(found.adds) <= 20
