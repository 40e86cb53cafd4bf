"""OpenTelemetry for the records of `thanx_async.instrumentation`; needs the extra ``otel``."""

from __future__ import annotations

from collections import OrderedDict
from time import time_ns

from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from thanx_async._version import __version__
from thanx_async.instrumentation import (
    BatchEvent,
    BatchFate,
    Hook,
    JobRecord,
    Record,
    RequestRecord,
    RetryRecord,
    WaitRecord,
    log_record,
)

_NAME = "thanx_async"
_MOST_OPEN = 10_000


class OpenTelemetryHook:
    """Spans and metrics, as ``ThanxClient(..., hook=OpenTelemetryHook())``.

    A span ``thanx.batch`` starts when the batch's oldest guest comes in and ends when its job is known to be
    finished. Each attempt is a child span ``thanx.request``. If no caller waits for the job, the span ends
    once 10,000 newer ones are open.

    Metrics: ``thanx.requests``, ``thanx.request.duration`` (s), ``thanx.retries``,
    ``thanx.rate_limit.refusals``, ``thanx.rate_limit.wait`` (s), and ``thanx.guests`` by ``outcome``:
    issued, failed, refused, in_doubt or unsent.

    Args:
        tracer_provider, meter_provider: the global providers by default.
        then: another hook that gets each record; by default `log_record`.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        then: Hook = log_record,
    ) -> None:
        self._then = then
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        meter = metrics.get_meter(_NAME, __version__, meter_provider)
        self._requests = meter.create_counter("thanx.requests", "{request}", "Attempts by answer")
        self._duration = meter.create_histogram("thanx.request.duration", "s", "From sending to the answer")
        self._retries = meter.create_counter("thanx.retries", "{request}", "Requests sent again")
        self._refusals = meter.create_counter(
            "thanx.rate_limit.refusals", "{request}", "Answers with status 429"
        )
        self._wait = meter.create_histogram("thanx.rate_limit.wait", "s", "Waits for the rate limits")
        self._guests = meter.create_counter("thanx.guests", "{guest}", "Guests by outcome")
        self._open: OrderedDict[str, Span] = OrderedDict()

    def __call__(self, record: Record, /) -> None:
        match record:
            case WaitRecord(lane, seconds):
                self._wait.record(seconds, {"lane": lane})
            case RetryRecord(method, endpoint):
                self._retries.add(1, {"http.request.method": method, "url.template": endpoint})
            case RequestRecord():
                self._request(record)
            case BatchEvent():
                self._batch(record)
            case JobRecord():
                self._job(record)
        self._then(record)

    def _request(self, record: RequestRecord) -> None:
        attributes: dict[str, str | int] = {
            "http.request.method": record.method,
            "url.template": record.endpoint,
        }
        if record.status is not None:
            attributes["http.response.status_code"] = record.status
        if record.error is not None:
            attributes["error.type"] = record.error
        self._requests.add(1, attributes)
        self._duration.record(record.seconds, attributes)
        if record.status == 429:
            self._refusals.add(1, {"url.template": record.endpoint})
        parent = self._open.get(record.idempotency_key or "")
        span = self._tracer.start_span(
            "thanx.request",
            context=trace.set_span_in_context(parent) if parent else None,
            kind=SpanKind.CLIENT,
            attributes={**attributes, "thanx.attempt": record.attempt},
            start_time=_ago(record.seconds),
        )
        if record.error is not None:
            span.set_status(StatusCode.ERROR, record.error)
        span.end()

    def _batch(self, record: BatchEvent) -> None:
        key = record.idempotency_key
        if record.fate is BatchFate.SENDING:
            attributes: dict[str, str | int] = {
                "thanx.run": record.run_id,
                "thanx.batch": record.number,
                "thanx.guests": record.count,
                "thanx.idempotency_key": key,
            }
            start = _ago(record.seconds)
            self._keep(key, self._tracer.start_span("thanx.batch", attributes=attributes, start_time=start))
            return
        span = self._open.pop(key, None)
        if record.fate is BatchFate.ACCEPTED and record.job_id is not None:
            if span is not None:
                span.set_attribute("thanx.job", record.job_id)
                self._keep(record.job_id, span)
            return
        self._guests.add(record.count, {"outcome": record.fate.value})
        if span is not None:
            span.set_status(StatusCode.ERROR, record.error or record.fate.value)
            span.end()

    def _job(self, record: JobRecord) -> None:
        if record.state != "revoked":  # its guests were counted when the job completed
            self._guests.add(record.issued, {"outcome": "issued"})
            self._guests.add(record.failed, {"outcome": "failed"})
        if (span := self._open.pop(record.job_id, None)) is not None:
            span.set_attributes(
                {"thanx.state": record.state, "thanx.issued": record.issued, "thanx.failed": record.failed}
            )
            span.end()

    def _keep(self, name: str, span: Span) -> None:
        self._open[name] = span
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)[1].end()


def _ago(seconds: float) -> int:
    return time_ns() - int(seconds * 1e9)
