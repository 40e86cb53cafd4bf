"""The command line. Credentials come from the environment only.

A command's module is imported when the command runs: the help needs none of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import cyclopts

from thanx_async._core.errors import ConfigurationError, ThanxError
from thanx_async._version import __version__
from thanx_async.cli._options import as_typed
from thanx_async.cli._status import ISSUED, STOPPED, WRONG_USE, unread, warn

__all__ = ["COMMANDS", "app", "run", "unread"]

COMMANDS = {
    "issue": (
        "issue:issue",
        (
            "Give every guest in FILE one reward.\n\n"
            "Ctrl-C stops cleanly: nothing more is sent, requests under way are finished, the report is true."
            " Started again by the same command line, a run that was stopped or killed goes on where it was."
            " Once it is complete, its file is issued again only under a new --run-id."
        ),
    ),
    "plan": (
        "issue:plan",
        "Read and check FILE without sending anything: guests, rejects, duplicates, requests, duration.",
    ),
    "demo": ("issue:demo", "Issue generated guests against the emulator, under Thanx's rate limits."),
    "resume": (
        "resume:resume",
        (
            "Take up a run that was stopped, without its file: send again what is in doubt, wait, and report."
            "\n\nWhat had not been sent when it stopped needs the file: give the same `issue` command again."
        ),
    ),
    "revoke": (
        "resume:revoke",
        "Take back the rewards of all jobs of a run, waiting for those that still run.",
    ),
    "ledger": ("ledger:ledger_app", "Look at recorded runs, and settle what is in doubt by hand."),
    "job": ("job:job_app", "Look at, wait for or revoke one job."),
    "emulator": (
        "emulator:run_emulator",
        "Run the emulator on loopback until Ctrl-C, and print what it has seen.",
    ),
    "campaigns": (
        "catalogue:campaigns",
        "List a merchant's campaigns with their variants: the ids that issue needs.",
    ),
    "templates": ("catalogue:templates", "List a merchant's reward templates."),
    "merchants": ("catalogue:merchants", "List the merchants that the credential may act for."),
    "scopes": ("catalogue:scopes", "List what the credential may do; issuing needs rewards.issue."),
}

app = cyclopts.App(
    name="thanx-async",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # it would end the process while a thread reads, and say nothing
    help=(
        "Issue Thanx rewards in bulk.\n\n"
        "Credentials come from THANX_CLIENT_ID and THANX_ACCESS_TOKEN; THANX_ENVIRONMENT is sandbox (the"
        " default) or production, and THANX_BASE_URL overrides it. THANX_USER_AGENT names you to Thanx, as"
        " partner/1.0.0.\n\n"
        "Exit status: 0 all issued, 1 some failed or rejected, 2 wrong use, and nothing was sent,"
        " 3 stopped or in doubt."
    ),
)
for name, (home, text) in COMMANDS.items():
    app.command(f"thanx_async.cli._{home}", name=name, help=text)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns its exit status."""
    try:
        status = app(arguments, exit_on_error=False, result_action="return_value")
    except cyclopts.CycloptsError:
        return WRONG_USE
    except ConfigurationError as error:
        return _fail(as_typed(error), WRONG_USE)
    except (BrokenPipeError, SystemExit):  # who read the help has gone, which rich makes the latter of
        unread()
        return ISSUED
    except (ThanxError, ValueError, OSError) as error:
        return _fail(str(error), STOPPED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _fail("interrupted; the same command can be given again", STOPPED)
    return status if isinstance(status, int) else ISSUED


def _fail(message: str, status: int) -> int:
    warn(message)
    return status
