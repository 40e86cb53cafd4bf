"""A faithful stand-in for Thanx on loopback, for trying things out and for tests.

It shares no code with the client, so that it cannot share its mistakes.
"""

from thanx_async.emulator.checks import SettingError
from thanx_async.emulator.counters import Counter
from thanx_async.emulator.faults import Fault, Faults, ScriptedAnswer
from thanx_async.emulator.guests import unknown_guests
from thanx_async.emulator.jobs import JobSpeed
from thanx_async.emulator.server import Emulator, RequestLog
from thanx_async.emulator.webhooks import Webhooks, sign

__all__ = [
    "Counter",
    "Emulator",
    "Fault",
    "Faults",
    "JobSpeed",
    "RequestLog",
    "ScriptedAnswer",
    "SettingError",
    "Webhooks",
    "sign",
    "unknown_guests",
]
