"""What every command of both programs has: plain help, and the spellings of earlier versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand

from realbench.version import __version__

FORMER = {
    "--real": "--reference",
    "--photos": "--reference",
    "--suite": "--prompts",
    "--dtype": "--precision",
}
"""Options by the names that they had before 0.2; a command that has the new one takes the old."""

_MAY_BE_EMPTY = ("negative_prompt",)


class Command(TyperCommand):
    """A command whose options are shown by their panels, and whose values are never empty."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = list(self._as_now(args))
        values, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        params: list[Any] = list(self.params)
        for one in params:
            given = values.get(str(one.name))
            texts = given if isinstance(given, list | tuple) else [given]
            empty = any(isinstance(text, str) and not text.strip() for text in texts)
            if empty and one.name not in _MAY_BE_EMPTY:
                raise typer.BadParameter("it is empty", ctx=ctx, param=one)
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
        return super().command(name, **({"cls": Command} | settings))


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
