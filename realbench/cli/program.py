"""What every command of both programs has: plain help, and the spellings of earlier versions."""

from __future__ import annotations

import functools
import inspect
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NoReturn, get_type_hints

import typer
from typer.core import TyperCommand

from realbench.errors import RealBenchError, RealBenchWarning
from realbench.text import printable
from realbench.version import __version__

FORMER = {
    "--real": "--reference",
    "--photos": "--reference",
    "--suite": "--prompts",
    "--dtype": "--precision",
}
"""Options by the names that they had before 0.2; a command that has the new one takes the old."""

_MAY_BE_EMPTY = ("negative_prompt",)
_ONCE = ("reference", "prompts")  # evidence: the last of several would stand in silence for all


class Command(TyperCommand):
    """A command whose options are shown by their panels, and whose values are never empty."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = list(self._as_now(args))
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        params: list[Any] = list(self.params)
        for one in params:
            given = values.get(str(one.name))
            texts = given if isinstance(given, list | tuple) else [given]
            empty = any(isinstance(text, str) and not text.strip() for text in texts)
            if empty and one.name not in _MAY_BE_EMPTY:
                raise typer.BadParameter("it is empty", ctx=ctx, param=one)
            if one.name in _ONCE and order.count(one) > 1 and not one.multiple:
                raise typer.BadParameter("it is taken once: give one", ctx=ctx, param=one)
        return super().parse_args(ctx, args)

    def _as_now(self, args: Sequence[str]) -> Iterator[str]:
        """Yield arguments with the present names of their options, and tell of former ones."""
        known = {name for one in self.params for name in one.opts}
        for arg in args:
            name, sign, value = arg.partition("=")
            now = FORMER.get(name)
            if now in known and name not in known:
                typer.echo(f"note: {name} is now called {now}", err=True)
                arg = f"{now}{sign}{value}"
            yield arg

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        params: list[Any] = self.get_params(ctx)
        for one in params:
            record = one.get_help_record(ctx)
            if record is None:
                continue
            if one.param_type_name == "argument":
                panels.setdefault("Arguments", []).append((_argument(one), str(one.help)))
            else:
                panel = getattr(one, "rich_help_panel", None) or "Options"
                panels.setdefault(panel, []).append(record)
        for title, records in panels.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [one for one in self.get_params(ctx) if one.param_type_name == "argument"]
        shown = [_argument(one) if one.required else f"[{_argument(one)}]" for one in arguments]
        return ["[OPTIONS]", *shown]


def _argument(one: Any) -> str:
    return f"{one.metavar}{'...' if one.nargs == -1 else ''}"


class Program(typer.Typer):
    """A program or a group of commands; its help texts are plain, without rich's markup.

    Args:
        settings: those of :class:`typer.Typer`.
    """

    def __init__(self, **settings: Any) -> None:
        usual = {
            "no_args_is_help": True,
            "add_completion": False,
            "pretty_exceptions_enable": False,
            "rich_markup_mode": None,
            "context_settings": {"max_content_width": 100},
        }
        super().__init__(**(usual | settings))

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
        add = super().command(name, **({"cls": Command} | settings))

        def register(function: Any) -> Any:
            add(_spread(function))
            return function

        return register


def _spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that takes the fields of its records of options as options of its own."""
    hints = get_type_hints(function, include_extras=True)
    records: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = []
    for one in inspect.signature(function).parameters.values():
        own: list[tuple[str, Any, Any]] = [(one.name, one.default, hints[one.name])]
        if one.name in records:
            of_record = get_type_hints(records[one.name], include_extras=True)
            own = [
                (f.name, one.empty if f.default is MISSING else f.default, of_record[f.name])
                for f in fields(records[one.name])
            ]
        parameters += [
            inspect.Parameter(name, one.KEYWORD_ONLY, default=default, annotation=kind)
            for name, default, kind in own
        ]

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        for name, record in records.items():
            given[name] = record(**{f.name: given.pop(f.name) for f in fields(record)})
        return function(**given)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def add_version(program: Program, name: str) -> None:
    """Give a program its ``--version``."""

    def show(wanted: bool) -> None:
        if wanted:
            typer.echo(f"{name} {__version__}")
            raise typer.Exit

    @program.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=show, help="Show the version."
        ),
    ) -> None:
        pass


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
