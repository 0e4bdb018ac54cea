"""Boards for tests: runs as ``score`` and ``arena`` write them, entered by ``add`` itself."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realbench.arena.vote_log import VOTES_FILE
from realbench.arena.votes import Vote
from realbench.distances.compare import DINO
from realbench.leaderboard.board import load_board
from realbench.leaderboard.entry import Description, make_entry, write_entry
from realbench.leaderboard.names import slug
from realbench.prompts import load_suite
from realbench.scoring.records import features_bytes
from tests.arena.arenas import NOW

CATEGORIES = ("people", "animals", "street", "night & light")
DETECTORS = {"whole": ("semantic", "a" * 64), "crops": ("feature", "b" * 64)}
JUDGE, JUDGE_FINGERPRINT = "detectors", "c" * 64
FEATURES, SIZE = "f" * 64, 16  # the network's fingerprint, and the length of its vectors


def make_board(
    folder: Path,
    *,
    n_prompts: int = 12,
    least: int = 8,
    anchor: str | None = "Photographs",
    judge: bool = True,
    detectors: Mapping[str, tuple[str, str]] = DETECTORS,
    extra: str = "",
    distances: bool = False,
) -> Path:
    """Write a board with a suite of its own and return its folder."""
    folder.mkdir(parents=True)
    write_suite(folder / "prompts.jsonl", n_prompts)
    columns = ["realism", "escape_rate", "detectors", "categories"]
    columns += ["arena", "win_rate"] if judge else []
    columns += ["auc"] if anchor else []
    if distances:
        columns += ["two_sample", "kd", "fd"]
        extra += f'[features]\nname = "{DINO}"\nfingerprint = "{FEATURES}"\nsize = {SIZE}\n'
    text = f"""format = 1
title = "Test board"
description = "Photorealism of a few models."
limits = ["Few prompts: read it as an example."]
columns = {json.dumps(columns)}
{extra}
[suite]
name = "prompts"
sha256 = "{load_suite(folder / "prompts.jsonl").sha256}"
file = "prompts.jsonl"
min_prompts = {least}
"""
    for name, (level, fingerprint) in detectors.items():
        text += f'[[detectors]]\nname = "{name}"\nlevel = "{level}"\n'
        text += f'fingerprints = ["{fingerprint}"]\n'
    if judge:
        text += f'[judge]\nname = "{JUDGE}"\nfingerprints = ["{JUDGE_FINGERPRINT}"]\n'
    if anchor:
        text += f'[[anchors]]\nname = "{anchor}"\n'
    (folder / "board.toml").write_text(text)
    return folder


def write_suite(path: Path, n_prompts: int = 12) -> Path:
    """Write a file of prompts in four categories."""
    lines = [
        json.dumps({"id": f"{n:03d}", "prompt": f"A scene {n}", "category": CATEGORIES[n % 4]})
        for n in range(n_prompts)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def digest(model: str, prompt: str) -> str:
    return hashlib.sha256(f"{model}/{prompt}".encode()).hexdigest()


def write_score_run(
    folder: Path, strengths: Mapping[str, float], *, n_prompts: int = 12, per_prompt: int = 1
) -> Path:
    """Write a run of ``realbench score`` over models of these mean logits."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 0.6, n_prompts)
    columns = ["folder", "image", "prompt_id", "sha256", "status", "reason", "realism"]
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, *DETECTORS, "disagreement"])
        for model, strength in strengths.items():
            for n in range(n_prompts * per_prompt):
                prompt = f"{n % n_prompts:03d}"
                logits = strength + hardness[n % n_prompts] + rng.normal(0, 0.5, 2)
                p = 1 / (1 + np.exp(-logits))
                realism = 1 / (1 + np.exp(-logits.mean()))
                image = f"{prompt}-{n}.png"
                row = [model, image, prompt, digest(model, image), "ok", ""]
                writer.writerow([*row, *(f"{v:.6f}" for v in (realism, *p, abs(p[0] - p[1])))])
    detectors = [
        {"name": name, "level": level, "fingerprint": fingerprint}
        for name, (level, fingerprint) in DETECTORS.items()
    ]
    n_scored = len(strengths) * n_prompts * per_prompt
    _json(
        folder / "run.json",
        {
            "schema_version": 1,
            **_about({"realgen": "0.1.0", "python": "3.11"}),
            "device": "cpu",
            "detectors": detectors,
            "n_scored": n_scored,
            "n_cached": 0,
            "n_failed": 0,
            "timings": {},
        },
    )
    return folder


def add_features(run: Path, shifts: Mapping[str, float]) -> np.ndarray:
    """Give a run features whose means are so far apart, as ``--distances`` does; return them."""
    table = pd.read_csv(run / "scores.csv")
    rng = np.random.default_rng(2)
    features = rng.normal(size=(len(table), SIZE)) + table["folder"].map(shifts).to_numpy()[:, None]
    (run / "features.safetensors").write_bytes(features_bytes({DINO: features}))
    used = [{"name": DINO, "title": "", "fingerprint": FEATURES}]
    empty = {"schema_version": 1, "folders": [], "pairs": [], "reference": None, "notes": []}
    distances = {"n": 0, "features": used, "photographs": {}, "folders": []}
    _json(run / "summary.json", {**empty, "confidence": 0.95, "distances": distances})
    return features.astype(np.float32)


def _about(versions: dict[str, str]) -> dict[str, Any]:
    """Return what every run says of itself."""
    return {
        "versions": versions,
        "platform": "a test",
        "suite": None,
        "arguments": {},
        "argv": ["realbench"],
        "seed": 0,
        "started": NOW.isoformat(),
        "finished": NOW.isoformat(),
    }


def write_arena_run(
    folder: Path,
    strengths: Mapping[str, float],
    *,
    reference: str | None = None,
    n_prompts: int = 12,
    images: Mapping[tuple[str, str], str] | None = None,
) -> Path:
    """Write a run of ``realbench arena`` in which the stronger model tends to win."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    seen = images or {}
    lines = []
    for n in range(n_prompts):
        prompt = f"{n:03d}"
        for a, b in combinations(sorted(strengths), 2):
            gap = strengths[a] - strengths[b] + rng.normal(0, 1)
            for first, second, sign in ((a, b, 1), (b, a, -1)):
                vote = Vote(
                    id=f"{prompt}-{first}-{second}",
                    judge=JUDGE,
                    judge_fingerprint=JUDGE_FINGERPRINT,
                    prompt_id=prompt,
                    first=first,
                    second=second,
                    first_sha256=seen.get((first, prompt), digest(first, f"{prompt}-{n}.png")),
                    second_sha256=seen.get((second, prompt), digest(second, f"{prompt}-{n}.png")),
                    verdict="first" if gap * sign > 0 else "second",
                    time=NOW,
                )
                lines.append(vote.model_dump_json(exclude_none=True))
    (folder / VOTES_FILE).write_text("\n".join(lines) + "\n")
    _json(
        folder / "run.json",
        {
            "arena_format": 1,
            **_about({"realgen": "0.1.0"}),
            "schedule": "all",
            "resamples": 1000,
            "notes": [],
            "stop_reason": "complete",
            "counts": {},
            "reference": reference,
            "prompts": {"shared": n_prompts, "dropped": {}, "missing": {}, "texts": {}},
            "contestants": [
                {
                    "name": name,
                    "folder": name,
                    "path": name,
                    "n_images": n_prompts,
                    "is_reference": name == reference,
                    "unreadable": {},
                    "doubles": [],
                    "stands_in": {},
                }
                for name in strengths
            ],
            "judges": {JUDGE: {"fingerprint": JUDGE_FINGERPRINT, "orders": 2, "is_vlm": False}},
        },
    )
    return folder


def fill_board(
    root: Path,
    strengths: Mapping[str, float],
    *,
    photographs: float | None = 3.0,
    arena: bool = True,
    n_prompts: int = 12,
    meta: Mapping[str, Mapping[str, str]] | None = None,
    **options: Any,
) -> Path:
    """Return a board with an entry for each model, and its photographs."""
    anchor = "Photographs" if photographs is not None else None
    board = make_board(root / "board", anchor=anchor, judge=arena, n_prompts=n_prompts, **options)
    everyone = dict(strengths) | ({anchor: photographs} if anchor and photographs else {})
    runs = [write_score_run(root / "score", everyone, n_prompts=n_prompts)]
    if arena:
        runs += [write_arena_run(root / "arena", everyone, reference=anchor, n_prompts=n_prompts)]
    for name in everyone:
        enter(board, runs, name, is_anchor=name == anchor, meta=(meta or {}).get(name, {}))
    return board


def enter(
    board: Path,
    runs: Sequence[Path],
    name: str,
    *,
    is_anchor: bool = False,
    folder: str | None = None,
    meta: Mapping[str, str] | None = None,
) -> Path:
    """Write an entry, without asking whether the board takes it, and return its file."""
    described = Description(
        {"name": name, **(meta or {})}, {"steps": 28}, folder=folder, is_anchor=is_anchor
    )
    entry = make_entry(runs, load_board(board), described)
    path = board / ("anchors" if is_anchor else "results") / f"{slug(name)}.json"
    write_entry(entry, path)
    return path


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))
