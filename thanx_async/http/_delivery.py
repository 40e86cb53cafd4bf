"""How far the sending of a request has come: on the wire, in doubt, accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from thanx_async._core.errors import APIError, TransportError
from thanx_async.http import _wire as wire
from thanx_async.models import IssuanceJob


class Named(Protocol):
    """What stands for a job once it is accepted."""

    @property
    def id(self) -> str: ...


H = TypeVar("H", bound=Named)


class Sending:
    """The state of one request, accurate at every moment.

    Attributes:
        in_doubt: it was sent, and whether Thanx has acted on it is not known.
        on_wire: it is being sent or answered right now.
        closing: no further attempt is allowed.
    """

    __slots__ = ("_on_send", "closing", "in_doubt", "on_wire")

    def __init__(self, on_send: Callable[[], None] | None = None) -> None:
        self.in_doubt = False
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

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Within the block the request is on the wire; what the block raises decides about the doubt."""
        doubted = self.in_doubt
        self.on_wire = self.in_doubt = True
        if self._on_send:
            self._on_send()
        try:
            yield
            self.in_doubt = False
        except (APIError, TransportError) as error:
            self.in_doubt = doubted or error.in_doubt
            raise
        finally:
            self.on_wire = False


class Delivery(Sending, Generic[H]):
    """The state of one Issue Rewards request, and the handle on its job.

    Args:
        make_handle: makes the handle of the job that Thanx has accepted the request as.
        on_send: called as an attempt goes out.
    """

    __slots__ = ("_make_handle", "handle")

    def __init__(
        self, make_handle: Callable[[IssuanceJob], H] | None, on_send: Callable[[], None] | None = None
    ) -> None:
        super().__init__(on_send)
        self._make_handle = make_handle
        self.handle: H | None = None

    def __reduce__(self) -> tuple[object, ...]:
        return _recorded, (self.handle, self.in_doubt)

    @property
    def job_id(self) -> str | None:
        return self.handle.id if self.handle else None

    def accept(self, payload: object) -> H:
        """Take in the answer of a success; from then on there is a handle, whatever happens next."""
        job = wire.decode_job(payload)
        if self._make_handle is None:
            raise TypeError("a delivery that was unpickled cannot be sent")
        self.handle = self._make_handle(job)
        return self.handle

    def recall(self, handle: H | None, *, in_doubt: bool) -> None:
        """Take over what an earlier process has recorded."""
        self.handle, self.in_doubt = handle, in_doubt

    def doubt(self) -> None:
        """Others may send it, so that it is not certain any more that nothing was issued."""
        self.in_doubt = True


def _recorded(handle: H | None, in_doubt: bool) -> Delivery[H]:
    delivery = Delivery[H](None)
    delivery.recall(handle, in_doubt=in_doubt)
    return delivery
