"""Spans and metrics, as OpenTelemetry's own SDK sees them."""

import asyncio
from collections import Counter
from typing import cast

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.helpers import BAD, LOST, ONCE, TARGET, guests
from thanx_async import (
    AsyncBatcher,
    BatchError,
    ConfigurationError,
    ConnectionFailedError,
    JobHandle,
    NotFoundError,
    RateLimiter,
    RetryPolicy,
    SQLiteLedger,
    ThanxClient,
)
from thanx_async.emulator import Emulator, ScriptedAnswer
from thanx_async.emulator.answers import Refused
from thanx_async.instrumentation import Record, RequestRecord
from thanx_async.otel import OpenTelemetryHook


class Seen:
    """A hook, and what it has exported."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        tracing = TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = tracing.get_tracer("the application")
        self.hook = OpenTelemetryHook(
            tracer_provider=tracing,
            meter_provider=MeterProvider([self._metrics]),
            then=self.records.append,
        )

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def requests(self) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.kind is SpanKind.CLIENT]

    def points(self, name: str) -> list[NumberDataPoint | HistogramDataPoint]:
        data = self._metrics.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
            if isinstance(point, NumberDataPoint | HistogramDataPoint)
        ]

    def values(self, name: str, attribute: str) -> dict[object, float]:
        """A counter's values, or a histogram's counts, by an attribute."""
        found: dict[object, float] = {}
        for point in self.points(name):
            key = (point.attributes or {}).get(attribute)
            value = point.count if isinstance(point, HistogramDataPoint) else point.value
            found[key] = found.get(key, 0) + value
        return found

    def outcomes(self) -> dict[object, float]:
        return self.values("thanx.guests", "thanx.outcome")


@pytest.fixture
def seen() -> Seen:
    return Seen()


async def test_from_add_to_issued(emulator: Emulator, seen: Seen) -> None:
    """One span from the first add to the end of the job, with a child for each attempt."""
    emulator.script(ScriptedAnswer(fault="html_502"), ScriptedAnswer(429, b"{}"))
    retry = RetryPolicy(base_delay=0.01)
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=retry, hook=seen.hook) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        handle = await batcher.add("a@example.com")
        await handle
    (batch,) = seen.spans("thanx.batch")
    attributes = batch.attributes or {}
    assert attributes["thanx.job.id"] == handle.id
    assert (attributes["thanx.job.state"], attributes["thanx.job.issued"]) == ("completed", 1)
    children = [span for span in seen.requests() if span.parent is not None]
    assert [(span.attributes or {})["http.response.status_code"] for span in children] == [502, 429, 202]
    resends = [(span.attributes or {}).get("http.request.resend_count") for span in children]
    assert resends == [None, 1, 2]
    assert batch.context is not None
    assert {span.parent.span_id for span in children if span.parent} == {batch.context.span_id}
    assert batch.start_time is not None
    assert all(batch.start_time <= (span.start_time or 0) for span in children)
    assert seen.outcomes() == {"accepted": 1, "issued": 1, "failed": 0}
    assert seen.values("thanx.retries", "error.type") == {"ServerError": 1}
    assert seen.values("thanx.rate_limit.refusals", "url.template") == {"/partner/campaigns/issue": 1}
    assert seen.values("thanx.rate_limit.wait", "thanx.lane")["interactive"] >= 1
    durations = seen.values("http.client.request.duration", "http.request.method")
    assert sum(durations.values()) == len(emulator.requests)
    assert len(seen.records) > 5


@pytest.mark.parametrize(("fault", "outcome"), [("reset_after", "in_doubt"), ("reset_before", "in_doubt")])
async def test_doubt(emulator: Emulator, seen: Seen, fault: str, outcome: str) -> None:
    """A batch without an answer ends its span as an error, and counts its guests as in doubt."""
    emulator.script(ScriptedAnswer(fault=fault))
    retry = RetryPolicy(max_attempts=1)
    async with ThanxClient("c", "t", base_url=emulator.url, retry=retry, hook=seen.hook) as client:
        with pytest.raises(BatchError):
            await AsyncBatcher(client, **TARGET).issue(guests(5))
    (batch,) = seen.spans("thanx.batch")
    assert not batch.status.is_ok
    assert seen.outcomes() == {outcome: 5}


async def test_a_revoked_job_counts_once(emulator: Emulator, seen: Seen) -> None:
    """Taking rewards back does not count their guests again."""
    async with ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client:
        handle = await client.issue_rewards(**TARGET, identifiers=guests(2))
        await handle
        await handle.revoke()
        assert (await handle.wait()).state == "revoked"
    assert seen.outcomes() == {"issued": 2, "failed": 0}


async def test_spans_of_jobs_that_nobody_waits_for_are_bounded(
    emulator: Emulator, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest open span ends where too many are open."""
    monkeypatch.setattr("thanx_async.otel._MAX_OPEN", 2)
    async with ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client:
        await AsyncBatcher(client, **TARGET, batch_size=1, max_concurrency=1).issue(guests(4))
    assert len(seen.spans("thanx.batch")) == 2


async def test_a_service_that_only_adds(emulator: Emulator, seen: Seen) -> None:
    """Guests are counted once their batch is accepted or refused, although nobody asks for an outcome."""
    async with (
        ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        await asyncio.gather(*map(batcher.add, guests(3)))
        emulator.script(BAD)
        await asyncio.gather(*map(batcher.add, guests(2)), return_exceptions=True)
    assert seen.outcomes() == {"accepted": 3, "refused": 2}


async def test_histograms_have_bounds_in_seconds(emulator: Emulator, seen: Seen) -> None:
    """Requests of milliseconds and waits of a quarter of an hour both fall between two bounds."""
    async with ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client:
        for _ in range(6):
            await client.list_merchants()
    for name in ("http.client.request.duration", "thanx.rate_limit.wait"):
        for point in seen.points(name):
            assert isinstance(point, HistogramDataPoint)
            assert point.explicit_bounds[0] <= 0.01
            assert point.explicit_bounds[-1] >= 10
            assert len(point.explicit_bounds) >= 14


async def test_requests_follow_the_conventions(emulator: Emulator, seen: Seen) -> None:
    """A request's span and duration name the server; the URL is on the span only, with no secret in it."""
    emulator.script(ScriptedAnswer(404, b"{}", headers={"X-Request-Id": "req-1"}))
    async with ThanxClient("c", "s3cret-token", base_url=emulator.url, retry=ONCE, hook=seen.hook) as client:
        with pytest.raises(NotFoundError) as caught:
            await client.get_issuance_job("job1", merchant_id="m")
    assert caught.value.request_id == "req-1"
    (span,) = seen.requests()
    (point,) = seen.points("http.client.request.duration")
    port = int(emulator.url.rpartition(":")[2])
    expected = {
        "http.request.method": "GET",
        "url.template": "/partner/issuance_jobs/{id}",
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 404,
        "error.type": "NotFoundError",
    }
    assert point.attributes == expected
    full = f"{emulator.url}/partner/issuance_jobs/job1?merchant_id=m"
    assert span.attributes == expected | {
        "url.full": full,
        "http.response.header.x-request-id": ("req-1",),
    }
    assert span.name == "GET /partner/issuance_jobs/{id}"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)


async def test_a_request_without_an_answer(emulator: Emulator, seen: Seen) -> None:
    """Its span says in words what the status code of an answer would say."""
    emulator.script(LOST)
    async with ThanxClient("c", "t", base_url=emulator.url, retry=ONCE, hook=seen.hook) as client:
        with pytest.raises(ConnectionFailedError):
            await client.list_merchants()
    (span,) = seen.requests()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "ConnectionFailedError")


async def test_default_ports(seen: Seen) -> None:
    """A URL without a port names that of its scheme."""
    record = RequestRecord("GET", "/e", 1, 0.1, 200, None, None, url="https://api.thanxsandbox.com/e")
    seen.hook(record)
    (span,) = seen.requests()
    assert (span.attributes or {})["server.address"] == "api.thanxsandbox.com"
    assert (span.attributes or {})["server.port"] == 443


def refuse_poison(kind: str, value: str) -> str | None:
    if value.startswith("poison"):
        raise Refused(400, "one of the identifiers is no e-mail address", "USER_EMAIL_INVALID")
    return None


async def test_a_batch_that_is_split(seen: Seen) -> None:
    """Its guests count once, with the halves, and only the span of the guest at fault is an error."""
    names = [*guests(6), "poison@example.com", *guests(9, start=6)]
    async with (
        Emulator(fails=refuse_poison) as emulator,
        ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        results = await asyncio.gather(*map(batcher.add, names), return_exceptions=True)
        for result in results:
            if isinstance(result, JobHandle):
                await result
    assert seen.outcomes() == {"accepted": 15, "refused": 1, "issued": 15, "failed": 0}
    fates = Counter((span.attributes or {})["thanx.batch.fate"] for span in seen.spans("thanx.batch"))
    assert fates == {"split": 4, "accepted": 4, "refused": 1}
    (wrong,) = [span for span in seen.spans("thanx.batch") if not span.status.is_ok]
    assert (wrong.attributes or {})["thanx.batch.size"] == 1
    assert (wrong.attributes or {})["error.type"] == "BadRequestError"


async def test_a_micro_batch_is_linked_to_its_callers(emulator: Emulator, seen: Seen) -> None:
    """It is the root of a trace of its own, whoever has opened the batcher, with one link to each caller."""

    async def handle(name: str) -> None:
        with seen.tracer.start_as_current_span(name):
            await batcher.add(f"{name}@example.com")

    with seen.tracer.start_as_current_span("opener"):
        async with (
            ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client,
            AsyncBatcher(client, **TARGET) as batcher,
        ):
            await asyncio.gather(handle("caller1"), handle("caller2"), batcher.add("caller1@example.com"))
            await batcher.outcome("caller1@example.com")
    (batch,) = seen.spans("thanx.batch")
    assert batch.parent is None
    linked = [link.context.span_id for link in batch.links]
    callers = [*seen.spans("caller1"), *seen.spans("caller2"), *seen.spans("opener")]
    assert sorted(linked) == sorted(span.context.span_id for span in callers if span.context)
    (request,) = [span for span in seen.requests() if span.name.startswith("POST")]
    assert request.parent is not None
    assert batch.context is not None
    assert request.parent.span_id == batch.context.span_id


async def test_links_are_bounded(emulator: Emulator, seen: Seen) -> None:
    """Callers in one span are one link, and a batch of many callers has no more links than spans may have."""

    async def handle(guest: str) -> JobHandle:
        with seen.tracer.start_as_current_span("caller"):
            return await batcher.add(guest)

    async with (
        ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client,
        AsyncBatcher(client, **TARGET) as batcher,
    ):
        with seen.tracer.start_as_current_span("caller"):
            first, *_ = await asyncio.gather(*map(batcher.add, guests(10)))
        second, *_ = await asyncio.gather(*map(handle, guests(200)))
        third = await batcher.add("alone@example.com")
        for job in (first, second, third):
            await job
    assert [len(span.links) for span in seen.spans("thanx.batch")] == [1, 128, 0]


async def test_a_batch_of_a_run_belongs_to_its_caller(emulator: Emulator, seen: Seen) -> None:
    """The spans of a bulk run are children of the span that it was started in, without links."""
    async with ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client:
        with seen.tracer.start_as_current_span("job"):
            run = await AsyncBatcher(client, **TARGET).issue(guests(3))
            await run.wait()
    (batch,), (job,) = seen.spans("thanx.batch"), seen.spans("job")
    assert batch.parent is not None
    assert job.context is not None
    assert batch.parent.span_id == job.context.span_id
    assert not batch.links


async def test_doubts_count_once(emulator: Emulator, seen: Seen, ledger: SQLiteLedger) -> None:
    """Guests are counted as in doubt once, however often their batch is tried, and then as accepted."""
    emulator.script(*[LOST] * 4)
    async with (
        ThanxClient("c", "t", base_url=emulator.url, retry=ONCE, hook=seen.hook) as client,
        AsyncBatcher(client, **TARGET, ledger=ledger) as batcher,
    ):
        with pytest.raises(ConnectionFailedError):
            await batcher.add("a@example.com")
        assert (await batcher.outcome("a@example.com")).issued
    assert seen.outcomes() == {"in_doubt": 1, "accepted": 1, "issued": 1, "failed": 0}
    assert len(seen.spans("thanx.batch")) == 5


async def test_the_other_hook_is_checked_and_guarded(
    emulator: Emulator, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """An async one is refused by name, and one that fails is logged."""

    async def awaited(record: Record) -> None:
        raise AssertionError

    with pytest.raises(ConfigurationError, match="then must be a plain function"):
        OpenTelemetryHook(then=awaited)  # type: ignore[arg-type]  # wrong on purpose

    def broken(record: Record) -> None:
        raise ValueError("oops")

    hook = OpenTelemetryHook(then=broken)
    async with ThanxClient("c", "t", base_url=emulator.url, hook=hook) as client:
        await client.list_merchants()
    assert "the hook failed on a RequestRecord" in caplog.text


async def test_gauges_of_the_limits(emulator: Emulator, seen: Seen) -> None:
    """What is used, free and reserved of each limit is there once a limiter is observed."""
    assert seen.points("thanx.rate_limit.used") == []
    async with ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client:
        seen.hook.observe(client.limiter)
        await client.issue_rewards(**TARGET, identifiers=guests(1))
        by_window = "thanx.rate_limit.window"
        assert seen.values("thanx.rate_limit.used", by_window) == {1.0: 1, 900.0: 1}
        assert seen.values("thanx.rate_limit.free", by_window) == {1.0: 4, 900.0: 1999}
        assert seen.values("thanx.rate_limit.reserved", by_window) == {1.0: 0, 900.0: 200}
        held = seen.values("thanx.rate_limit.held", "thanx.lane")
        assert set(held) == {"interactive", "issue"}
        assert all(0 <= seconds <= 0.2 for seconds in held.values())


def test_what_is_no_limiter_is_not_observed(seen: Seen) -> None:
    """A wrong argument is told at once, not when metrics are read."""
    with pytest.raises(ConfigurationError, match="limiter must be a rate limiter"):
        seen.hook.observe(cast(RateLimiter, None))
