"""The errors that end a command, and warnings: one line for the user."""

from __future__ import annotations


class RealBenchError(Exception):
    """Something failed; the message is one line: what, which file, what to do.

    The command line prints ``error: <message>`` and exits with ``exit_code``.
    """

    exit_code = 1


class UsageError(RealBenchError):
    """The request cannot be carried out as it was made (wrong option, folder or file)."""

    exit_code = 2


class RealBenchWarning(UserWarning):
    """Something the user should know of, though the run goes on; the message is one line."""
