"""The captioned photographs that the small model learns from, and crops of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from realbench.errors import UsageError
from realbench.files import file_sha256
from realbench.images import find_images, read_image
from realbench.prompts import load_prompts

_STORED_SIDE = 160
"""Pixels of the shorter side that are kept of a photograph: crops are scaled down from these."""


@dataclass(frozen=True)
class Photograph:
    """A photograph of the training set and what it shows."""

    path: Path
    caption: str


def captioned_photographs(data: Path) -> list[Photograph]:
    """Find photographs under a folder whose captions lie beside them in a ``prompts.jsonl``.

    Folders called ``generated*`` are left out; the order is that of the files' names.

    Raises:
        UsageError: the folder is missing, or no captioned photograph is under it.
    """
    if not data.is_dir():
        raise UsageError(f"{data}: no such folder; give the one with the captioned photographs")
    found: list[Photograph] = []
    for prompts in sorted(data.rglob("prompts.jsonl")):
        inside = prompts.parent.relative_to(data).parts
        if any(part.startswith("generated") for part in inside):
            continue
        captions = load_prompts(prompts)
        for file in find_images(prompts.parent):
            if file.prompt_id in captions and file.path.parent == prompts.parent:
                found.append(Photograph(file.path, captions[file.prompt_id].prompt))
    if not found:
        raise UsageError(
            f"{data}: no captioned photographs; a folder of them has a prompts.jsonl whose ids "
            "are the files' names"
        )
    return found


def data_hash(photographs: Sequence[Photograph]) -> str:
    """Return one SHA-256 in hex over the photographs' files and captions, in their order."""
    together = hashlib.sha256()
    for photograph in photographs:
        line = [photograph.path.name, file_sha256(photograph.path), photograph.caption]
        together.update(json.dumps(line).encode() + b"\n")
    return together.hexdigest()


def read_small(path: Path) -> Image.Image:
    """Read a photograph, its shorter side scaled down to 160 pixels where it is longer."""
    image = Image.fromarray(read_image(path))
    scale = _STORED_SIDE / min(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def centre_crop(image: Image.Image, size: int) -> npt.NDArray[np.uint8]:
    """Return the square in the middle, ``size`` pixels a side: uint8 (size, size, 3)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return _square(image, left, top, side, size)


def random_crop(
    image: Image.Image, size: int, rng: np.random.Generator, *, smallest: float = 0.75
) -> npt.NDArray[np.uint8]:
    """Return a random square of 0.75 to 1 times the shorter side, mirrored every second time."""
    side = round(min(image.size) * rng.uniform(smallest, 1))
    left = int(rng.integers(0, image.width - side + 1))
    top = int(rng.integers(0, image.height - side + 1))
    crop = _square(image, left, top, side, size)
    return np.ascontiguousarray(crop[:, ::-1]) if rng.random() < 0.5 else crop


def _square(image: Image.Image, left: int, top: int, side: int, size: int) -> npt.NDArray[np.uint8]:
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, box=box))
