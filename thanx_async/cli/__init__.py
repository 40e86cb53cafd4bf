"""The command line. Credentials come from the environment only.

A command's module is imported when the command runs, and its help text is in `COMMANDS`, so that the list of
commands needs none of these modules.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Literal

import cyclopts

from thanx_async._core.errors import ConfigurationError, ThanxError
from thanx_async._version import __version__
from thanx_async.cli._environment import hint, take_env_file
from thanx_async.cli._options import as_typed
from thanx_async.cli._status import ISSUED, STOPPED, USAGE_ERROR, discard_output, escape_unencodable, warn

__all__ = ["COMMANDS", "app", "discard_output", "run"]

COMMANDS = {
    "issue": (
        "issue:issue",
        (
            "Give every guest in FILE one reward.\n\n"
            "Ctrl-C stops cleanly: nothing more is sent, requests in progress finish, and the report is"
            " accurate. To continue a run that was stopped or killed, give the same command line again."
            " To issue a completed file again, give a new --run-id."
        ),
    ),
    "plan": (
        "issue:plan",
        "Read and check FILE without sending anything: guests, rejects, duplicates, requests, duration.",
    ),
    "check": (
        "check:check",
        "Check whether the credential can issue a campaign's rewards now, without issuing any.",
    ),
    "demo": ("issue:demo", "Issue generated guests against the emulator, under Thanx's rate limits."),
    "resume": (
        "resume:resume",
        (
            "Resume a stopped run without its file: send batches in doubt again, wait, and report."
            "\n\nTo send what had not been sent when the run stopped, give the same `issue` command again."
        ),
    ),
    "revoke": (
        "resume:revoke",
        "Take back the rewards of all jobs of a run, after waiting for jobs that still run.",
    ),
    "verify": (
        "resume:verify",
        (
            "Poll the jobs of a run whose outcome a webhook told, and correct the record where it was wrong."
            "\n\nEach job takes one request of the rate limits."
        ),
    ),
    "ledger": ("ledger:ledger_app", "Show recorded runs, and settle batches in doubt by hand."),
    "outbox": ("outbox:outbox_app", "Put guests under ids of your own, and send what was put."),
    "limits": (
        "limits:limits",
        "Show what is used, free and reserved of the rate limits, and when it comes back.",
    ),
    "job": ("job:job_app", "Show, wait for or revoke one job."),
    "emulator": (
        "emulator:run_emulator",
        (
            "Run the emulator on loopback until Ctrl-C, then print what it has seen.\n\n"
            "While it runs, GET /emulator/rewards answers with the number of rewards of each guest, and GET"
            " /emulator/statistics with the counts of requests, faults, webhooks and jobs, both in JSON. They"
            " need no credential, count against no limit and meet no faults."
        ),
    ),
    "campaigns": (
        "catalogue:campaigns",
        "List a merchant's campaigns and their variants: the ids that `issue` needs.",
    ),
    "templates": ("catalogue:templates", "List a merchant's reward templates."),
    "merchants": ("catalogue:merchants", "List the merchants that the credential can act for."),
    "scopes": ("catalogue:scopes", "List the credential's scopes; issuing needs rewards.issue."),
}

app: cyclopts.App = cyclopts.App(
    name="thanx-async",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # cyclopts would end the process without a message
    help=(
        "Issue Thanx rewards in bulk.\n\n"
        "Credentials come from THANX_CLIENT_ID and THANX_ACCESS_TOKEN. THANX_ENVIRONMENT is sandbox (the"
        " default) or production; THANX_BASE_URL overrides it. THANX_USER_AGENT identifies you to Thanx,"
        " such as partner/1.0.0. --env-file FILE, with any command, sets those that are"
        " not set yet, from lines like THANX_CLIENT_ID=...\n\n"
        "Exit status: 0 done, and all guests issued; 1 some guests failed or were rejected, or batches are"
        " held; 2 usage error, or not possible: nothing was sent; 3 stopped, in doubt, or Thanx does not"
        " answer.\n\n"
        "--json, with every command that reports, prints one JSON value on standard output and nothing else."
    ),
)
for _name, (_home, _text) in COMMANDS.items():
    app.command(f"thanx_async.cli._{_home}", name=_name, help=_text)


@app.command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completions for a shell: `thanx-async completion bash >> ~/.bashrc`.

    Parameters
    ----------
    shell:
        bash, zsh or fish.
    """
    sys.stdout.write(app.generate_completion(shell=shell) + "\n")


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns its exit status."""
    escape_unencodable()
    try:
        status = app(
            take_env_file(arguments), exit_on_error=False, print_error=False, result_action="return_value"
        )
    except cyclopts.CycloptsError as error:
        return _fail(str(error), USAGE_ERROR)
    except ConfigurationError as error:
        message = as_typed(error)
        return _fail(message + hint(message), USAGE_ERROR)
    except (BrokenPipeError, SystemExit):  # the reader of the help has gone; rich raises the latter
        discard_output()
        return ISSUED
    except (ThanxError, ValueError, OSError) as error:
        return _fail(as_typed(error), STOPPED)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _fail("interrupted; the same command can be given again", STOPPED)
    return status if isinstance(status, int) else ISSUED


def _fail(message: str, status: int) -> int:
    warn(message)
    return status
