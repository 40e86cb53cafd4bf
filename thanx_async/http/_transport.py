"""The retry loop: each attempt sends the same bytes, in a slot of the limiter, where a 429 is waited out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Generic, NoReturn, TypeVar

import aiohttp
import attrs
from yarl import URL

from thanx_async._core.errors import (
    APIError,
    ConfigurationError,
    RateLimitedError,
    ThanxError,
    TransportError,
    without_frames,
)
from thanx_async._core.tasks import foreign_cancellation, is_being_cancelled
from thanx_async.http import _wire as wire
from thanx_async.http._aiohttp import SURELY_UNSENT, Upload, error_of, read
from thanx_async.http._delivery import Delivery, Sending, too_old
from thanx_async.http._session import HomeSession
from thanx_async.http._settings import unpicklable
from thanx_async.http._spending import SpendingWatch
from thanx_async.http._turns import CutTurns
from thanx_async.instrumentation import Hook, RequestRecord, RetryRecord, WaitRecord, emit
from thanx_async.limiter import Lane, RateLimiter, Slot
from thanx_async.models import IssuanceJob
from thanx_async.retry import RetryPolicy

T = TypeVar("T")

_MIN_REPORTED_WAIT = 0.001
_MIN_TOKEN = 8


def _now() -> float:
    return asyncio.get_running_loop().time()


@attrs.define
class _Call(Generic[T]):
    """One call in progress.

    Attributes:
        attempt: the number of the current attempt, from 1.
        asked: when the call started to wait for the rate limits, on the loop's clock.
        first_failed: when an attempt first failed, on the loop's clock.
        answered: Thanx has acted on the request, even if a later step fails.
        sent: how many attempts were made, including those that ended in a 429.
        head: the status and headers of the current attempt's answer, once they have arrived.
    """

    request: wire.Request
    decoder: Callable[[object], T]
    sending: Sending
    attempt: int = 1
    asked: float = attrs.field(factory=_now)
    first_failed: float | None = None
    answered: bool = False
    sent: int = 0
    head: wire.Answer | None = None

    def record(self, url: URL, seconds: float, error: BaseException | None) -> RequestRecord:
        request, head = self.request, self.head
        return RequestRecord(
            request.method,
            request.endpoint,
            self.attempt,
            seconds,
            head.status if head else None,
            type(error).__name__ if error else None,
            request.idempotency_key,
            url=str(url),
            resend_count=self.sent,
            request_id=head.request_id if head else None,
            retry_after=head.retry_after if head else None,
        )

    def explained(self, error: ThanxError) -> ThanxError:
        error.idempotency_key = self.request.idempotency_key
        error.in_doubt = self.request.method != "GET" and (self.sending.in_doubt or self.answered)
        self.note(error)
        return error

    def note(self, error: BaseException) -> None:
        key = self.request.idempotency_key
        if self.sending.job_id is not None:
            error.add_note(
                f"Accepted as job {self.sending.job_id}. Repeat it only with idempotency key {key}."
            )
        elif self.sending.in_doubt and key:
            error.add_note(
                "In doubt: Thanx may have acted on this. Repeat it with the same identifiers and idempotency"
                f" key {key}."
            )


class Transport:
    """Sends requests, and repeats them with the same bytes until there is an answer.

    Args:
        base_url: the URL that paths are appended to.
        headers: sent with every request.
        session: the caller's session, None to open one.
        timeout: the timeout of one attempt.
        retry: decides about repeating a request.
        limiter: gives each attempt its slot.
        hook: gets a record of each wait, attempt and retry.

    Attributes:
        turns: the turns of whoever cuts batches late and sends them here.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        session: aiohttp.ClientSession | None,
        timeout: aiohttp.ClientTimeout,
        retry: RetryPolicy,
        limiter: RateLimiter,
        hook: Hook,
    ) -> None:
        self._base_url = base_url
        self._headers = headers
        self._token = headers["Authorization"].removeprefix("Bearer ")
        self.session: HomeSession = HomeSession(base_url, session)
        self._timeout = timeout
        self._retry = retry
        self._limiter = limiter
        self._hook = hook
        self.turns: CutTurns = CutTurns()
        self._spending = SpendingWatch(limiter, hook)

    def __reduce__(self) -> NoReturn:
        raise unpicklable()

    def check_loop(self) -> None:
        """Make sure, before anything happens, that the client is not open on another event loop."""
        self.session.check_loop()

    async def deliver(self, request: wire.Request, delivery: Delivery, *, lane: Lane) -> IssuanceJob:
        """Send an Issue Rewards request, and keep ``delivery`` accurate at every moment."""
        return await self._send_and_explain(_Call(request, delivery.accept, delivery), lane)

    async def call(self, request: wire.Request, decoder: Callable[[object], T], *, lane: Lane) -> T:
        """Send any other request until there is an answer, or until the retry policy gives up.

        Args:
            request: the request.
            decoder: turns the parsed JSON of a success into the result.
            lane: the limiter's queue.

        Raises:
            APIError, TransportError: the error that ended the last attempt.
        """
        return await self._send_and_explain(_Call(request, decoder, Sending()), lane)

    async def _send_and_explain(self, call: _Call[T], lane: Lane) -> T:
        self.session.usable()  # raise before the wait for the rate limits
        try:
            return await self._until_answered(call, lane)
        except ThanxError:
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and not is_being_cancelled():
                raise call.explained(foreign_cancellation("a request")) from error
            call.note(error)
            raise

    async def _until_answered(self, call: _Call[T], lane: Lane) -> T:
        while True:
            try:
                async with self._limiter.slot(lane) as slot:
                    session = self.session.usable()
                    self._emit_wait(call, lane)
                    self._spending.look()
                    if not call.request.idempotency_key or call.sending.is_young():
                        return await self._attempt(call, slot, session)
                raise too_old()  # outside of the slot, for which it would be a request without an answer
            except RateLimitedError as error:
                if call.sending.closing:
                    raise call.explained(error) from error.__cause__
            except ConfigurationError as error:  # an attempt before it may have been acted on
                raise call.explained(error) from error.__cause__
            except (APIError, TransportError) as error:
                wait = self._wait(call, error)
                if wait is None or call.sending.closing:
                    raise call.explained(error) from error.__cause__
                self._emit_retry(call, error, wait)
                call.attempt += 1
                await asyncio.sleep(wait)
            call.asked = _now()

    def _wait(self, call: _Call[T], error: APIError | TransportError) -> float | None:
        if call.sending.is_too_old or (error.in_doubt and not call.request.repeatable):
            return None
        call.first_failed = _now() if call.first_failed is None else call.first_failed
        return self._retry.delay(call.attempt, error, since=_now() - call.first_failed)

    def _emit_wait(self, call: _Call[T], lane: Lane) -> None:
        waited = _now() - call.asked
        if waited > _MIN_REPORTED_WAIT:
            emit(self._hook, WaitRecord(lane.value, waited))

    def _emit_retry(self, call: _Call[T], error: Exception, wait: float) -> None:
        request = call.request
        record = RetryRecord(
            request.method,
            request.endpoint,
            call.attempt,
            wait,
            type(error).__name__,
            request.idempotency_key,
        )
        emit(self._hook, record)

    async def _attempt(self, call: _Call[T], slot: Slot, session: aiohttp.ClientSession) -> T:
        started, call.head = _now(), None
        url = URL(self._base_url + call.request.path, encoded=True).with_query(call.request.params)
        try:
            with call.sending.attempt():
                result = wire.decode(await self._send(session, call, slot, url), call.decoder)
            call.answered = True
        except BaseException as error:
            self._emit_attempt(call, url, started, error)
            raise
        self._emit_attempt(call, url, started, None)
        return result

    def _emit_attempt(self, call: _Call[T], url: URL, started: float, error: BaseException | None) -> None:
        emit(self._hook, call.record(url, _now() - started, error))
        call.sent += 1

    async def _send(
        self, session: aiohttp.ClientSession, call: _Call[T], slot: Slot, url: URL
    ) -> wire.Answer:
        request, sending = call.request, call.sending
        try:
            async with session.request(
                request.method,
                url,
                data=Upload(request.body, sending.begin) if request.body else None,
                headers=self._headers_of(request),
                timeout=self._timeout,
                allow_redirects=False,
                raise_for_status=False,
                ssl=self.session.tls,
                proxy=self.session.proxy,
                middlewares=self.session.middlewares(),
            ) as response:
                call.head = wire.Answer(response.status, response.headers, b"")
                slot.answered(response.status, response.headers)
                return await read(response, self._mask)
        except ThanxError:
            raise
        except Exception as error:
            if call.head and not isinstance(error, aiohttp.ClientError | OSError):
                raise  # of a limiter, which is not ours to explain
            failure = error_of(error, url, begun=call.head is not None or _may_have_begun(call, error))
            # The repr of a ClientResponseError shows the token.
            hidden = isinstance(error, aiohttp.ClientResponseError)
            failure.__cause__ = None if hidden else without_frames(error)
        raise failure  # outside of the block, so that aiohttp's error is not its context

    def _headers_of(self, request: wire.Request) -> dict[str, str]:
        """In no local variable here, since tools that record those would record the token."""
        key = request.idempotency_key
        return {**self._headers, **({} if key is None else {"X-Idempotency-Key": key})}

    def _mask(self, body: bytes) -> bytes:
        """The body without the token; a very short one may be part of any word."""
        return body.replace(self._token.encode(), b"[masked]") if len(self._token) >= _MIN_TOKEN else body


def _may_have_begun(call: _Call[T], error: Exception) -> bool:
    """Whether bytes of the request may have left. Without a body the kind of the error has to tell."""
    return call.sending.begun if call.request.body else not isinstance(error, SURELY_UNSENT)
