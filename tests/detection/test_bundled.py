"""The bundled pair: golden scores, and the rules that degraded and empty pictures must keep.

``python tests/detection/test_bundled.py`` writes the golden scores anew after a new training;
``realbench sets verify demo --write`` does so for the predictions in ``sets/demo``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import realbench
from realbench import rendering
from realbench.detection import perturbations
from realbench.detection.training.evaluate import blank_pictures
from realbench.images import read_image

GOLDEN = Path(__file__).parents[1] / "data" / "bundled_scores.json"


def pictures() -> dict[str, np.ndarray]:
    """Return sample photographs and renders, as the matched protocol has them."""
    from sklearn.datasets import load_sample_image

    made = {
        "china": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
        "spheres": rendering.spheres(640, 5),
        "mountains": rendering.mountains(640, 5),
    }
    return {name: perturbations.matched(image) for name, image in made.items()}


@pytest.fixture(scope="module")
def scorer() -> realbench.Scorer:
    return realbench.Scorer(device="cpu")


def test_scores_are_the_golden_ones(scorer: realbench.Scorer) -> None:
    golden = json.loads(GOLDEN.read_text())
    shown = pictures()
    assert list(golden) == list(shown)
    scores = scorer(list(shown.values()))
    for n, expected in enumerate(golden.values()):
        for name, value in expected.items():
            # JPEG decoders and processors differ by a little; another network by far more.
            assert scores.logits[name][n] == pytest.approx(value, abs=0.15)


def test_pictures_of_nothing_score_under_a_tenth(scorer: realbench.Scorer) -> None:
    blanks = blank_pictures(size=512, seed=7)
    realism = scorer(list(blanks.values())).realism
    assert realism.max() < 0.1, dict(zip(blanks, realism, strict=True))


@pytest.mark.slow
def test_degrading_generated_images_does_not_raise_their_realism(
    scorer: realbench.Scorer, shared_data: Path
) -> None:
    files = sorted((shared_data / "generated").glob("*/*.jpg"))[::12]
    images = [perturbations.matched(read_image(file)) for file in files]
    before = scorer(images).realism.mean()
    rng = np.random.default_rng(0)
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "blur": lambda image: perturbations.blur(image, 2),
        "noise": lambda image: perturbations.noise(image, 10, rng),
        "jpeg": lambda image: perturbations.jpeg(image, 40),
        "down-up": lambda image: perturbations.down_up(image, 2),
        "sharpen": lambda image: perturbations.sharpen(image, 150),
    }
    rises = {
        name: float(scorer([change(image) for image in images]).realism.mean() - before)
        for name, change in changes.items()
    }
    assert max(rises.values()) <= 0.05, rises


@pytest.mark.slow
def test_photographs_outscore_generated_images(scorer: realbench.Scorer, shared_data: Path) -> None:
    """A check that the shipped files work; they learned from these images (see the cards)."""
    from realbench import stats

    photos = sorted((shared_data / "photos").glob("*.*"))
    photos = [file for file in photos if file.suffix != ".jsonl"][::3]
    made = sorted((shared_data / "generated").glob("*/*.jpg"))[::6]
    real, generated = (
        scorer([perturbations.matched(read_image(f)) for f in some]).realism
        for some in (photos, made)
    )
    assert stats.auc(real, generated) > 0.95


if __name__ == "__main__":
    scores = realbench.Scorer(device="cpu")(list(pictures().values()))
    rows = {
        picture: {name: round(float(values[n]), 4) for name, values in scores.logits.items()}
        for n, picture in enumerate(pictures())
    }
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(rows, indent=2) + "\n")
