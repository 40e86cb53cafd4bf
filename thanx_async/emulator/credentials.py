"""The credentials that the emulator accepts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import NoneType

from thanx_async.emulator import checks
from thanx_async.emulator.answers import Refused
from thanx_async.emulator.checks import Setting, SettingError


class Credentials:
    """Pairs of a client id and an access token; None in a pair accepts any."""

    def __init__(self, client_id: object, access_token: object, pairs: object) -> None:
        checks.instance("Emulator.client_id", client_id, str, NoneType)
        checks.instance("Emulator.access_token", access_token, str, NoneType)
        if pairs is not None and (client_id, access_token) != (None, None):
            raise SettingError(
                Setting("Emulator.credentials"),
                " goes with neither ",
                Setting("Emulator.client_id"),
                " nor ",
                Setting("Emulator.access_token"),
            )
        self._pairs = [(client_id, access_token)] if pairs is None else _checked(pairs)

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse a request without one of these credentials."""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        token, client_id = token.strip(), headers.get("X-ClientId", "")
        tokens = [own for name, own in self._pairs if name in {None, client_id}]
        if not client_id or not tokens:
            raise Refused(401, "the client id is not accepted")
        if scheme.lower() != "bearer" or not token or not {None, token}.intersection(tokens):
            raise Refused(401, "the access token is not accepted")


def _checked(pairs: object) -> list[tuple[object, object]]:
    name, what = "Emulator.credentials", "pairs of a client id and an access token"
    checks.kind(name, isinstance(pairs, Collection) and not isinstance(pairs, str | Mapping), what, pairs)
    assert isinstance(pairs, Collection)  # noqa: S101 - checked above
    return [_pair(f"{name}[{place}]", pair) for place, pair in enumerate(pairs)]


def _pair(name: str, pair: object) -> tuple[object, object]:
    match pair:
        case [str(client_id), str(token)] if client_id and token:
            return client_id, token
    raise SettingError(Setting(name), " must be a client id and an access token, neither of them empty")
