"""The worker as a process: what is acknowledged has a reward, what is not is left with the broker."""

import asyncio
import json
import signal
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers import guests, until
from tests.hosts.programs import WORKER, Process
from thanx_async.emulator import Emulator, Faults

PROGRAM = WORKER.partition('if __name__ == "__main__"')[0]
BROKER = '''

import json


class Broker(asyncio.Queue):
    """A backlog, and, if endless, one more guest whenever one is asked for."""

    def __init__(self, count, endless):
        super().__init__()
        self.given, self._endless = 0, endless
        for _ in range(count):
            self.give()
        self.put_nowait("junk")

    def give(self):
        self.put_nowait(f"guest{self.given}@example.com")
        self.given += 1

    async def get(self):
        if self._endless:
            await asyncio.sleep(0.002)
            self.give()
        return await super().get()

    def report(self):
        left = [self.get_nowait() for _ in range(self.qsize())]
        print(json.dumps({"given": self.given, "open": self._unfinished_tasks, "left": left}))
'''
START = """

broker = Broker(500, endless=True)
asyncio.run(main(broker))
broker.report()
"""


@pytest.mark.realtime
async def test_the_program_as_it_stands(tmp_path: Path) -> None:
    """It issues what is in its queue, and ends in peace when it is asked to."""
    async with Emulator() as emulator:
        with Process(WORKER, tmp_path, emulator) as process:
            await until(emulator.reward_counts)
            process.terminate()
            assert await process.ended() == 0
            assert (process.out, process.err) == ("", "")
        assert emulator.reward_counts() == {"jane@example.com": 1}


async def test_many_messages_become_few_calls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backlog goes out in large batches, junk does not stop it, and everything is acknowledged."""
    module = ModuleType("worker")
    exec(PROGRAM + BROKER, vars(module))  # noqa: S102 - the project's own README
    broker = module.Broker(25_000, endless=False)
    async with Emulator() as emulator, asyncio.TaskGroup() as group:
        for name, value in (("BASE_URL", emulator.url), ("CLIENT_ID", "c"), ("ACCESS_TOKEN", "t")):
            monkeypatch.setenv(f"THANX_{name}", value)
        group.create_task(module.main(broker))
        await until(lambda: len(emulator.reward_counts()) >= 25_000)
        signal.raise_signal(signal.SIGTERM)
    broker.report()
    *printed, report = capsys.readouterr().out.splitlines()
    assert json.loads(report) == {"given": 25_000, "open": 0, "left": []}
    assert [line[:46] for line in printed] == ["not a guest: neither an e-mail address (no @) "]
    assert emulator.reward_counts() == dict.fromkeys(guests(25_000), 1)
    assert len(emulator.requests) < 100


@pytest.mark.realtime
async def test_sigterm_under_load(tmp_path: Path) -> None:
    """Over a bad line, too, what is in hand is seen through; what was refused is left with the broker and
    has no reward; nobody is forgotten and nobody has two."""
    faults = Faults(seed=1, reset_before=0.1, reset_after=0.2, error_500=0.1)
    async with Emulator(faults=faults) as emulator:
        with Process(PROGRAM + BROKER + START, tmp_path, emulator) as process:
            await until(lambda: len(emulator.reward_counts()) >= 1000)
            process.terminate()
            assert await process.ended() == 0, process.err
            assert "Traceback" not in process.err
            *_, line = process.out.splitlines()
    report, rewards = json.loads(line), emulator.reward_counts()
    assert report["open"] == len(report["left"])
    assert set(rewards.values()) == {1}
    assert set(rewards).isdisjoint(report["left"])
    forgotten = {*guests(report["given"])} - {*rewards, *report["left"]}
    assert len(forgotten) <= process.out.count(" in doubt")
