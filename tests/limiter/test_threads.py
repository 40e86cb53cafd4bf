"""One limiter in the event loops of several threads at once."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from tests.helpers import until
from tests.limiter.sending import check, send, stored
from thanx_async import Lane, LocalRateLimiter, RateLimit, RateLimiter, SQLiteRateLimiter

pytestmark = pytest.mark.realtime
LIMITS = [RateLimit(20, 0.5), RateLimit(30, 1.0)]
KINDS = ["memory", "file"]


def limiter_of(kind: str, folder: Path, limits: list[RateLimit] = LIMITS) -> RateLimiter:
    return LocalRateLimiter(limits) if kind == "memory" else SQLiteRateLimiter(folder / "limits", limits)


def in_threads(*programs: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run each on a loop of its own at the same time; what fails in one is raised here."""
    failures: list[BaseException] = []

    def run(program: Callable[[], Coroutine[object, object, None]]) -> None:
        try:
            asyncio.run(asyncio.wait_for(program(), 20))
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=[program], daemon=True) for program in programs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("kind", KINDS)
def test_threads_keep_the_limits_together(kind: str, tmp_path: Path) -> None:
    """Requests of three loops all get their slots, no window holds too many, and no loop goes short."""
    limiter = limiter_of(kind, tmp_path)
    sent: list[tuple[float, int]] = []

    def program(number: int) -> Callable[[], Coroutine[object, object, None]]:
        async def one(lane: Lane) -> None:
            moment: list[float] = []
            await send(limiter, moment, lane=lane, took=0.01)
            sent.append((moment[0], number))

        async def main() -> None:
            await asyncio.gather(*[one(Lane.POLL if index % 4 == 0 else Lane.ISSUE) for index in range(12)])

        return main

    in_threads(*[program(number) for number in range(3)])
    check(sorted(moment for moment, _ in sent), LIMITS)
    half = [number for _, number in sorted(sent)][:18]
    assert len(sent) == 36
    assert min(half.count(number) for number in range(3)) >= 3
    assert limiter.status().waiting == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_that_hangs_or_ends_holds_nobody_up(kind: str, tmp_path: Path) -> None:
    """A waiter whose loop does nothing any more, or is gone, does not keep others from their slots."""
    limiter = limiter_of(kind, tmp_path, [RateLimit(2, 0.4)])

    async def fill() -> None:
        for _ in range(3):
            await send(limiter, [])
        asyncio.create_task(send(limiter, [])).add_done_callback(lambda _: None)
        await until(lambda: limiter.status().waiting)

    stuck = asyncio.new_event_loop()
    stuck.run_until_complete(fill())
    in_threads(lambda: send(limiter, []))
    for task in asyncio.all_tasks(stuck):
        task.cancel()
    stuck.run_until_complete(asyncio.sleep(0.05))
    stuck.close()
    in_threads(lambda: send(limiter, []))
    assert limiter.status().waiting == 0


def test_what_one_loop_gives_back_another_uses() -> None:
    """Where the first in line is cancelled in one thread, one of another thread goes in its place."""
    limiter = LocalRateLimiter([RateLimit(1, 0.5)])
    stop = threading.Event()

    async def cancelled() -> None:
        await send(limiter, [])
        task = asyncio.create_task(send(limiter, []))
        await until(lambda: limiter.status().waiting == 2)
        task.cancel()
        await asyncio.wait([task])
        stop.set()

    async def other() -> None:
        await until(lambda: limiter.status().waiting)
        await send(limiter, [])
        assert stop.is_set()

    in_threads(cancelled, other)
    assert limiter.status().windows[0].used >= 1


def test_the_state_can_be_looked_at_from_any_thread() -> None:
    """A status taken while loops of other threads send is whole."""
    limiter = LocalRateLimiter([RateLimit(1000, 0.5)])
    done = threading.Event()

    async def busy() -> None:
        await asyncio.gather(*[send(limiter, []) for _ in range(200)])
        done.set()

    async def look() -> None:
        while not done.is_set():
            (window,) = limiter.status().windows
            assert window.used + window.free == 1000
            await asyncio.sleep(0)

    in_threads(busy, look, look)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_a_file_of_its_own(tmp_path: Path) -> None:
    """A limiter made before a fork is used on both sides, over connections of their own."""
    limiter = SQLiteRateLimiter(tmp_path / "limits", [RateLimit(100, 1)])
    asyncio.run(send(limiter, []))
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(send(limiter, []))
        except BaseException:  # noqa: BLE001 - told by the exit status
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    asyncio.run(send(limiter, []))
    assert stored(tmp_path / "limits").tokens == 3
