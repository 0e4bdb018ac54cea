"""Every command that takes a seed takes the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from realbench.cli.ending import exit_code
from realbench.cli.main import app


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, one in getattr(command, "commands", {}).items():
        yield from _commands(one, (*path, name))
    yield path, command


def test_a_seed_that_random_generators_do_not_take_is_misuse(capsys: Any) -> None:
    seeded = [
        path
        for path, one in _commands(typer.main.get_command(app))
        if any(option.name == "seed" for option in one.params)
    ]
    assert len(seeded) >= 11
    for path in seeded:
        for seed in ("4294967296", "-1"):
            assert exit_code(app, "realbench", [*path, "--seed", seed]) == 2, path
            said = capsys.readouterr().err
            assert "'--seed'" in said, path
            assert said.count("\n") == 1
