"""The entry point of the command line."""

import sys


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        from thanx_async.cli import run
    except ImportError as error:
        sys.exit(f"thanx-async needs its extra ({error.name} is missing): pip install 'thanx-async[cli]'")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
