"""The two judges of the small model's pictures, and how they were made.

The reward is a detector of the embedded families, trained by ``realbench detectors train`` on one
half of the photographs against pictures of the base model. The held-out judge is a small
convolutional network, trained here, on the other half against pictures of other seeds; no reward
ever comes from it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from photographs import Photograph, centre_crop, random_crop, read_small
from PIL import Image
from torch import Tensor
from torch.nn import functional

from realbench.detection import perturbations
from realbench.detection.calibration import calibrated
from realbench.detection.families.embedded import TimmNetwork
from realbench.detection.registry import load_detector
from realbench.detection.specs import CARD_FILE, CalibrationSpec
from realbench.detection.training.recipe import Recipe, Shares
from realbench.detection.training.train import train_detectors
from realbench.files import file_sha256, write_whole
from realbench.generation.small_photo import SmallPhotoPipeline
from realbench.stats.bootstrap import bootstrap_mean
from realbench.stats.roc import bootstrap_auc

REWARD = "small-photo-reward"
HELDOUT = "small-photo-heldout"

_RECIPE = Recipe(
    kind="semantic",
    architecture="vit_small_patch14_dinov2",
    blocks=(1, 3),
    input_size=112,
    matched_size=32,
    views=1,
    folds=3,
    training_views=4,
    degraded_share=0.75,
    inverse_penalty=0.5,
    bits=6,  # as the transformer that it shares
    shares=Shares(round_trip=0.0, generated={"*": 0.5}),
)

_FAR_END = 1.5  # logit of photographs; the model's pictures have its opposite

_ARCHITECTURE = "resnet10t"
_OPTIONS: dict[str, Any] = {"stem_width": 16, "channels": [24, 48, 96, 128]}
_INPUT = 64

_STEPS, _GUIDANCE = 10, 2.0  # with which pictures are made wherever they are judged
_AT_ONCE = 32


def half(photographs: Sequence[Photograph], which: int) -> list[Photograph]:
    """Return one half of the photographs, 0 or 1, as the hash of a file's name has it."""
    return [
        one
        for one in photographs
        if hashlib.sha256(one.path.name.encode()).digest()[0] % 2 == which
    ]


def sample_pictures(
    pipeline: SmallPhotoPipeline, captions: Sequence[str], *, seed: int
) -> npt.NDArray[np.uint8]:
    """Make a picture of each caption, uint8 (n, size, size, 3); each has its own seed."""
    made = []
    for start in range(0, len(captions), _AT_ONCE):
        part = list(captions[start : start + _AT_ONCE])
        numbers = range(start, start + len(part))
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + n) for n in numbers]
        pictures: Any = pipeline(
            part,
            num_inference_steps=_STEPS,
            guidance_scale=_GUIDANCE,
            generator=generators,
            output_type="np",
        ).images
        made.append((pictures * 255).round().astype(np.uint8))
    return np.concatenate(made)


def write_pictures(folder: Path, pictures: npt.NDArray[np.uint8], names: Sequence[str]) -> None:
    """Write pictures, uint8 (n, S, S, 3), as PNG files; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture, name in zip(pictures, names, strict=True):
        path = folder / f"{name}.png"
        if not path.exists():
            write_whole(path, partial(Image.fromarray(picture).save, format="PNG"))


def train_reward(
    pipeline: SmallPhotoPipeline,
    photographs: Sequence[Photograph],
    out: Path,
    work: Path,
    *,
    seed: int = 1,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train the reward's detector and write ``out/small-photo-reward``; return its figures."""
    chosen = half(photographs, 0)
    names = [one.path.stem for one in chosen]
    size = pipeline.size
    photos = np.stack([centre_crop(read_small(one.path), size) for one in chosen])
    write_pictures(work / "photographs", photos, names)
    folder = work / "small-photo"
    if not all((folder / f"{name}-altered.png").exists() for name in names):
        made = sample_pictures(pipeline, [one.caption for one in chosen], seed=seed)
        rng = np.random.default_rng([seed, 3])
        write_pictures(folder, made, names)
        write_pictures(
            folder,
            np.stack([altered(one, rng) for one in made]),
            [f"{name}-altered" for name in names],
        )
    results = train_detectors(
        {REWARD: _RECIPE.model_copy(update={"matched_size": size})},
        out=out,
        work=work / "detectors",
        photos=[work / "photographs"],
        generated=[folder],
        workers=1,
        command="python models/small-photo/making/making.py --data ../shared/data "
        "--out models/small-photo --detectors detectors",
        report=report,
    )
    return dict(results[REWARD]) | {"scale": _rescale_reward(out / REWARD, pipeline, chosen, seed)}


def _rescale_reward(
    folder: Path, pipeline: SmallPhotoPipeline, photographs: Sequence[Photograph], seed: int
) -> dict[str, Any]:
    """Set the reward's scale by other crops and other pictures than it was trained on."""
    few = photographs[:: max(1, len(photographs) // 200)]
    rng = np.random.default_rng([seed, 4])
    photos = np.stack([random_crop(read_small(one.path), pipeline.size, rng) for one in few])
    made = sample_pictures(pipeline, [one.caption for one in few], seed=seed + 100)
    detector = load_detector(folder)
    logits = []
    for pictures in (made, photos):
        batch = torch.stack([detector.prepare(one) for one in pictures])
        before = detector.card.calibration
        logits.append(detector.logits(batch).numpy() * before.temperature - before.bias)
    calibration = graded(logits[0], logits[1])
    card = folder / CARD_FILE
    head = card.read_text(encoding="utf-8").split("[calibration]")[0]
    head = re.sub(
        "^description = .*$",
        f'description = "For pictures of {pipeline.size} pixels by small-photo only: the reward '
        'of the demo"',
        head,
        flags=re.MULTILINE,
    )
    head = re.sub("^licence = .*$", 'licence = "Apache-2.0"', head, flags=re.MULTILINE)
    card.write_text(f"{head}{_calibration_table(calibration)}", encoding="utf-8")
    return calibration.model_dump()


def graded(
    made: npt.NDArray[np.floating], photographs: npt.NDArray[np.floating]
) -> CalibrationSpec:
    """Return the scale on which the model's pictures have 0.18 and photographs 0.82.

    The two are told apart almost without error, so that probabilities would be 0 and 1, and a
    reward of 0 has no slope. Instead the mean logits of the two become -1.5 and 1.5: P(real) then
    says how far a picture is on the way from one to the other.

    Args:
        made, photographs: Raw logits, (n,) and (m,).
    """
    low, high = float(np.mean(made)), float(np.mean(photographs))
    temperature = max((high - low) / (2 * _FAR_END), 1e-3)
    return CalibrationSpec(temperature=round(temperature, 4), bias=round(-(low + high) / 2, 4))


def _calibration_table(calibration: CalibrationSpec) -> str:
    return f"[calibration]\ntemperature = {calibration.temperature}\nbias = {calibration.bias}\n"


@dataclass(frozen=True)
class HeldoutSettings:
    """How the held-out judge is trained.

    Attributes:
        epochs: Passes over its photographs, each with as many pictures of the model.
        batch: Pictures of a step, half of them photographs.
        learning_rate: The highest, of AdamW.
        smoothing: Of the labels.
        tested: Share of photographs, and of pictures, that are only tested on.
        seed: Of everything.
    """

    epochs: int = 20
    batch: int = 64
    learning_rate: float = 2e-3
    smoothing: float = 0.05
    tested: float = 0.25
    seed: int = 2


def train_heldout(
    pipeline: SmallPhotoPipeline,
    photographs: Sequence[Photograph],
    out: Path,
    settings: HeldoutSettings | None = None,
) -> dict[str, Any]:
    """Train the held-out judge and write ``out/small-photo-heldout``; return its record."""
    settings = settings or HeldoutSettings()
    started = time.monotonic()
    chosen = half(photographs, 1)
    images = [read_small(one.path) for one in chosen]
    made = sample_pictures(pipeline, [one.caption for one in chosen], seed=settings.seed)
    count = len(chosen)
    n_tested = max(2, round(settings.tested * count))
    order = np.random.default_rng(settings.seed).permutation(count)
    tested, trained = order[:n_tested], order[n_tested:]
    network = _fit([images[n] for n in trained], made[trained], pipeline.size, settings)
    photos = np.stack([centre_crop(images[n], pipeline.size) for n in tested])
    with torch.inference_mode():
        logits = np.concatenate(
            [network(_as_input(part)).numpy() for part in (photos, made[tested])]
        )
    real = np.arange(2 * n_tested) < n_tested
    calibration = graded(logits[~real], logits[real])
    p_real = 1 / (1 + np.exp(-calibrated(logits, calibration)))
    area = bootstrap_auc(p_real[real], p_real[~real])
    record = {
        "name": HELDOUT,
        "architecture": f"timm {_ARCHITECTURE}, {_OPTIONS}",
        "trained_on": {"photographs": len(trained), "pictures of small-photo": len(trained)},
        "tested_on": {"photographs": n_tested, "pictures of small-photo": n_tested},
        "auc": {"estimate": area.estimate, "low": area.low, "high": area.high, "n": 2 * n_tested},
        "realism": {
            what: _mean(p_real[mask]) for what, mask in (("photographs", real), ("made", ~real))
        },
        "size": pipeline.size,
        "seconds": round(time.monotonic() - started, 1),
        "settings": settings.__dict__,
    }
    _publish(network, calibration, record, out / HELDOUT)
    return record


def _mean(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    found = bootstrap_mean(values)
    return {"mean": found.estimate, "low": found.low, "high": found.high, "n": found.n}


def _fit(
    images: Sequence[Image.Image],
    made: npt.NDArray[np.uint8],
    size: int,
    settings: HeldoutSettings,
) -> TimmNetwork:
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng([settings.seed, 1])
    network = TimmNetwork(_ARCHITECTURE, **_OPTIONS).train()
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=0.05)
    per_class = settings.batch // 2
    steps = settings.epochs * max(1, len(images) // per_class)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps
    )
    for _ in range(steps):
        photos = [
            random_crop(images[n], size, rng) for n in rng.integers(len(images), size=per_class)
        ]
        pictures = list(made[rng.integers(len(made), size=per_class)])
        views = [
            *(_view(one, True, rng) for one in photos),
            *(_view(one, False, rng) for one in pictures),
        ]
        label = (torch.arange(len(views)) < per_class).float()
        label = label * (1 - settings.smoothing) + settings.smoothing / 2
        loss = functional.binary_cross_entropy_with_logits(
            network(_as_input(np.stack(views))), label
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def _view(
    picture: npt.NDArray[np.uint8], real: bool, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Change a picture as may happen to any; strongly only where it is the model's."""
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    view = np.ascontiguousarray(picture)
    if rng.random() < 0.5:
        value = (view.astype(np.float32) - 128) * rng.uniform(0.8, 1.2) + 128
        value = value * rng.uniform(0.92, 1.08, 3) + rng.uniform(-20, 20)
        view = np.clip(value, 0, 255).astype(np.uint8)
    if not real and rng.random() < 0.5:
        view = altered(view, rng)
    elif rng.random() < 0.2:
        view = perturbations.blur(view, rng.uniform(0.2, 0.5))
    elif rng.random() < 0.2:
        view = perturbations.noise(view, rng.uniform(0.5, 3), rng)
    return np.asarray(view)


def altered(picture: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Change a picture of the model in a way that makes it no better: one or two of six.

    A judge that has seen these can hardly be pleased by contrast, colour, noise, blur, sharpening
    or brightness alone, which are what a policy finds first.

    Args:
        picture: uint8 (S, S, 3).
    """
    value: Any = picture.astype(np.float32)
    for kind in rng.choice(6, size=1 + int(rng.random() < 0.5), replace=False):
        if kind == 0:
            centre = value.mean()
            value = (value - centre) * math.exp(rng.uniform(0.15, 1.2)) + centre
        elif kind == 1:
            grey = value.mean(axis=2, keepdims=True)
            value = (value - grey) * math.exp(rng.uniform(0.2, 1.3)) + grey
        elif kind == 2:
            value = value + rng.normal(0, rng.uniform(3, 25), value.shape)
        elif kind == 3:
            value = _as_bytes(value)
            value = perturbations.blur(value, rng.uniform(0.4, 1.5)).astype(np.float32)
        elif kind == 4:
            value = _as_bytes(value)
            strength = int(rng.uniform(50, 300))
            value = perturbations.sharpen(value, strength, rng.uniform(0.6, 2)).astype(np.float32)
        else:
            value = value * rng.uniform(0.6, 1.4, 3) + rng.uniform(-40, 40)
    return _as_bytes(value)


def _as_bytes(value: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.clip(value, 0, 255).astype(np.uint8)


def _as_input(pictures: npt.NDArray[np.uint8]) -> Tensor:
    """Return pictures, uint8 (n, S, S, 3), as the whole-image family hands them to a network."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)
    larger = functional.interpolate(pixels, size=(_INPUT, _INPUT), mode="bicubic", antialias=True)
    return larger.float()


def _publish(
    network: TimmNetwork, calibration: CalibrationSpec, record: dict[str, Any], folder: Path
) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "weights.safetensors"
    state = {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    save_file({name: value.contiguous() for name, value in state.items()}, weights)
    size = record["size"]
    options = "\n".join(f"{key} = {json.dumps(value)}" for key, value in _OPTIONS.items())
    card = f"""name = "{HELDOUT}"
level = "semantic"
family = "whole-image"
description = "For pictures of {size} pixels by small-photo only: the held-out judge of the demo"
licence = "Apache-2.0"
citation = "RealBench, {HELDOUT}"

[input]
size = {_INPUT}
views = 1
resize = "bicubic"

[model]
architecture = "{_ARCHITECTURE}"

[model.options]
{options}

[weights]
source = "bundled"
file = "weights.safetensors"
sha256 = "{file_sha256(weights)}"

[output]
kind = "logit-real"

{_calibration_table(calibration)}"""
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
