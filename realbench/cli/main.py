"""The commands of ``realbench``, and how every one of them ends."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

import realbench
from realbench.cli import arena, detectors, leaderboard, prompts, quality, train
from realbench.cli.demo import demo
from realbench.cli.generate import generate
from realbench.cli.score import score
from realbench.cli.serve import serve
from realbench.errors import RealBenchError, RealBenchWarning
from realbench.text import printable

_INTERRUPTED = 130

app = typer.Typer(
    name="realbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="How photoreal are these generated images?",
    epilog="Start with: realbench demo",
)
app.command()(score)
app.command()(demo)
app.command()(generate)
app.command()(serve)
app.add_typer(arena.app, name="arena")
app.add_typer(detectors.app, name="detectors")
app.add_typer(leaderboard.app, name="leaderboard")
app.add_typer(prompts.app, name="prompts")
app.add_typer(quality.app, name="quality")
app.add_typer(train.app, name="realgen-train")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"realbench {realbench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version."),
    ] = False,
) -> None:
    pass


def run(
    arguments: list[str] | None = None, *, program: typer.Typer = app, name: str = "realbench"
) -> None:
    """Run a command and exit with its code; an error is one line, never a traceback.

    Args:
        arguments: by default those of the process.
        program, name: whose command it is.
    """
    warnings.showwarning = _one_line_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a character shows "?"
            stream.reconfigure(errors="replace")
    try:
        code = _exit_code(arguments, program, name)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output went away, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    _leave(code)


def _exit_code(arguments: list[str] | None, program: typer.Typer, name: str) -> int:
    """Run a command, say what is wrong with it, and return the exit code."""
    try:
        code = program(arguments, prog_name=name, standalone_mode=False)
        if code != _INTERRUPTED:  # into which typer turns Ctrl-C
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
    return _INTERRUPTED


def _leave(code: int) -> NoReturn:
    """End the process; without the second that taking torch apart would need.

    Nor does it wait for threads that are busy after Ctrl-C, such as one that still loads torch.
    """
    if "torch" in sys.modules or code == _INTERRUPTED:
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
