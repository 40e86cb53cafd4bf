"""Sending within hours of the day."""

from datetime import datetime, time, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import OPTIONS, guests, written
from thanx_async.cli import run
from thanx_async.cli._hours import Hours
from thanx_async.emulator import Emulator

NOON = datetime(2026, 3, 4, 12).astimezone()


@pytest.mark.parametrize(
    ("not_before", "until", "begins", "ends"),
    [
        (None, None, 0, None),
        ("09:00", None, 0, None),
        ("13:30", None, 1.5, None),
        (None, "21:00", 0, 9),
        (None, "11:00", 12, 23),
        ("09:00", "21:00", 0, 9),
        ("09:00", "11:00", 21, 23),
        ("13:00", "14:00", 1, 2),
        ("22:00", "06:00", 10, 18),
        ("11:00", "10:00", 0, 22),
        ("13:00", "12:30", 0, 0.5),
    ],
)
def test_the_window(not_before: str | None, until: str | None, begins: float, ends: float | None) -> None:
    """The window is the one that is open, or else the next, also over midnight; hours from noon."""
    end = None if ends is None else NOON + timedelta(hours=ends)
    assert Hours(not_before, until).window(NOON) == (NOON + timedelta(hours=begins), end)


@given(now=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), opens=st.times(), closes=st.times())
def test_a_window_lies_ahead(now: datetime, opens: time, closes: time) -> None:
    """Whatever the hours, the window begins within a day, ends after it begins, and lasts at most a day."""
    first, last = f"{opens:%H:%M}", f"{closes:%H:%M}"
    if first == last:
        return
    moment = now.astimezone()
    begin, end = Hours(first, last).window(moment)
    assert end is not None
    assert moment <= begin <= moment + timedelta(days=1, hours=1)
    assert begin < end <= begin + timedelta(days=1, hours=1)


@pytest.mark.parametrize("option", ["--not-before", "--until"])
@pytest.mark.parametrize("value", ["9", "25:00", "09:60", "nine"])
def test_no_time_of_day(
    served: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    """What is no time of day is a usage error that shows one."""
    assert run(["issue", written(tmp_path / "a.txt", *guests(2)), *OPTIONS, option, value]) == 2
    assert f"{option} must be a time of day such as 09:00" in capsys.readouterr().err
    assert served.jobs_accepted == 0


def test_nothing_is_sent_after_hours(
    served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the time is up, the run stops as by Ctrl-C, and the same command goes on the next day."""
    file = written(tmp_path / "a.txt", *guests(400))
    command = ["issue", file, *OPTIONS, "--batch-size", "1", "--not-before", "12:00", "--until", "21:00"]
    monkeypatch.setattr("thanx_async.cli._hours._LOOK_AGAIN", 0.01)
    for module in ("_hours", "_issue"):
        monkeypatch.setattr(
            f"thanx_async.cli.{module}.local_now",
            lambda: NOON + timedelta(hours=10 * (served.jobs_accepted >= 3)),
        )
    assert run(command) == 3
    said = capsys.readouterr().err
    assert "It is 21:00: nothing more is sent" in said
    assert "to continue, give the same command" in said
    assert 3 <= served.jobs_accepted < 400
    for module in ("_hours", "_issue"):
        monkeypatch.setattr(f"thanx_async.cli.{module}.local_now", lambda: NOON)
    assert run(command) == 0
    assert served.reward_counts() == dict.fromkeys(guests(400), 1)


def test_waiting_for_the_hours(
    served: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that is started early says until when it waits, and sends nothing before."""
    sent_early: list[int] = []

    def clock() -> datetime:
        if len(sent_early) < 5:
            sent_early.append(served.jobs_accepted)
            return NOON
        return NOON + timedelta(hours=2)

    monkeypatch.setattr("thanx_async.cli._hours._LOOK_AGAIN", 0.01)
    for module in ("_hours", "_issue"):
        monkeypatch.setattr(f"thanx_async.cli.{module}.local_now", clock)
    file = written(tmp_path / "a.txt", *guests(2))
    assert run(["issue", file, *OPTIONS, "--not-before", "13:00"]) == 0
    assert "Waiting until 2026-03-04 13:00; nothing is sent before" in capsys.readouterr().err
    assert sent_early == [0] * 5
    assert served.reward_counts() == dict.fromkeys(guests(2), 1)
