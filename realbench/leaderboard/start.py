"""Starts a board: writes a ``board.toml`` for what some runs were made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from realbench.arena.records import ArenaManifest
from realbench.config.toml_text import as_toml
from realbench.errors import UsageError
from realbench.leaderboard.board import ANCHORS, BOARD_FILE, RESULTS, Board, load_board
from realbench.leaderboard.entry import check_suite, is_arena, read_run, template_of
from realbench.prompt_export import export_prompts
from realbench.prompts import Suite, list_suites, load_suite
from realbench.scoring.records import DetectorUsed, read_summary, read_table
from realbench.text import printable

_PROMPTS_FILE = "prompts.jsonl"


def start_board(
    folder: Path, runs: Sequence[Path], *, suite: str, title: str, min_prompts: int | None = None
) -> Board:
    """Write a board for entries that are made as these runs were.

    Args:
        folder: the board's, new or empty of a board.
        runs: of ``score`` and ``arena``; their detectors, judge and photographs become the
            board's.
        suite: a bundled suite's name, or a file, whose prompts are copied into the board.
        title: for people.
        min_prompts: the least number of prompts with an image; by default nine in ten.

    Raises:
        UsageError: there is a board already, or a run or the suite cannot be used.
        RealBenchError: a run is damaged, or a file cannot be written.
    """
    from realbench.runs.files import make_folder, write_atomically

    path = folder / BOARD_FILE
    if path.exists():
        raise UsageError(f"{printable(path)} is there already: edit it, or give another folder")
    prompts = load_suite(suite)
    is_file = suite not in list_suites()
    text = _settings(runs, prompts, title, min_prompts, _PROMPTS_FILE if is_file else None)
    for name in (RESULTS, ANCHORS):
        make_folder(folder / name)
    if is_file:
        write_atomically(folder / _PROMPTS_FILE, export_prompts(prompts).encode())
    write_atomically(path, text.encode())
    return load_board(folder)


def _settings(
    runs: Sequence[Path], suite: Suite, title: str, min_prompts: int | None, file: str | None
) -> str:
    """Return the text of ``board.toml``."""
    detectors: list[DetectorUsed] = []
    judge: dict[str, Any] = {}
    anchors: list[str] = []
    ids: set[str] = set()
    for run in runs:
        manifest = read_run(run)
        check_suite(run, manifest, suite)
        if is_arena(manifest):
            judge = _judge(run, manifest)
            reference = manifest["reference"]
        else:
            detectors = manifest["detectors"]
            ids |= set(read_table(run)["prompt_id"])
            photographs = read_summary(run)["reference"]
            reference = photographs["folder"] if photographs else None
        if reference is not None and reference not in anchors:
            anchors.append(reference)
    if detectors and ids.isdisjoint(suite.prompts):
        raise UsageError(
            f"the runs have no image of a prompt of {suite.name}: the stem of an image is its "
            f"prompt's id (such as {next(iter(suite.prompts))}.png)"
        )
    columns = ["realism", "escape_rate", *(["auc"] if anchors else []), "detectors"]
    columns = columns if detectors else []
    columns += ["categories"] if detectors and suite.categories else []
    columns += ["arena", "win_rate"] if judge else []
    board: dict[str, Any] = {
        "format": 1,
        "title": title,
        "description": "",
        "limits": [],
        "rank_by": "realism" if detectors else "arena",
        "columns": columns,
        "suite": {
            "name": suite.name,
            "sha256": suite.sha256,
            "file": file,
            "min_prompts": min_prompts or max(2, -(-len(suite.prompts) * 9 // 10)),
        },
    }
    if detectors:
        board["detectors"] = [
            {
                "name": one["name"],
                "level": one["level"],
                "fingerprints": [one["fingerprint"]],
                "fused": one.get("fused"),
            }
            for one in detectors
        ]
    if judge:
        board["judge"] = judge
    if anchors:
        board["anchors"] = [{"name": name} for name in anchors]
    return as_toml(board)


def _judge(run: Path, manifest: ArenaManifest) -> dict[str, Any]:
    if len(manifest["judges"]) != 1:
        raise UsageError(
            f"{printable(run)} has {len(manifest['judges'])} judges: a board has one, so start it "
            "from a run with one"
        )
    ((name, about),) = manifest["judges"].items()
    fingerprints = [about["fingerprint"]]
    return {"name": name, "fingerprints": fingerprints, "template_sha256": template_of(about)}
