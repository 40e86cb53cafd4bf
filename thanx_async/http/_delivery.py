"""The fate of one request that gives rewards."""

from __future__ import annotations

from collections.abc import Callable

from thanx_async._core.errors import BadRequestError
from thanx_async.http import _wire as wire
from thanx_async.models import IssuanceJob


class Delivery:
    """The fate of one Issue Rewards request, true at every moment.

    ``job`` is set as soon as Thanx has accepted it. ``in_doubt``: it was sent, and what became of it is
    not known. ``refused``: the 400 that it ended in. ``on_wire``: it is being sent or answered right now.
    Set ``closing`` to allow no further attempt, and ``on_send`` to be called as an attempt goes out.
    """

    __slots__ = ("closing", "in_doubt", "job", "on_send", "on_wire", "refused")

    def __init__(self) -> None:
        self.job: IssuanceJob | None = None
        self.in_doubt = False
        self.on_wire = False
        self.closing = False
        self.refused: BadRequestError | None = None
        self.on_send: Callable[[], None] | None = None

    def accept(self, payload: object) -> IssuanceJob:
        self.job = wire.decode_job(payload)
        return self.job
