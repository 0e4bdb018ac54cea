"""Makes the runs of ``leaderboards/gallery-5`` and writes the board's entries from them.

    realbench detectors train semantic-lite trace-lite --data ../shared/data \
        --out OUT --keep-folds FOLDS
    python benchmarks/gallery_board.py --data ../shared/data --folds FOLDS --work RUNS
    realbench leaderboard verify leaderboards/gallery-5
    realbench leaderboard build leaderboards/gallery-5

Every model is scored by the fold whose networks learned from no picture of its family and of none
of the gallery's prompts, and the photographs by the one that held out their source. Photographs
have no pictures of the board's prompts: in the arena five, drawn by a seed, stand in for them. All
commands are RealBench's own and are printed; run it again to go on after an interruption.
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

from realbench.arena.judges.detectors import Fold, read_folds
from realbench.content import content_path
from realbench.detection.training.data import read_manifest
from realbench.detection.training.folds import FOLDS_FILE
from realbench.detection.training.recipe import read_recipe
from realbench.leaderboard.board import ANCHORS, RESULTS, load_board
from realbench.leaderboard.entry import Description, make_entry, write_entry
from realbench.leaderboard.names import slug
from realbench.prompts import load_suite

BOARD = Path(__file__).parents[1] / "leaderboards" / "gallery-5"
PHOTOGRAPHS = "photographs"
SEED = 0


def realbench(*arguments: object) -> None:
    command = ["realbench", *map(str, arguments)]
    print("$", shlex.join(command), flush=True)
    subprocess.run([Path(sys.executable).with_name("realbench"), *command[1:]], check=True)


def photographs_of(data: Path, folds: int) -> list[list[Path]]:
    """Return the photographs of ``data/photos`` that each fold holds out."""
    recipe = read_recipe(content_path("detectors") / "semantic-lite" / "recipe.toml")
    images = read_manifest(data, recipe)
    own = [image for image in images if image.subset == "photos" and image.real]
    return [sorted(image.path for image in own if image.tests(fold)) for fold in range(folds)]


def copy_photographs(photographs: Sequence[Path], folder: Path) -> Path:
    """Copy photographs into a folder with the anchor's name."""
    target = folder / PHOTOGRAPHS
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in photographs:
        shutil.copy2(path, target)
    return target


def copy_stand_ins(
    photographs: Sequence[Sequence[Path]], prompts: Sequence[str], folder: Path
) -> tuple[int, Path]:
    """Copy photographs of one fold, both drawn, named by the prompts that they stand in for.

    Returns:
        the fold, and the folder.
    """
    draw = random.Random(SEED)
    fold = draw.choice([n for n, some in enumerate(photographs) if len(some) >= len(prompts)])
    target = copy_photographs((), folder)
    for prompt, path in zip(prompts, draw.sample(photographs[fold], len(prompts)), strict=True):
        shutil.copy2(path, target / f"{prompt}{path.suffix}")
    return fold, target


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
    models = sorted(path.name for path in generated.iterdir() if path.is_dir())
    folds = [
        Fold(
            detectors=tuple(os.fspath(Path(d).absolute()) for d in fold.detectors),
            contestants=tuple(name for name in models if name in fold.contestants),
        )
        for fold in read_folds(arguments.folds / FOLDS_FILE)
    ]
    photographs = photographs_of(arguments.data, len(folds))
    runs = {}
    for number, fold in enumerate(folds):
        if not fold.contestants:
            continue
        held_out = copy_photographs(photographs[number], work / f"photographs-{number}")
        runs[number] = work / f"score-{number}"
        options = [part for card in fold.detectors for part in ("--detector", card)]
        realbench(
            "score", *(generated / name for name in fold.contestants), held_out,
            "--prompts", generated / "prompts.jsonl", *options, "--out", runs[number], "--quiet",
        )  # fmt: skip
    drawn, stand_ins = copy_stand_ins(photographs, list(suite.prompts), work / "stand-ins")
    judged = [
        [*fold.contestants, PHOTOGRAPHS] if n == drawn else list(fold.contestants)
        for n, fold in enumerate(folds)
    ]
    write_map(work / FOLDS_FILE, folds, judged)
    arena = work / "arena"
    realbench(
        "arena", *(generated / name for name in models), stand_ins, "--judge", "detectors",
        "--cross-fit", work / FOLDS_FILE, "--prompts", generated / "prompts.jsonl",
        "--out", arena, "--quiet",
    )  # fmt: skip
    board = load_board(arguments.board)
    for number, run in runs.items():
        for name in folds[number].contestants:  # as realbench leaderboard add would
            entry = make_entry([run, arena], board, Description({"name": name}))
            write_entry(entry, arguments.board / RESULTS / f"{slug(name)}.json")
    described = Description({"name": PHOTOGRAPHS}, is_anchor=True)
    anchor = make_entry([*runs.values(), arena], board, described)
    write_entry(anchor, arguments.board / ANCHORS / f"{PHOTOGRAPHS}.json")
    print(f"wrote {len(models)} entries and an anchor into {arguments.board}")


if __name__ == "__main__":
    main()
