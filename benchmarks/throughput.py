"""CPU for a million guests, from texts to answers, beside hand-written and generated clients."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks import guests, harness, rivals
from benchmarks.issuing import issue
from benchmarks.sink import received, sink

_NAME = "benchmarks.throughput"
_MILLION = 1_000_000
_OURS, _BY_HAND, _GENERATED = "thanx_async", "by hand: aiohttp + orjson", "generated: openapi-python-client"
_TARGET, _TIMES_BY_HAND, _TIMES_LESS = 0.7, 3.0, 6.0


def _measured(send: rivals.Send, url: str, texts: Sequence[str]) -> harness.Sample:
    gc.freeze()  # collections that walk the input are not the sender's doing
    before, started = received(url), time.process_time()
    asyncio.run(send(url, texts))
    cpu = (time.process_time() - started) * _MILLION / len(texts)
    return {"cpu": cpu, "received": received(url) - before}


def _ours(url: str, count: str) -> harness.Sample:
    return _measured(issue, url, list(guests.plain(int(count))))


def _with_duplicates(url: str, count: str) -> harness.Sample:
    send = partial(issue, deduplicate=False)
    return _measured(send, url, list(guests.plain(int(count))))


def _exported(url: str, count: str) -> harness.Sample:
    return _measured(issue, url, list(guests.exported(int(count))))


def _by_hand(url: str, count: str) -> harness.Sample:
    return _measured(rivals.aiohttp_orjson, url, list(guests.plain(int(count))))


def _httpx(url: str, count: str) -> harness.Sample:
    return _measured(rivals.httpx_json, url, list(guests.plain(int(count))))


def _generated(url: str, count: str, directory: str) -> harness.Sample:
    return _measured(rivals.generated(directory), url, list(guests.plain(int(count))))


PARTS: dict[str, harness.Part] = {
    "ours": _ours,
    "with-duplicates": _with_duplicates,
    "exported": _exported,
    "by-hand": _by_hand,
    "httpx": _httpx,
    "generated": _generated,
}


def main() -> None:
    """Measure, compare, publish."""
    count = harness.size(_MILLION, quick=200_000)
    with sink() as url, TemporaryDirectory() as directory:
        rivals.generate(directory)
        run = partial(harness.part, _NAME)
        contenders = {
            _OURS: partial(run, "ours", url, count),
            "thanx_async, deduplicate=False": partial(run, "with-duplicates", url, count),
            "thanx_async, as people typed": partial(run, "exported", url, count),
            _BY_HAND: partial(run, "by-hand", url, count),
            "by hand: httpx + json": partial(run, "httpx", url, count),
            _GENERATED: partial(run, "generated", url, count, directory),
        }
        samples = harness.interleave(contenders, rounds=harness.size(5, quick=3))
    harness.publish(_report(samples, list(contenders)))
    harness.bars(
        "throughput",
        "CPU seconds for a million guests, from texts to answers",
        "seconds of the client's CPU time; only thanx_async validates and de-duplicates",
        {name: samples.median(name, "cpu") for name in contenders},
        target=_TARGET,
    )


def _report(samples: harness.Samples, names: Sequence[str]) -> harness.Report:
    ours = samples.median(_OURS, "cpu")
    by_hand = samples.ratio(_OURS, _BY_HAND, "cpu")
    generated = samples.ratio(_GENERATED, _OURS, "cpu")
    return harness.Report(
        name="throughput",
        question="CPU seconds for a million guests, net of making the input",
        columns=("", "CPU s", "times thanx_async"),
        rows=[
            (name, f"{samples.median(name, 'cpu'):.2f}", f"{samples.ratio(name, _OURS, 'cpu'):.2f}")
            for name in names
        ],
        headlines=[
            harness.Headline(
                "CPU for a million guests, validated and de-duplicated",
                f"{ours:.2f} s",
                f"{_TARGET} s",
                f"{ours / by_hand:.2f} s by hand with aiohttp and orjson, unchecked",
                met=ours <= _TARGET and by_hand <= _TIMES_BY_HAND,
            ),
            harness.Headline(
                "... beside a client generated from OpenAPI",
                f"{generated:.1f} times less",
                f"{_TIMES_LESS:g} times less",
                f"{samples.median(_GENERATED, 'cpu'):.2f} s",
                met=generated >= _TIMES_LESS,
            ),
        ],
        samples=samples,
    )


if __name__ == "__main__":
    harness.start(PARTS, main)
