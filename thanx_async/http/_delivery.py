"""How far the sending of a request has come: on the wire, in doubt, accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from thanx_async._core.errors import APIError, TransportError
from thanx_async.http import _wire as wire
from thanx_async.models import IssuanceJob


class Sending:
    """The state of one request, accurate at every moment.

    Attributes:
        in_doubt: it was sent, and whether Thanx has acted on it is not known.
        begun: the first bytes of the attempt have left; before that nothing can have been acted on.
        on_wire: it is being sent or answered right now.
        closing: no further attempt is allowed.
    """

    __slots__ = ("_on_send", "begun", "closing", "in_doubt", "on_wire")

    def __init__(self, on_send: Callable[[], None] | None = None) -> None:
        self.in_doubt = False
        self.begun = False
        self.on_wire = False
        self.closing = False
        self._on_send = on_send

    @property
    def job_id(self) -> str | None:
        """The job that Thanx has made of it, if it has and the request is one that makes jobs."""
        return None

    def stop(self) -> None:
        """Allow no further attempt; one that is on the wire is finished."""
        self.closing = True

    def begin(self) -> None:
        """The first bytes of the attempt leave."""
        self.begun = True

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Within the block the request is on the wire; what the block raises decides about the doubt."""
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
        job: what Thanx has accepted the request as.
    """

    __slots__ = ("job",)

    def __init__(self, on_send: Callable[[], None] | None = None) -> None:
        super().__init__(on_send)
        self.job: IssuanceJob | None = None

    @property
    def job_id(self) -> str | None:
        return self.job.id if self.job else None

    def accept(self, payload: object) -> IssuanceJob:
        """Take in the answer of a success; from then on the job is known, whatever happens next."""
        self.job = wire.decode_job(payload)
        return self.job

    def doubt(self) -> None:
        """Somebody else may have sent it, or may still, so that it may have been issued."""
        self.in_doubt = True

    def recall(self, *, in_doubt: bool) -> None:
        """What an earlier process has recorded of it."""
        self.in_doubt = in_doubt
