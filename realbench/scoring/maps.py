"""Where a picture looks generated: P(real) of its places, and files that show it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from realbench.detection.ensemble import probability
from realbench.errors import UsageError
from realbench.files import write_whole
from realbench.images import UnreadableImage, read_image

if TYPE_CHECKING:
    from realbench.detection.detector import Detector
    from realbench.detection.families.embedded import WholeImageDetector

MAPS_FOLDER = "maps"
_OVERLAY_SIZE = 768  # pixels of an overlay's longer side
_RED = (220, 38, 38)
_FULL = 2.0  # logits below the picture's own at which the red is strongest


def locating(detectors: Mapping[str, Detector]) -> list[WholeImageDetector]:
    """Return the detectors that can say where a picture looks generated.

    Raises:
        UsageError: none can.
    """
    from realbench.detection.families.embedded import WholeImageDetector

    found = [d for d in detectors.values() if isinstance(d, WholeImageDetector) and d.locates]
    if not found:
        raise UsageError(
            f"none of {', '.join(detectors)} can say where a picture looks generated: heat maps "
            "need semantic-lite among the detectors, or one that was trained by its recipe"
        )
    return found


def realism_map(
    detectors: Sequence[WholeImageDetector], image: np.ndarray, realism: float
) -> np.ndarray:
    """Return P(real) of each place of an image, float32 (h, w), in [0, 1].

    Low is where it looks generated. The detectors tell places apart; how real the picture is, the
    whole ensemble says: the mean of the map's logits is the logit of ``realism``.

    Args:
        detectors: from :func:`locating`.
        image: uint8 RGB (h, w, 3).
        realism: the ensemble's P(real) of it.
    """
    places = np.mean([one.local_logits(image) for one in detectors], axis=0)
    p = np.clip(realism, 1e-6, 1 - 1e-6)
    logits = np.float32(places - places.mean() + np.log(p / (1 - p)))
    size = image.shape[1], image.shape[0]
    return probability(np.asarray(Image.fromarray(logits).resize(size, Image.Resampling.BILINEAR)))


def write_maps(
    folder: Path,
    images: Mapping[tuple[str, str], tuple[Path, str, float]],
    detectors: Sequence[WholeImageDetector],
    fingerprints: Sequence[str],
    done: Callable[[int], None],
) -> dict[tuple[str, str], Path]:
    """Write a heat map and an overlay of each image; what is there from an earlier run stays.

    ``FOLDER/IMAGE.png`` is the map, 8 bits, P(real) times 255; ``FOLDER/IMAGE.overlay.jpg`` the
    picture in grays, red where P(real) is lower than that of the whole.

    Args:
        folder: that receives them, made where it is missing.
        images: path, SHA-256 and realism by folder and image, as a run's table names them.
        detectors: from :func:`locating`.
        fingerprints: of all detectors of the run.
        done: is told how many are finished.

    Returns:
        the overlays; an image that has gone in the meantime has none.

    Raises:
        OSError: a file cannot be written.
    """
    overlays = {}
    for n, (key, (path, sha256, realism)) in enumerate(images.items(), start=1):
        place = folder / "/".join(key).lstrip("/")
        heat, overlay = (place.with_name(place.name + end) for end in (".png", ".overlay.jpg"))
        mark = hashlib.sha256(
            " ".join([sha256, f"{realism:.6f}", *fingerprints]).encode()
        ).hexdigest()
        if not (overlay.exists() and _mark(heat) == mark):
            try:
                image = read_image(path)
            except UnreadableImage:
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            _write_both(heat, overlay, image, realism_map(detectors, image, realism), mark)
        overlays[key] = overlay
        done(n)
    return overlays


def _write_both(
    heat: Path, overlay: Path, image: np.ndarray, values: np.ndarray, mark: str
) -> None:
    about = PngInfo()
    about.add_text("realbench", mark)
    shown, gray = _overlay(image, values), Image.fromarray(np.uint8(np.rint(255 * values)))
    write_whole(overlay, lambda partial: shown.save(partial, "JPEG", quality=85))
    write_whole(heat, lambda partial: gray.save(partial, "PNG", pnginfo=about))


def _mark(heat: Path) -> str | None:
    """Return of which image and detectors a map is; None where there is none."""
    try:
        with Image.open(heat) as image:
            return image.info.get("realbench")
    except OSError:
        return None


def _overlay(image: np.ndarray, values: np.ndarray) -> Image.Image:
    """Return a picture in grays, red where ``values`` are below their usual."""
    p = np.clip(values.astype(np.float64), 1e-6, 1 - 1e-6)
    logits = np.log(p / (1 - p))
    lower = np.clip((np.median(logits) - logits) / _FULL, 0, 1)
    gray = Image.fromarray(image).convert("L").convert("RGB")
    mask = Image.fromarray(np.uint8(np.rint(160 * lower)))
    shown = Image.composite(Image.new("RGB", gray.size, _RED), gray, mask)
    shown.thumbnail((_OVERLAY_SIZE, _OVERLAY_SIZE), Image.Resampling.LANCZOS)
    return shown
