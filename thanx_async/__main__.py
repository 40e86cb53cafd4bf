"""The entry point of the command line."""

import os
import sys
import threading


def main() -> None:
    """Run the command line, or say how to install it."""
    _open_streams()
    try:
        from thanx_async.cli import discard_output, run
    except ImportError as error:
        sys.exit(f"thanx-async needs its extra ({error.name} is missing): pip install 'thanx-async[cli]'")
    except KeyboardInterrupt:
        sys.exit("thanx-async: interrupted")
    status = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:  # the reader has gone
        discard_output()
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        os._exit(status)  # a thread that still reads standard input would block the exit
    sys.exit(status)


def _open_streams() -> None:
    """Open null devices for closed streams (`>&-`), which Python sets to None: every use would fail."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - for the rest of the process


if __name__ == "__main__":
    main()
