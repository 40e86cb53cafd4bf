from collections import Counter as Tally

import pytest

from thanx_async.emulator import Fault, Faults
from thanx_async.emulator.faults import Dice


def test_faults_come_at_their_rates() -> None:
    """Each fault is drawn about as often as it was asked for, and the same seed draws the same."""
    faults = Faults(seed=3, reset_before=0.1, truncated=0.3)
    first, second = Dice(faults), Dice(faults)
    drawn = [first.draw() for _ in range(2000)]
    assert drawn == [second.draw() for _ in range(2000)]
    tally = Tally(drawn)
    assert tally[Fault.RESET_BEFORE] == pytest.approx(200, rel=0.3)
    assert tally[Fault.TRUNCATED] == pytest.approx(600, rel=0.2)
    assert set(tally) == {Fault.RESET_BEFORE, Fault.TRUNCATED, None}
