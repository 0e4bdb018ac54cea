"""Makes the runs of ``leaderboards/gallery-5`` and writes the board's entries from them.

    realbench detectors train trace-lite semantic-lite --data ../shared/data \
        --autoencoder ../shared/weights --out OUT --keep-folds FOLDS
    python benchmarks/gallery_board.py --data ../shared/data --folds FOLDS --work RUNS
    realbench leaderboard verify leaderboards/gallery-5
    realbench leaderboard build leaderboards/gallery-5

Every model is scored by the fold whose networks learned from none of its pictures, and every
photograph by the one that held it out. Photographs have no pictures of the board's prompts: in
the arena five of each fold, drawn by a seed, stand in for them. All commands are RealBench's own
and are printed; run it again to go on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from realbench.arena.judges.cross_fit import Fold, read_folds
from realbench.content import content_path
from realbench.detection.training.data import read_manifest
from realbench.detection.training.folds import FOLDS_FILE
from realbench.detection.training.recipe import read_recipe
from realbench.leaderboard.board import ANCHORS, RESULTS, load_board
from realbench.leaderboard.entry import Description, make_entry, write_entry
from realbench.leaderboard.names import slug
from realbench.prompts import load_suite

BOARD = Path(__file__).parents[1] / "leaderboards" / "gallery-5"
SEED = 0


def realbench(*arguments: object) -> None:
    command = ["realbench", *map(str, arguments)]
    print("$", shlex.join(command), flush=True)
    subprocess.run([Path(sys.executable).with_name("realbench"), *command[1:]], check=True)


def photographs_of(data: Path, fold: int) -> list[Path]:
    """Return the photographs of ``data/photos`` that a fold holds out."""
    recipe = read_recipe(content_path("detectors") / "semantic-lite" / "recipe.toml")
    images = read_manifest(data, recipe)
    own = [i for i in images if i.subset == "photos" and i.real and i.tests(fold)]
    return sorted(image.path for image in own)


def copy_photographs(
    data: Path, fold: int, prompts: Sequence[str], work: Path
) -> tuple[Path, Path]:
    """Copy a fold's photographs, all of them and, by prompt id, those that stand in.

    Returns:
        the two folders, of one name.
    """
    name = f"photographs-fold-{fold}"
    every, drawn = work / "photographs" / name, work / "stand-ins" / name
    photographs = photographs_of(data, fold)
    for folder in (every, drawn):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for path in photographs:
        shutil.copy2(path, every)
    chosen = random.Random(f"{SEED} {fold}").sample(photographs, len(prompts))
    for prompt, path in zip(prompts, chosen, strict=True):
        shutil.copy2(path, drawn / f"{prompt}{path.suffix}")
    return every, drawn


def write_map(path: Path, folds: Sequence[Fold], contestants: Sequence[Sequence[str]]) -> None:
    """Write which fold judges whom."""
    path.write_text(
        "".join(
            f"[[fold]]\ndetectors = {json.dumps([os.fspath(d) for d in fold.detectors])}\n"
            f"contestants = {json.dumps(list(names))}\n"
            for fold, names in zip(folds, contestants, strict=True)
        ),
        encoding="utf-8",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the project's images")
    parser.add_argument("--folds", type=Path, required=True, help="from train --keep-folds")
    parser.add_argument("--work", type=Path, required=True, help="receives the runs")
    parser.add_argument("--board", type=Path, default=BOARD, help="receives the entries")
    arguments = parser.parse_args()
    work, generated = arguments.work, arguments.data / "generated"
    suite = load_suite(generated / "prompts.jsonl")
    folds = [
        Fold(tuple(Path(d).absolute() for d in fold.detectors), fold.contestants)
        for fold in read_folds(arguments.folds / FOLDS_FILE)
    ]
    models = sorted(path.name for path in generated.iterdir() if path.is_dir())
    runs, every, stand_ins, contestants = [], [], [], []
    for number, fold in enumerate(folds):
        own = [name for name in models if name in fold.contestants]
        photographs, drawn = copy_photographs(arguments.data, number, list(suite.prompts), work)
        stand_ins.append(drawn)
        every.append(photographs.name)
        contestants.append([*own, photographs.name])
        runs.append(work / f"score-fold-{number}")
        options = [part for card in fold.detectors for part in ("--detector", card)]
        realbench(
            "score", *(generated / name for name in own), "--reference", photographs,
            "--prompts", generated / "prompts.jsonl", *options, "--out", runs[-1], "--quiet",
        )  # fmt: skip
    write_map(work / FOLDS_FILE, folds, contestants)
    arena = work / "arena"
    realbench(
        "arena", *(generated / name for name in models), *stand_ins, "--judge", "detectors",
        "--cross-fit", work / FOLDS_FILE, "--prompts", generated / "prompts.jsonl",
        "--out", arena, "--quiet",
    )  # fmt: skip
    board = load_board(arguments.board)
    for run, names in zip(runs, contestants, strict=True):
        for name in names:  # as realbench leaderboard add would, all in one process
            is_anchor = name in every
            entry = make_entry(
                [run, arena], board, Description({"name": name}, is_anchor=is_anchor)
            )
            folder = arguments.board / (ANCHORS if is_anchor else RESULTS)
            write_entry(entry, folder / f"{slug(name)}.json")
    print(f"wrote {len(models)} entries and {len(every)} anchors into {arguments.board}")


if __name__ == "__main__":
    main()
