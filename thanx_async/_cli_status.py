"""The exit statuses of the command line."""

ISSUED, SOME_FAILED, WRONG_USE, STOPPED = 0, 1, 2, 3
