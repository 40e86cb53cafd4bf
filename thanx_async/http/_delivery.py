"""The state of a request. Decides after each attempt whether the request is in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time

from thanx_async._core.errors import APIError, RequestTimeoutError, TransportError
from thanx_async.http import _wire as wire
from thanx_async.models import IssuanceJob
from thanx_async.retry import KEYS_LAST


def too_old() -> RequestTimeoutError:
    """The error of a request that is not sent again."""
    return RequestTimeoutError(
        "too old to be sent again: Thanx may have forgotten the idempotency key, and a repetition may be a"
        " second reward"
    )


def _now() -> float:
    return asyncio.get_running_loop().time()


class _Age:
    """An age in seconds, by the wall clock or by the loop's clock, whichever makes it larger.

    The wall clock counts a machine's sleep, and the loop's clock is never set back.
    """

    __slots__ = ("_begun", "since")

    def __init__(self, since: float) -> None:
        """``since`` is in seconds since 1970."""
        self.since = since
        self._begun = _now() - max(0.0, time() - since)

    def seconds(self) -> float:
        return max(time() - self.since, _now() - self._begun)


class Sending:
    """The state of one request, accurate at every moment.

    Args:
        on_send: called at the start of each attempt.

    Attributes:
        in_doubt: the request was sent, and it is unknown whether Thanx has acted on it.
        begun: the first bytes of the attempt have left; before that Thanx cannot have acted on it.
        on_wire: an attempt is in progress.
        closing: no further attempt is allowed.
    """

    __slots__ = ("_age", "_is_recorded", "_lasts", "_on_send", "begun", "closing", "in_doubt", "on_wire")

    def __init__(self, on_send: Callable[[], None] | None = None) -> None:
        self.in_doubt: bool = False
        self.begun: bool = False
        self.on_wire: bool = False
        self.closing: bool = False
        self._on_send = on_send
        self._age: _Age | None = None
        self._lasts = KEYS_LAST
        self._is_recorded = False

    @property
    def is_too_old(self) -> bool:
        """Whether Thanx may have forgotten the idempotency key.

        What this process has not sent may have been sent by another one that took its record over.
        """
        lasts = self._lasts if self.in_doubt else max(self._lasts, KEYS_LAST)
        return self._age is not None and self._age.seconds() > lasts

    def limit_age(self, recorded_at: float, replay_within: float) -> None:
        """Don't send the request again once its record is older than ``replay_within`` seconds.

        The earliest time of several counts. Without a record, the time of the first attempt that is in doubt
        counts, and `KEYS_LAST`.

        Args:
            recorded_at: when the request was recorded, in seconds since 1970.
            replay_within: the age of the record, in seconds.
        """
        if not self._is_recorded or self._age is None or recorded_at < self._age.since:
            self._age, self._lasts, self._is_recorded = _Age(recorded_at), replay_within, True

    def is_young(self) -> bool:
        """Whether, before an attempt, Thanx still knows the idempotency key. The attempt follows at once."""
        if not (self._is_recorded or self.in_doubt):
            self._age = _Age(time())
        return not self.is_too_old

    @property
    def job_id(self) -> str | None:
        """The id of the job that Thanx has made of the request, None if there is none."""
        return None

    def stop(self) -> None:
        """Allow no further attempt. An attempt in progress continues."""
        self.closing = True

    def begin(self) -> None:
        """The first bytes of the attempt leave."""
        self.begun = True

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Mark the request as on the wire within the block, whose result decides whether it is in doubt.

        A success ends the doubt. An error keeps an earlier doubt, or brings its own. Any other exception,
        such as a cancellation, leaves the request in doubt.
        """
        doubted = self.in_doubt
        self.on_wire = self.in_doubt = True
        self.begun = False
        if self._on_send:
            self._on_send()
        try:
            yield
            self.in_doubt = False
        except (APIError, TransportError) as error:
            self.in_doubt = doubted or error.in_doubt
            raise
        except BaseException:
            self.in_doubt = doubted or self.begun
            raise
        finally:
            self.on_wire = False


class Delivery(Sending):
    """The state of one Issue Rewards request.

    Attributes:
        job: the job from Thanx's answer, once Thanx has accepted the request.
    """

    __slots__ = ("job",)

    def __init__(self, on_send: Callable[[], None] | None = None) -> None:
        super().__init__(on_send)
        self.job: IssuanceJob | None = None

    @property
    def job_id(self) -> str | None:
        """The id of the accepted job."""
        return self.job.id if self.job else None

    def accept(self, payload: object) -> IssuanceJob:
        """Decode a success, and keep its job. From here on the job is known, whatever happens next."""
        self.job = wire.decode_job(payload)
        return self.job

    def doubt(self) -> None:
        """Mark the request as in doubt: another process may have sent it, or may still send it."""
        self.in_doubt = True

    def recall(self, *, in_doubt: bool) -> None:
        """Restore the state that an earlier process recorded."""
        self.in_doubt: bool = in_doubt
