"""The entry point of the command line."""

import os
import sys
import threading


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        from thanx_async.cli import run
    except ImportError as error:
        sys.exit(f"thanx-async needs its extra ({error.name} is missing): pip install 'thanx-async[cli]'")
    status = run(sys.argv[1:])
    sys.stdout.flush()
    if threading.active_count() > 1:
        os._exit(status)  # a thread that still reads standard input would hold the exit
    sys.exit(status)


if __name__ == "__main__":
    main()
