"""Do heat maps find what is generated? Composites of photographs and generated pictures.

    realbench detectors train semantic-lite trace-lite --data ../shared/data \
        --out OUT --keep-folds FOLDS
    python benchmarks/maps.py --data ../shared/data --folds FOLDS

A square of a generated picture is pasted into a photograph, and the reverse. Both pictures are
scaled to the same size before, the seam is blurred, and the composite is encoded as a whole, so
that neither size nor encoder tells the parts apart. Generators are drawn alike, and the networks
are of the fold that learned from neither picture's source. The figure is the AUC over pixels of
the map, by which a pixel of the photograph has the higher P(real); 95 % intervals over composites.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from realbench import Scorer
from realbench.content import content_path
from realbench.detection.training.data import read_manifest
from realbench.detection.training.recipe import read_recipe
from realbench.images import read_image
from realbench.stats import auc, bootstrap_mean

SIDE, EVERY = 448, 4  # pixels of a composite; the grid of pixels that the AUC takes
KINDS = ("generated in photograph", "photograph in generated")


def pictures(
    files: Sequence[Sequence[Path]], count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return squares (SIDE, SIDE, 3), each of a source drawn at random.

    Args:
        files: of each source.
    """
    found = []
    while len(found) < count:
        own = files[rng.integers(len(files))]
        image = Image.fromarray(read_image(own[rng.integers(len(own))]))
        edge = min(image.size)
        if edge <= SIDE:
            continue
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        square = image.crop((left, top, left + edge, top + edge))
        found.append(np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    return found


def held_out(data: Path, fold: int, real: bool) -> list[list[Path]]:
    """Return the files of each source that a fold did not learn from."""
    recipe = read_recipe(content_path("detectors") / "semantic-lite" / "recipe.toml")
    chosen = [
        image
        for image in read_manifest(data, recipe)
        if image.real == real
        and image.tests(fold)
        and image.subset not in recipe.unscored_subsets
        and image.source not in recipe.never_train
    ]
    return [
        [image.path for image in chosen if image.source == source]
        for source in sorted({image.source for image in chosen})
    ]


def composite(
    host: np.ndarray, guest: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a square of ``guest`` into ``host``; return the picture and where it is, bool."""
    side = int(rng.integers(160, 241))
    y, x = rng.integers(0, SIDE - side + 1, 2)
    inside = np.zeros((SIDE, SIDE))
    inside[y : y + side, x : x + side] = 1
    soft = gaussian_filter(inside, 3)[..., None]
    mixed = (host * (1 - soft) + guest * soft).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mixed).save(buffer, "JPEG", quality=92, subsampling=0)
    return np.asarray(Image.open(buffer)), inside > 0.5


def measure(
    scorer: Scorer, photographs: list[np.ndarray], generated: list[np.ndarray], seed: int
) -> pd.DataFrame:
    """Return a row per pair of pictures: AUC of both composites, P(real) of both pictures."""
    rng, rows = np.random.default_rng(seed), []
    for photograph, made in zip(photographs, generated, strict=True):
        real, fake = scorer([photograph, made]).realism
        row = {"photograph": real, "generated": fake}
        for kind, host, guest in zip(KINDS, (photograph, made), (made, photograph), strict=True):
            picture, inside = composite(host, guest, rng)
            realism = scorer.maps([picture])[0][::EVERY, ::EVERY]
            is_photograph = inside[::EVERY, ::EVERY] == (guest is photograph)
            row[kind] = auc(realism[is_photograph], realism[~is_photograph])
        print(*(f"{value:.2f}" for value in row.values()), flush=True)
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the shared images")
    parser.add_argument("--folds", type=Path, required=True, help="from train --keep-folds")
    parser.add_argument("--composites", type=int, default=80, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folders = sorted(options.folds.glob("fold-*"))
    sources = [
        [held_out(options.data, f, real) for real in (True, False)] for f in range(len(folders))
    ]
    generators = [len(made) for _, made in sources]
    drawn = np.random.default_rng(options.seed).choice(
        len(folders), options.composites, p=np.array(generators) / sum(generators)
    )
    start, tables = time.perf_counter(), []
    for fold, (folder, (real, made)) in enumerate(zip(folders, sources, strict=True)):
        count = int((drawn == fold).sum())
        rng = np.random.default_rng([options.seed, fold])
        scorer = Scorer([folder / "semantic-lite", folder / "trace-lite"])
        pairs = pictures(real, count, rng), pictures(made, count, rng)
        tables.append(measure(scorer, *pairs, options.seed).assign(fold=fold))
    table = pd.concat(tables)
    seconds = (time.perf_counter() - start) / (2 * len(table))
    told = table["photograph"] > table["generated"]
    rows = {"all": table, "of pictures told apart whole": table[told]}
    rows |= {f"fold {fold}": part for fold, part in table.groupby("fold")}
    for name, part in rows.items():
        for kind in KINDS:
            mean = bootstrap_mean(part[kind].to_numpy())
            shown = f"{mean.estimate:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
            print(f"{kind}, {name}: AUC {shown}, n {mean.n}")
    print(f"{seconds:.1f} s a composite")


if __name__ == "__main__":
    main()
