"""Calibrates detectors on the user's own images, and says what that changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from realbench.bench.labelled import Labelled, each_detector, named_from, score_labelled
from realbench.content import content_path
from realbench.detection.calibration import (
    CALIBRATION_FILE,
    SavedCalibration,
    calibrated,
    fit_calibration,
)
from realbench.detection.cards import Card
from realbench.detection.ensemble import probability
from realbench.detection.ensembles import find_cards
from realbench.detection.registry import list_detectors
from realbench.detection.specs import CARD_FILE, CalibrationSpec, Precision
from realbench.detection.verdict import ConformalSample
from realbench.errors import UsageError
from realbench.runs.files import check_folder
from realbench.stats import Interval, detection_measures
from realbench.stats.record import estimate
from realbench.text import printable

FEW_PROMPTS = 10
DEFAULT_OUT = Path("calibrated-detectors")


def calibrate(
    detectors: Sequence[str | Path],
    real: Sequence[Path],
    generated: Sequence[Path],
    *,
    out: Path | None = None,
    prior: float = 0.5,
    weights: Mapping[str, Mapping[str, str | Path]] | None = None,
    precision: Precision = "float32",
    matched: bool = False,
    seed: int = 0,
    **options: Any,
) -> list[dict[str, Any]]:
    """Fit temperature and bias of each detector, measure what they change, and save them.

    Each image is judged by a calibration that was fitted without its prompt. Figures are at even
    odds; the prior shifts the saved bias afterwards.

    The scores themselves are saved beside each calibration, as held-out ones: verdicts of these
    detectors, alone or together, then rest on the user's images.

    Args:
        out: receives ``NAME/calibration.toml`` and ``NAME/verdict.json``; by default beside the
            card of a folder of the user's, and in ``calibrated-detectors`` for detectors that are
            named.
        prior: the share of photographs that P(real) shall suppose, between 0 and 1.
        matched: as for :func:`score_labelled`.
        weights: the user's own files, by detector and part.
        precision: as for :func:`realbench.score`; a calibration serves either.
        options: the others of :func:`score_labelled`.

    Returns:
        an entry per detector: the calibration, ``before`` and ``after`` with calibration error and
        log loss, the ``difference`` of the latter, AUC, what verdicts rest on, notes and the
        folder.

    Raises:
        UsageError: an unknown detector, fewer than 50 images of a class, images that are given as
            both, or a folder that cannot be written.
    """
    if not 0 < prior < 1:
        raise UsageError(f"--prior must be between 0 and 1, not {prior:g}")
    cards = [one.to_calibrate() for one in find_cards(detectors, weights, precision)]
    folders = [
        _folder(one, card, out) for one, card in zip(each_detector(detectors), cards, strict=True)
    ]
    for folder, _ in folders:
        check_folder(folder)
    labelled = score_labelled(cards, real, generated, matched=matched, **options)
    labelled.need("calibration")
    sample = ConformalSample.of(
        cards,
        labelled.logits,
        labelled.real,
        labelled.source,
        "the user's own, matched in shape, size and format" if matched else "the user's own",
    )
    found = []
    for card, (folder, named) in zip(cards, folders, strict=True):
        entry, spec = _measured(card, labelled, seed)
        shift = float(np.log(prior / (1 - prior)))
        saved = SavedCalibration(
            detector=named,
            temperature=spec.temperature,
            bias=round(spec.bias + spec.temperature * shift, 4),
            prior=prior,
            n_real=int(labelled.real.sum()),
            n_generated=int((~labelled.real).sum()),
            fingerprint=card.uncalibrated,
        )
        saved.write(folder)
        sample.write(folder)
        own = [card.changed(calibration=saved.spec)]
        entry["verdict"] = sample.describe(own, sample.rule(own))
        found.append(entry | {"calibration": saved.model_dump(mode="json"), "folder": str(folder)})
    return found


def _folder(given: str | Path, card: Card, out: Path | None) -> tuple[Path, str]:
    shipped = card.path.is_relative_to(content_path("detectors"))
    named = shipped or str(given) in list_detectors()
    source = Path(given)
    if not named and (source / CALIBRATION_FILE).exists() and not (source / CARD_FILE).exists():
        named = card.name in list_detectors()  # calibrated before: calibrate its detector anew
    beside = DEFAULT_OUT / card.name if named else card.path
    folder = beside if out is None else out / card.name
    if folder.resolve().is_relative_to(content_path("detectors")):
        raise UsageError(f"{printable(folder)} is part of the package: choose another --out")
    return folder, card.name if named else named_from(folder, card.path)


def _measured(card: Card, labelled: Labelled, seed: int) -> tuple[dict[str, Any], CalibrationSpec]:
    logits, real = labelled.logits[card.name], labelled.real
    raw = logits * card.calibration.temperature - card.calibration.bias
    after = np.empty_like(raw)
    folds = labelled.prompt_folds()
    for fold in range(folds.max() + 1):
        mine = folds == fold
        spec = fit_calibration(raw[~mine], real[~mine])
        after[mine] = calibrated(raw[mine], spec)
    area = labelled.area(logits, seed)
    notes = list(labelled.notes)
    if note := doubt(card.name, area):
        notes.append(note)
    return {
        "detector": card.name,
        "n_real": int(real.sum()),
        "n_generated": int((~real).sum()),
        "auc": estimate(area),
        "before": _figures(logits, labelled, seed),
        "after": _figures(after, labelled, seed),
        "log_loss_saved": estimate(labelled.log_loss(after, seed, before=logits)),
        "notes": notes,
    }, fit_calibration(raw, real)


def doubt(name: str, area: Interval) -> str | None:
    """Say where a detector does not tell the images apart, or too few prompts leave it open."""
    if area.low > 0.5:
        return None
    if area.estimate > 0.5 and area.n_groups < FEW_PROMPTS:
        return (
            f"{name}: {area.n_groups} prompts of a class are too few to tell whether it tells "
            f"these photographs from these generated images (AUC {area.estimate:.3f}): add some"
        )
    return (
        f"{name} does not tell these photographs from these generated images, so calibration can "
        "but say that it does not know"
    )


def _figures(logits: np.ndarray, labelled: Labelled, seed: int) -> dict[str, Any]:
    real, prompt = labelled.real, labelled.prompt
    p = probability(logits).astype(np.float64)
    measures = detection_measures(p[real], p[~real], prompt[real], prompt[~real], seed=seed)
    return {
        "calibration_error": estimate(measures["calibration_error"]),
        "log_loss": estimate(labelled.log_loss(logits, seed)),
    }
