"""Spans and metrics, as OpenTelemetry's own SDK sees them."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.helpers import TARGET, guests
from thanx_async import AsyncBatcher, BatchError, RetryPolicy, ThanxClient
from thanx_async.emulator import Emulator, ScriptedAnswer
from thanx_async.instrumentation import Record
from thanx_async.otel import OpenTelemetryHook


class Seen:
    """A hook, and what it has exported."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        tracing = TracerProvider()
        tracing.add_span_processor(SimpleSpanProcessor(self._spans))
        self.hook = OpenTelemetryHook(
            tracer_provider=tracing,
            meter_provider=MeterProvider([self._metrics]),
            then=self.records.append,
        )

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def values(self, name: str) -> dict[object, float]:
        """A counter's values, or a histogram's counts, by the last attribute."""
        data = self._metrics.get_metrics_data()
        points = [
            point
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        return {
            list((point.attributes or {}).values())[-1]: getattr(point, "value", getattr(point, "count", 0))
            for point in points
        }


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
    assert attributes["thanx.job"] == handle.id
    assert (attributes["thanx.state"], attributes["thanx.issued"]) == ("completed", 1)
    children = [span for span in seen.spans("thanx.request") if span.parent is not None]
    assert [(span.attributes or {})["http.response.status_code"] for span in children] == [502, 429, 202]
    assert batch.context is not None
    assert {span.parent.span_id for span in children if span.parent} == {batch.context.span_id}
    assert batch.start_time is not None
    assert all(batch.start_time <= (span.start_time or 0) for span in children)
    assert seen.values("thanx.guests") == {"issued": 1, "failed": 0}
    assert seen.values("thanx.retries") == {"/partner/campaigns/issue": 1}
    assert seen.values("thanx.rate_limit.refusals") == {"/partner/campaigns/issue": 1}
    assert seen.values("thanx.rate_limit.wait")["issue"] >= 1
    assert sum(seen.values("thanx.requests").values()) == len(emulator.requests)
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
    assert seen.values("thanx.guests") == {outcome: 5}


async def test_a_revoked_job_counts_once(emulator: Emulator, seen: Seen) -> None:
    """Taking rewards back does not count their guests again."""
    async with ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client:
        handle = await client.issue_rewards(**TARGET, identifiers=guests(2))
        await handle
        await handle.revoke()
        assert (await handle.wait()).state == "revoked"
    assert seen.values("thanx.guests") == {"issued": 2, "failed": 0}


async def test_spans_of_jobs_that_nobody_waits_for_are_bounded(
    emulator: Emulator, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest open span ends where too many are open."""
    monkeypatch.setattr("thanx_async.otel._MOST_OPEN", 2)
    async with ThanxClient("c", "t", base_url=emulator.url, hook=seen.hook) as client:
        await AsyncBatcher(client, **TARGET, batch_size=1, max_concurrency=1).issue(guests(4))
    assert len(seen.spans("thanx.batch")) == 2
