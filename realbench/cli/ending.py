"""How every command ends: what it did, or one line of what is wrong, and its exit code."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any, NoReturn

import typer

from realbench.errors import RealBenchError, RealBenchWarning
from realbench.text import printable

INTERRUPTED = 130


def run(program: typer.Typer, name: str, arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit with its code; an error is one line, never a traceback.

    Args:
        program, name: Whose command it is.
        arguments: By default those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows "?"
            stream.reconfigure(errors="replace")
    try:
        code = exit_code(program, name, arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output went away, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    _leave(code)


def exit_code(program: typer.Typer, name: str, arguments: list[str] | None = None) -> int:
    """Run a command, say what is wrong with it, and return the exit code."""
    try:
        with warnings.catch_warnings():  # a command's --quiet ends with it
            warnings.showwarning = _one_line_warning
            code = program(arguments, prog_name=name, standalone_mode=False)
        if code != INTERRUPTED:  # into which typer turns Ctrl-C
            return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        pass
    except _usage_error() as error:
        return _show_usage_error(error)
    except RealBenchError as error:
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:
        raise
    except MemoryError:
        _say("not enough memory: try a smaller --batch-size or --max-pixels")
        return 1
    except OSError as error:
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        _say(f"{where}{error.strerror or error}")
        return 1
    except Exception as error:
        if os.environ.get("REALBENCH_DEBUG"):
            raise
        _say(
            f"{type(error).__name__}: {error}; this is a bug: please report it with what "
            "REALBENCH_DEBUG=1 shows"
        )
        return 1
    _say(
        "interrupted: run the same command again; scores, votes and images that were done are kept"
    )
    return INTERRUPTED


def _leave(code: int) -> NoReturn:
    """End the process; without the second that taking torch apart would need.

    Nor does it wait for threads that are busy after Ctrl-C, such as one that still loads torch.
    """
    if "torch" in sys.modules or code == INTERRUPTED:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _usage_error() -> type[Exception]:
    """Return the base of typer's own errors: click's, or that of the copy of click in typer."""
    return next(one for one in typer.BadParameter.__mro__ if one.__name__ == "ClickException")


def _show_usage_error(error: Any) -> int:
    """Print what is wrong with the arguments in one line; return the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":  # newer typers have printed the help by now
        typer.echo(error.format_message(), nl=False)
        return 0
    context = getattr(error, "ctx", None)
    _say(
        f"{error.format_message()} (see {context.command_path if context else 'realbench'} --help)"
    )
    return int(error.exit_code)


def _say(message: str) -> None:
    typer.echo(f"error: {printable(' '.join(message.split()))}", err=True)


def _one_line_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    """Show our own warnings; those of libraries are for programmers."""
    if issubclass(category, RealBenchWarning):
        typer.echo(printable(f"warning: {message}"), err=True)
