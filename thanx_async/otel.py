"""OpenTelemetry for the records of `thanx_async.instrumentation`; needs the extra ``otel``.

Source: opentelemetry.io, semantic conventions for HTTP client spans and metrics.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from time import time_ns
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, StatusCode

from thanx_async._core import checks
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
    emit,
    log_record,
)
from thanx_async.limiter import Lane, RateLimiter, WindowStatus

_NAME = "thanx_async"
_MAX_OPEN = 10_000
_MAX_LINKS = 128
_REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_WAIT_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 900)
_DEFAULT_PORTS = {"http": 80, "https": 443}

_GAUGES: tuple[tuple[str, str, Callable[[WindowStatus], int]], ...] = (
    ("used", "Requests that count against a rate limit", lambda window: window.used),
    ("free", "Requests left of a rate limit", lambda window: window.free),
    ("reserved", "Requests of a rate limit kept for interactive ones", lambda window: window.reserved),
)

_Attributes = dict[str, str | int]


class OpenTelemetryHook:
    """Spans and metrics, as ``ThanxClient(..., hook=OpenTelemetryHook())``.

    A span ``thanx.batch`` starts when the batch's oldest guest comes in and ends when its job is known to be
    finished. If nobody waits for the job, the span ends once 10,000 newer ones are open. Each attempt to send
    the batch is a child, a client span such as ``POST /partner/campaigns/issue``. For `AsyncBatcher.add`,
    ``thanx.batch`` is the root of a trace of its own, with links to the spans of up to 128 callers.

    Metrics: ``http.client.request.duration`` (s), ``thanx.retries``, ``thanx.rate_limit.refusals``,
    ``thanx.rate_limit.wait`` (s), and ``thanx.guests`` by ``thanx.outcome``: accepted, refused, in_doubt or
    unsent each time their batch was sent, though in_doubt only once, and issued or failed once their job is
    known to be finished. After `observe` also the gauges ``thanx.rate_limit.used``, ``.free`` and
    ``.reserved`` by ``thanx.rate_limit.window`` (s), and ``thanx.rate_limit.held`` (s).

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
        checks.callback("then", then, "callable with a record")
        self._then = then
        self._tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        self._open: OrderedDict[str, Span] = OrderedDict()
        self._limiter: RateLimiter | None = None
        meter = metrics.get_meter(_NAME, __version__, meter_provider)
        self._make_instruments(meter)
        self._make_gauges(meter)

    def _make_instruments(self, meter: metrics.Meter) -> None:
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_REQUEST_BOUNDS,
        )
        self._wait = meter.create_histogram(
            "thanx.rate_limit.wait",
            "s",
            "Waits for the rate limits",
            explicit_bucket_boundaries_advisory=_WAIT_BOUNDS,
        )
        self._retries = meter.create_counter("thanx.retries", "{request}", "Requests sent again")
        self._refusals = meter.create_counter(
            "thanx.rate_limit.refusals", "{request}", "Answers with status 429"
        )
        self._guests = meter.create_counter("thanx.guests", "{guest}", "Guests by outcome")

    def _make_gauges(self, meter: metrics.Meter) -> None:
        for name, text, value in _GAUGES:
            meter.create_observable_gauge(
                f"thanx.rate_limit.{name}", [partial(self._windows, value)], "{request}", text
            )
        meter.create_observable_gauge(
            "thanx.rate_limit.held", [self._held], "s", "Time until the next request may be sent"
        )

    def observe(self, limiter: RateLimiter) -> None:
        """Show a limiter in gauges, such as ``client.limiter``, in place of one observed before.

        A limiter shared by processes shows what its process has last seen.
        """
        checks.has("limiter", limiter, "a rate limiter", "status", "limits")
        self._limiter = limiter

    def _windows(self, value: Callable[[WindowStatus], int], _: object) -> Iterator[metrics.Observation]:
        for window in self._limiter.status().windows if self._limiter else ():
            yield metrics.Observation(value(window), {"thanx.rate_limit.window": window.limit.seconds})

    def _held(self, _: object) -> Iterator[metrics.Observation]:
        if self._limiter:
            status = self._limiter.status()
            yield metrics.Observation(status.held_for, {"thanx.lane": Lane.INTERACTIVE.value})
            yield metrics.Observation(
                max(status.held_for, status.bulk_held_for), {"thanx.lane": Lane.ISSUE.value}
            )

    def __call__(self, record: Record, /) -> None:
        match record:
            case WaitRecord(lane, seconds):
                self._wait.record(seconds, {"thanx.lane": lane})
            case RetryRecord():
                self._retries.add(1, _endpoint(record) | {"error.type": record.error})
            case RequestRecord():
                self._request(record)
            case BatchEvent():
                self._batch(record)
            case JobRecord():
                self._job(record)
        emit(self._then, record)

    def caller(self) -> SpanContext | None:
        """The span of a caller of `AsyncBatcher.add`, to link the batch to; None outside of any."""
        context = trace.get_current_span().get_span_context()
        return context if context.is_valid else None

    def _request(self, record: RequestRecord) -> None:
        attributes = _endpoint(record) | _server(record.url)
        if record.status is not None:
            attributes["http.response.status_code"] = record.status
        if record.error is not None:
            attributes["error.type"] = record.error
        self._duration.record(record.seconds, attributes)
        if record.status == 429:
            self._refusals.add(1, _endpoint(record))
        self._request_span(record, attributes)

    def _request_span(self, record: RequestRecord, attributes: _Attributes) -> None:
        parent = self._open.get(record.idempotency_key or "")
        span = self._tracer.start_span(
            f"{record.method} {record.endpoint}",
            context=trace.set_span_in_context(parent) if parent else None,
            kind=SpanKind.CLIENT,
            attributes=attributes | {"url.full": record.url},
            start_time=_ago(record.seconds),
        )
        if record.resend_count:
            span.set_attribute("http.request.resend_count", record.resend_count)
        if record.request_id is not None:
            span.set_attribute("http.response.header.x-request-id", [record.request_id])
        if record.error is not None:
            is_told_by_status = record.status is not None and record.status >= 400
            span.set_status(StatusCode.ERROR, None if is_told_by_status else record.error)
        span.end()

    def _batch(self, record: BatchEvent) -> None:
        if record.fate is BatchFate.SENDING:
            self._batch_begins(record)
            return
        if not _is_counted_elsewhere(record):
            self._guests.add(record.count, {"thanx.outcome": record.fate.value})
        span = self._open.pop(record.idempotency_key, None)
        if span is None:
            return
        span.set_attribute("thanx.batch.fate", record.fate.value)
        if record.fate is BatchFate.ACCEPTED and record.job_id is not None:
            span.set_attribute("thanx.job.id", record.job_id)
            self._keep(record.job_id, span)
            return
        if record.fate is not BatchFate.SPLIT:
            span.set_attribute("error.type", record.error or record.fate.value)
            span.set_status(StatusCode.ERROR, record.error or record.fate.value)
        span.end()

    def _batch_begins(self, record: BatchEvent) -> None:
        span = self._tracer.start_span(
            "thanx.batch",
            attributes={
                "thanx.run.id": record.run_id,
                "thanx.batch.number": record.number,
                "thanx.batch.size": record.count,
                "thanx.idempotency_key": record.idempotency_key,
            },
            links=_links(record.callers),
            start_time=None if record.was_in_doubt else _ago(record.seconds),
        )
        self._keep(record.idempotency_key, span)

    def _job(self, record: JobRecord) -> None:
        if record.state != "revoked":  # its guests were counted when the job completed
            self._guests.add(record.issued, {"thanx.outcome": "issued"})
            self._guests.add(record.failed, {"thanx.outcome": "failed"})
        if (span := self._open.pop(record.job_id, None)) is not None:
            span.set_attributes(
                {
                    "thanx.job.state": record.state,
                    "thanx.job.issued": record.issued,
                    "thanx.job.failed": record.failed,
                }
            )
            span.end()

    def _keep(self, name: str, span: Span) -> None:
        self._open[name] = span
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].end()


def _is_counted_elsewhere(record: BatchEvent) -> bool:
    """Guests of a split batch are counted with its halves, and guests in doubt when they came into doubt."""
    return record.fate is BatchFate.SPLIT or (record.fate is BatchFate.IN_DOUBT and record.was_in_doubt)


def _endpoint(record: RequestRecord | RetryRecord) -> _Attributes:
    return {"http.request.method": record.method, "url.template": record.endpoint}


def _server(url: str) -> _Attributes:
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return {"server.address": parts.hostname or ""} | ({} if port is None else {"server.port": port})


def _links(callers: Iterable[object]) -> list[Link]:
    """Links to the callers' spans, each only once."""
    spans = {(span.trace_id, span.span_id): span for span in callers if isinstance(span, SpanContext)}
    return [Link(span) for span in islice(spans.values(), _MAX_LINKS)]


def _ago(seconds: float) -> int:
    return time_ns() - int(seconds * 1e9)
