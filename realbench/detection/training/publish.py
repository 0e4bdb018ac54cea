"""Writes a trained detector's folder: weights, card, record and model card."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from realbench.detection.specs import CARD_FILE, CalibrationSpec
from realbench.detection.training.recipe import Recipe
from realbench.detection.training.run import save_json
from realbench.detection.weights import SCALE, unpack
from realbench.files import file_sha256

_TEMPLATES = Path(__file__).parent / "templates"
WEIGHTS_FILE = "weights.safetensors"
# Features' transformers that detectors share, from a detector's folder.
_SHARED = {"vit_small_patch14_dinov2": "../../features/dinov2-small/weights.safetensors"}


def publish_detector(
    folder: Path,
    *,
    name: str,
    recipe: Recipe,
    weights: Path,
    calibration: CalibrationSpec,
    record: Mapping[str, Any],
    own: bool = False,
) -> None:
    """Write ``folder`` anew: weights, ``card.toml``, ``record.json`` and ``README.md``.

    The README's hand-written part, above the line that begins the record, is kept.

    Args:
        own: whether it is of a user's own images: the recipe in use then lies beside it, and the
            card does not claim to be of this project.
    """
    publish_card(
        folder, name=name, recipe=recipe, weights=weights, calibration=calibration, own=own
    )
    if own:
        (folder / "recipe.toml").write_text(recipe.toml(), encoding="utf-8")
    save_json(folder / "record.json", record)
    publish_record(folder / "README.md", f"# {name}", record)


def publish_card(
    folder: Path,
    *,
    name: str,
    recipe: Recipe,
    weights: Path,
    calibration: CalibrationSpec,
    own: bool = False,
) -> None:
    """Write what ``--detector`` needs into ``folder``: the weights and ``card.toml``.

    Where the features that come with RealBench lie beside the detectors, a detector of this project
    shares their transformer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = _SHARED.get(recipe.architecture, "")
    backbone = ""
    if shared and not own and (folder / shared).exists():
        own_part = _without(load_file(weights), load_file(folder / shared))
        (folder / WEIGHTS_FILE).write_bytes(save(own_part))
        backbone = _weights_table("backbone", shared, folder)
    else:
        shutil.copyfile(weights, folder / WEIGHTS_FILE)
    files = backbone + _weights_table("weights", WEIGHTS_FILE, folder)
    (folder / CARD_FILE).write_text(_card(name, recipe, files, calibration, own), encoding="utf-8")


def _without(state: dict[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out, of a packed network, what its backbone has in the shared file."""
    below = {f"backbone.{name}": value for name, value in unpack(shared).items()}
    own = {
        name
        for name, value in unpack(state).items()
        if name not in below or not torch.equal(value, below[name])
    }
    return {name: value for name, value in state.items() if name.removesuffix(SCALE) in own}


def _weights_table(part: str, file: str, folder: Path) -> str:
    digest = file_sha256(folder / file)
    return f'[{part}]\nsource = "bundled"\nfile = "{file}"\nsha256 = "{digest}"\n\n'


_BEGIN = "<!-- The record below is written by `realbench detectors train`; do not edit it. -->"


def publish_record(readme: Path, title: str, record: Mapping[str, Any]) -> None:
    """Write the record's tables into a README, below what people wrote there."""
    written = readme.read_text(encoding="utf-8") if readme.exists() else f"{title}\n"
    above = written.split(_BEGIN)[0].rstrip()
    text = f"{above}\n\n{_BEGIN}\n\n{record_markdown(record)}"
    readme.write_text(text, encoding="utf-8")


def record_markdown(record: Mapping[str, Any]) -> str:
    """Render the record's figures as Markdown."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown for the repository; names come from the trainer's own data
    )
    return environment.get_template("record.md.j2").render(record=record).strip() + "\n"


def _card(name: str, recipe: Recipe, files: str, calibration: CalibrationSpec, own: bool) -> str:
    semantic = recipe.kind == "semantic"
    options = "".join(f"{key} = {value}\n" for key, value in recipe.options.items())
    description = (
        "Sees the whole picture at low resolution and judges light, material and rendering"
        if semantic
        else "Sees crops at native resolution and judges noise, texture and up-sampling traces"
    )
    citation = (
        f"RealBench, {name}, https://arxiv.org/abs/2512.00473 for the use of detectors as rewards"
    )
    licence = "Apache-2.0"
    tuned = "class_token = true\n" if recipe.class_token else ""
    tuned += f"tuned = {list(recipe.tuned.blocks)}\n" if recipe.tuned else ""
    if own:
        description += "; trained on images of one's own"
        citation = ""
        licence = "its trainer's; the transformer is DINOv2's (Apache-2.0)"
    return f"""name = "{name}"
level = "{"semantic" if semantic else "feature"}"
family = "{"whole-image" if semantic else "native-crops"}"
description = "{description}"
licence = "{licence}"
citation = "{citation}"

[input]
size = {recipe.input_size}
views = {recipe.views}
resize = "{"bicubic" if semantic else "none"}"

[model]
architecture = "{recipe.architecture}"
blocks = {sorted(recipe.blocks)}
{tuned}{f"[model.options]{chr(10)}{options}" if options else ""}
{files}[output]
kind = "logit-real"

[calibration]
temperature = {calibration.temperature}
bias = {calibration.bias}
"""
