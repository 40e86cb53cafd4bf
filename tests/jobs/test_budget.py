"""What it costs to learn outcomes: polls and virtual seconds, under Thanx's limits and under smaller ones."""

from tests.jobs.spending import equal, spend
from thanx_async import RateLimit


async def test_polls_use_what_nobody_issues_with() -> None:
    """Once nothing is issued any more, polls go at full speed, even where half of a long window is spent."""
    spent = await spend(30, equal(0.01), limits=[RateLimit(5, 1), RateLimit(60, 60)])
    assert (spent.polls, spent.refused) == (30, 0)
    assert spent.known < spent.least + 6
