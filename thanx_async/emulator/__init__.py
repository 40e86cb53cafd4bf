"""A faithful emulator of Thanx's API on loopback, for experiments and tests.

It shares no code with the client, so that it can't share its mistakes.
"""

from thanx_async.emulator.checks import SettingError
from thanx_async.emulator.counters import Counter
from thanx_async.emulator.faults import Fault, Faults, ScriptedAnswer
from thanx_async.emulator.guests import unknown_guests
from thanx_async.emulator.jobs import JobSpeed
from thanx_async.emulator.oddities import Oddity
from thanx_async.emulator.server import Emulator, RequestLog
from thanx_async.emulator.webhooks import Webhooks, sign

__all__ = [
    "Counter",
    "Emulator",
    "Fault",
    "Faults",
    "JobSpeed",
    "Oddity",
    "RequestLog",
    "ScriptedAnswer",
    "SettingError",
    "Webhooks",
    "sign",
    "unknown_guests",
]
