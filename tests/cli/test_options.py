"""The vocabulary of options: the same words everywhere, former ones still taken, nothing empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from realbench.cli.main import app
from realbench.cli.program import FORMER
from tests.cli.commands import error_line, make_images, realbench

WORDS = (
    *("reference", "prompts", "detector", "weights", "device", "precision", "batch_size"),
    *("workers", "max_pixels", "no_cache", "matched", "quiet", "json_", "seed"),
)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, (*path, name))
    yield path, command


COMMANDS = {
    path: one for path, one in commands(typer.main.get_command(app)) if not hasattr(one, "commands")
}


def test_a_word_is_one_option_that_looks_the_same_everywhere() -> None:
    for word in WORDS:
        found = [one for command in COMMANDS.values() for one in command.params if one.name == word]
        assert found, word
        assert len({one.opts[0] for one in found}) == 1, word
        assert len({one.metavar for one in found}) == 1, word


def test_no_command_has_a_former_name() -> None:
    for path, command in COMMANDS.items():
        names = {name for one in command.params for name in one.opts}
        assert not names & FORMER.keys(), path


def test_everything_says_what_it_is() -> None:
    for path, command in COMMANDS.items():
        assert command.help, path
        for one in command.params:
            assert one.help, (path, one.name)


def test_a_former_name_is_taken_with_a_note(tmp_path: Path, environment: dict[str, str]) -> None:
    folder = make_images(tmp_path / "a", 1)
    for given in (["--real", folder], [f"--real={folder}"]):
        said = realbench(
            *("detectors", "bench", *given, "--generated", tmp_path / "none"),
            environment=environment,
            code=2,
        ).stderr.splitlines()
        assert said[0] == "note: --real is now called --reference"
        assert "no such folder" in said[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "a", "--out", ""),
        ("score", "a", "--out="),
        ("score", "a", "--out", " "),
        ("score", "a", "--reference", ""),
        ("score", "a", "--prompts", ""),
        ("score", "a", "--detector", ""),
        ("score", "a", ""),
        ("arena", "a", "b", "--out", ""),
        ("arena", "a", "b", "--cross-fit", ""),
        ("arena", "rate", ""),
        ("demo", "--out", ""),
        ("detectors", "calibrate", "x", "--reference", "a", "--generated", "b", "--out", ""),
        ("detectors", "train", "--data", "a", "--work", ""),
        ("generate", "--prompts", "realbench-mini", "--model", "m", "--out", ""),
        ("leaderboard", "build", "board", "--site", ""),
        ("prompts", "export", "realbench-mini", "--out", ""),
        ("realgen-train", "diffusion", "--config", "sd35-medium", "--out", ""),
        ("serve", "--config", ""),
    ],
)
def test_an_empty_value_is_misuse(
    arguments: tuple[str, ...], tmp_path: Path, environment: dict[str, str]
) -> None:
    make_images(tmp_path / "a", 1)
    before = sorted(tmp_path.rglob("*"))
    told = error_line(realbench(*arguments, environment=environment, cwd=tmp_path, code=2))
    assert "it is empty" in told
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", [("score", "a"), ("detectors", "bench", "--generated", "a")])
def test_photographs_given_twice_are_misuse(
    command: tuple[str, ...], tmp_path: Path, environment: dict[str, str]
) -> None:
    """The first folder would be passed over in silence."""
    make_images(tmp_path / "a", 1)
    twice = ["--reference", "a", "--reference", "b"]
    told = error_line(realbench(*command, *twice, environment=environment, cwd=tmp_path, code=2))
    assert "'--reference': it is taken once" in told


def test_every_command_helps_without_markup(environment: dict[str, str]) -> None:
    for path in COMMANDS:
        path = () if path[-1].startswith("\0") else path
        shown = realbench(*path, "--help", environment=environment).stdout
        assert shown.startswith(f"Usage: {' '.join(('realbench', *path))}")
    assert "TOML file with a [reward] table" in realbench(
        "serve", "--help", environment=environment
    ).stdout.replace("\n", " ")


def test_both_programs_tell_their_version(environment: dict[str, str]) -> None:
    from realbench import __version__

    for path in ((), ("realgen-train",)):
        shown = realbench(*path, "--version", environment=environment).stdout
        assert shown == f"{path[0] if path else 'realbench'} {__version__}\n"


def test_a_seed_that_random_generators_do_not_take_is_misuse(environment: dict[str, str]) -> None:
    seeded = [
        path
        for path, one in COMMANDS.items()
        if any(option.name == "seed" for option in one.params)
    ]
    assert len(seeded) >= 11
    for path in seeded:
        path = ("arena",) if path[-1].startswith("\0") else path
        for seed in ("4294967296", "-1"):
            told = realbench(*path, "--seed", seed, environment=environment, code=2)
            assert "'--seed'" in error_line(told), path


def test_names_are_printed_as_they_are(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    """Nothing in them is an emoji, markup or a number to highlight."""
    wide = environment | {"COLUMNS": "250", "FORCE_COLOR": "1"}
    names = ["a:bug:b", "[bold]c", "smile:-)"]
    folders = [make_images(tmp_path / name, 3, seed=n) for n, name in enumerate(names)]
    (folders[0] / "0002.png").write_bytes(b"")
    photos = make_images(tmp_path / "photos:camera:", 3, seed=7)
    (tmp_path / "ensembles.toml").write_text('["x:bug:"]\ndetectors = ["npr", "[red]"]\n')
    run = {"environment": wide, "cwd": tmp_path}
    out = ("--out", tmp_path / "run:bug:")
    shown = realbench("score", *folders, "--reference", photos, *out, *cards, **run).stdout
    for name in (*names, "photos:camera:", "a:bug:b/0002.png", "run:bug:/report.html"):
        assert name in shown
    shown = realbench("arena", *folders, "--resamples", 20, *cards, **run).stdout
    assert all(name in shown for name in names)
    generated = [part for one in folders[1:] for part in ("--generated", one)]
    bench = ("detectors", "bench", "--reference", photos, *generated, *cards)
    assert all(name in realbench(*bench, **run).stdout for name in names[1:])
    listed = realbench("detectors", "list", **run).stdout
    assert "ensemble:x:bug:: npr, [red]" in listed
