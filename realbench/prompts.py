"""Prompt suites: the texts given to the models, by the ids under which images are kept."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realbench.content import content_path
from realbench.errors import UsageError
from realbench.prompt_import import IMPORTED_ENDINGS, import_prompts
from realbench.prompt_records import Prompt, Suite, collect_prompts, json_lines
from realbench.sets.naming import is_set, set_prompts

SUITES_FILE = "suites.toml"


def list_suites() -> list[str]:
    """Return the names of the bundled suites, in the order in which they are listed."""
    return list(_index())


def load_suite(source: str | Path) -> Suite:
    """Load a bundled suite by its name, a file by its path, or the captions of ``set:NAME``.

    A bundled suite's name means that suite wherever the command runs: a file of the same name
    needs its folder, too. A text, CSV, TSV, JSON or Parquet file (by its ending) is read as
    :func:`realbench.prompt_import.import_prompts` does, every other one as JSONL
    (:func:`load_prompts`).

    Raises:
        UsageError: there is neither, or the file cannot be used.
        RealBenchError: a set is not here and cannot be fetched.
    """
    name = str(source)
    if is_set(name):
        return Suite(name=name, prompts=load_prompts(set_prompts(name)))
    if not os.path.dirname(name):
        index = _index()
        if name in index:
            return _bundled(name, index[name])
        if not os.path.lexists(name) and "." not in name:
            raise UsageError(
                f"no suite and no file is called {name!r}: the suites are {', '.join(index)}; "
                "else give a file of prompts"
            )
    path = Path(source)
    if path.suffix.lower() in IMPORTED_ENDINGS:
        return import_prompts(path)
    return Suite(name=path.stem, prompts=load_prompts(path))


def load_prompts(path: str | Path) -> dict[str, Prompt]:
    """Read a suite's file: a JSON object a line, in UTF-8.

    The keys are ``"id"`` and ``"prompt"``, and, where wanted, ``"category"``, ``"prompt_long"``
    and ``"tags"`` (a list). Blank lines and further keys are ignored; an integer id means its
    decimal digits. The ids keep the file's order.

    Raises:
        UsageError: the file cannot be read or holds no prompts, a line is not such an object, or
            an id comes twice. The message names the file and the line.
    """
    path = Path(path)
    prompts = collect_prompts(json_lines(path), path, "line")
    if not prompts:
        raise UsageError(f'{path} holds no prompts; each line is {{"id": ..., "prompt": ...}}')
    return prompts


def _index() -> dict[str, dict[str, Any]]:
    return tomllib.loads((content_path("prompts") / "suites" / SUITES_FILE).read_text("utf-8"))


def _bundled(name: str, entry: Mapping[str, Any]) -> Suite:
    folder = content_path("prompts") / "suites"
    prompts = load_prompts(folder / f"{entry.get('subset_of', name)}.jsonl")
    if "ids" in entry:
        prompts = {one: prompts[one] for one in entry["ids"]}
    return Suite(name, prompts, version=entry["version"], description=entry["description"])
