"""Photographs with captions, cut to the size of generated images."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from realbench.errors import UsageError
from realbench.images import UnreadableImage, find_images, format_and_size, read_image
from realbench.prompts import json_lines, load_prompts
from realbench.sets.naming import is_set, set_photographs, set_prompts
from realbench.text import printable

_IMAGE_KEYS = ("image", "file_name")
_CAPTION_KEYS = ("caption", "text", "prompt")
_QUALITIES = (70, 96)  # of matched JPEG: from the first to below the last


class PairedImages:
    """Photographs and what they show; the generator is prompted with the captions.

    With captions of its own photographs the generator shows the same things as they do, so that a
    detector that is trained on both has to look at how a picture is made.

    Args:
        source: a folder of images with captions in ``prompts.jsonl`` (``"id"``, which is an
            image's stem, and ``"prompt"``) or ``metadata.jsonl`` (``"file_name"`` and ``"text"``);
            or a JSONL file of ``"image"``, a path from the file's folder, and ``"caption"``.
        pairs: images and captions that were read from it before.

    Attributes:
        paths: of the images, in the order of the captions.
        captions: one for each.

    Raises:
        UsageError: the source cannot be read, or holds no image with a caption.
    """

    def __init__(self, source: str | Path, pairs: Sequence[tuple[Path, str]] | None = None) -> None:
        self.source = Path(source)
        pairs = _read(self.source) if pairs is None else pairs
        if not pairs:
            raise UsageError(
                f"{printable(self.source)} holds no image with a caption: give a folder with "
                'prompts.jsonl, or a JSONL file of {"image": ..., "caption": ...}'
            )
        self.paths = [path for path, _ in pairs]
        self.captions = [caption for _, caption in pairs]

    def __len__(self) -> int:
        return len(self.paths)

    def at_least(self, height: int, width: int) -> PairedImages:
        """Return the photographs that need not be enlarged to cover a size.

        An enlarged photograph is blurred, and would teach a detector that blur is real.

        Raises:
            UsageError: none is left.
        """
        large = []
        for path, caption in zip(self.paths, self.captions, strict=True):
            with suppress(UnreadableImage):
                _, columns, rows = format_and_size(path)
                if columns >= width and rows >= height:
                    large.append((path, caption))
        if not large:
            raise UsageError(
                f"none of the {len(self)} photographs of {printable(self.source)} is as large as "
                f"the generated images, {width} x {height}"
            )
        return PairedImages(self.source, large)

    def partners(
        self, prompts: Sequence[str], height: int, width: int, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Return a photograph for each prompt: one of that caption, or else any.

        Args:
            prompts: of generated images.
            height, width: to which the photographs are cut.

        Returns:
            uint8 arrays (height, width, 3).
        """
        of_caption: dict[str, list[int]] = {}
        for n, caption in enumerate(self.captions):
            of_caption.setdefault(caption, []).append(n)
        everything = list(range(len(self)))
        chosen = [int(rng.choice(of_caption.get(prompt, everything))) for prompt in prompts]
        cut = {n: cover(read_image(self.paths[n]), height, width) for n in sorted(set(chosen))}
        return [cut[n] for n in chosen]


def cover(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the middle of an image, scaled so that it just fills a size; uint8 (height, width, 3).

    The filter is Lanczos', wide enough for the scale, so that nothing is aliased.
    """
    size, filter_ = (width, height), Image.Resampling.LANCZOS
    return np.asarray(ImageOps.fit(Image.fromarray(image), size, filter_))


def match_compression(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], share: float, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of images, a share of which was compressed as JPEG, both to one quality."""
    found = []
    for real, generated in pairs:
        quality = int(rng.integers(*_QUALITIES))
        if rng.random() < share:
            real, generated = _jpeg(real, quality), _jpeg(generated, quality)
        found.append((real, generated))
    return found


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def _read(source: Path) -> list[tuple[Path, str]]:
    if is_set(source):
        texts = load_prompts(set_prompts(source))
        files = find_images(set_photographs(source))
        return [(one.path, texts[one.prompt_id].prompt) for one in files if one.prompt_id in texts]
    if not source.is_dir():
        return _listed(source)
    if (source / "metadata.jsonl").is_file():
        return _listed(source / "metadata.jsonl")
    if not (source / "prompts.jsonl").is_file():
        raise UsageError(f"{printable(source)} has no prompts.jsonl: captions are missing")
    captions = load_prompts(source / "prompts.jsonl")
    return [
        (image.path, captions[image.prompt_id].prompt)
        for image in find_images(source)
        if image.prompt_id in captions
    ]


def _listed(file: Path) -> list[tuple[Path, str]]:
    pairs = []
    for number, record in json_lines(file):
        name, caption = _text(record, _IMAGE_KEYS), _text(record, _CAPTION_KEYS)
        if name is None or caption is None:
            raise UsageError(
                f'{printable(file)}, line {number}: give {{"image": ..., "caption": ...}}'
            )
        path = file.parent / name
        if not path.is_file():
            raise UsageError(f"{printable(file)}, line {number}: there is no {printable(path)}")
        pairs.append((path, caption))
    return pairs


def _text(record: Mapping[str, Any], keys: Sequence[str]) -> str | None:
    values = [record[key] for key in keys if isinstance(record.get(key), str) and record[key]]
    return values[0] if values else None
