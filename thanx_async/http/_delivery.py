"""The state of a request. Decides after each attempt whether the request is in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from thanx_async._core.errors import APIError, TransportError
from thanx_async.http import _wire as wire
from thanx_async.models import IssuanceJob


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

    __slots__ = ("_on_send", "begun", "closing", "in_doubt", "on_wire")

    def __init__(self, on_send: Callable[[], None] | None = None) -> None:
        self.in_doubt: bool = False
        self.begun: bool = False
        self.on_wire: bool = False
        self.closing: bool = False
        self._on_send = on_send

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
