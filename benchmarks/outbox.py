"""Outboxes on a file and on a private PostgreSQL server: puts, many puts, a drain, and the size of an id."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks import guests, harness
from benchmarks.issuing import TARGET, client_of
from benchmarks.sink import sink
from tests.servers import PostgresServer, folder_of
from thanx_async import SQLiteOutbox
from thanx_async.ledger import LaneLedger
from thanx_async.outbox import StoredOutbox
from thanx_async.postgres import PostgresOutbox, init

_COUNT, _COUNT_QUICK = 1_000_000, 50_000
_SINGLES, _SINGLES_QUICK = 5_000, 500
_AT_ONCE = 20
_ROUNDS = 3
_FILE, _SERVER = "SQLite", "PostgreSQL"
_LABELS = {
    "singles": f"single puts a second, {_AT_ONCE} producers",
    "many": "put_many: guests a second",
    "many_cpu": "put_many: CPU of the client, s a million",
    "drain_cpu": "drain: CPU of the worker, s a million",
    "server_cpu": "puts and drain: CPU of the server, s a million",
    "wal": "puts and drain: log of the server, bytes a guest",
    "bytes": "bytes an id",
}

Box = StoredOutbox[LaneLedger]


def _outbox(store: str, url: str) -> Box:
    kind = PostgresOutbox if store.startswith("postgresql://") else SQLiteOutbox
    return kind(store, **TARGET, client_id="client", base_url=url)


async def _singles(outbox: Box, count: int) -> float:
    """Puts a second, each of 20 producers one after the other; all are committed together where they meet."""
    numbers = iter(range(count))

    async def produce() -> None:
        for number in numbers:
            await outbox.put(f"single{number}@example.com", id=f"single-{number}")

    started = time.perf_counter()
    await asyncio.gather(*[produce() for _ in range(_AT_ONCE)])
    return count / (time.perf_counter() - started)


async def _measure(store: str, url: str, count: int, singles: int) -> harness.Sample:
    async with client_of(url) as client, _outbox(store, url) as outbox:
        found = {"singles": await _singles(outbox, singles)}
        started, cpu = time.perf_counter(), time.process_time()
        pairs = ((guest, f"order-{number}") for number, guest in enumerate(guests.plain(count)))
        assert await outbox.put_many(pairs) == count
        found["many"] = count / (time.perf_counter() - started)
        found["many_cpu"] = (time.process_time() - cpu) * 1e6 / count
        cpu = time.process_time()
        await outbox.drain(client, until_empty=True)
        found["drain_cpu"] = (time.process_time() - cpu) * 1e6 / (count + singles)
        status = await outbox.status()
        assert status.waiting == status.accepted == status.in_doubt == 0
    return found


def _run(store: str, url: str, count: str, singles: str) -> harness.Sample:
    return asyncio.run(_measure(store, url, int(count), int(singles)))


PARTS: dict[str, harness.Part] = {"run": _run}


def _on_file(url: str, count: int, singles: int) -> harness.Sample:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox.sqlite"
        found = harness.part("benchmarks.outbox", "run", path, url, count, singles)
        return {**found, "bytes": path.stat().st_size / (count + singles)}


def _on_server(server: PostgresServer, url: str, count: int, singles: int) -> harness.Sample:
    server.sql("postgres", "DROP DATABASE IF EXISTS outbox")
    server.sql("postgres", "CREATE DATABASE outbox")
    dsn = server.dsn("outbox")
    asyncio.run(init(dsn))
    wal, cpu = _wal(server), _cpu_of_children(server)
    found = harness.part("benchmarks.outbox", "run", dsn, url, count, singles)
    total = count + singles
    return {
        **found,
        "wal": (_wal(server) - wal) / total,
        "server_cpu": (_cpu_of_children(server) - cpu) * 1e6 / total,
        "bytes": int(server.sql("outbox", "SELECT pg_total_relation_size('thanx.guests')")) / total,
    }


def _wal(server: PostgresServer) -> int:
    """The bytes written to the log so far."""
    return int(server.sql("postgres", "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))


def _cpu_of_children(server: PostgresServer) -> float:
    """Seconds of CPU of the server's processes that have ended."""
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, compare, publish."""
    count = harness.size(_COUNT, quick=_COUNT_QUICK)
    singles = harness.size(_SINGLES, quick=_SINGLES_QUICK)
    with sink() as url, folder_of("postgres") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            contenders = {
                _FILE: partial(_on_file, url, count, singles),
                _SERVER: partial(_on_server, server, url, count, singles),
            }
            samples = harness.interleave(contenders, rounds=harness.size(_ROUNDS, quick=1))
        finally:
            server.stop(signal.SIGINT)
    harness.publish(_report(samples, count))


def _report(samples: harness.Samples, count: int) -> harness.Report:
    rows = [
        (label, *[_cell(samples, store, key) for store in (_FILE, _SERVER)]) for key, label in _LABELS.items()
    ]
    return harness.Report(
        name="outbox",
        question=f"An outbox of {count:,} guests",
        columns=("", _FILE, _SERVER),
        rows=rows,
        samples=samples,
        headlines=[
            harness.Headline(
                f"Single puts a second, {_AT_ONCE} producers, PostgreSQL",
                f"{samples.median(_SERVER, 'singles'):,.0f}",
                "1,000",
                met=samples.median(_SERVER, "singles") >= 1000,
            ),
            harness.Headline(
                "CPU of draining a million guests, PostgreSQL",
                f"{samples.median(_SERVER, 'drain_cpu'):.1f} s",
                "1.5 s",
                met=samples.median(_SERVER, "drain_cpu") <= 1.5,
            ),
        ],
    )


def _cell(samples: harness.Samples, store: str, key: str) -> str:
    try:
        return f"{samples.median(store, key):,.1f}"
    except KeyError:
        return ""


if __name__ == "__main__":
    harness.start(PARTS, main)
