"""Turns any picture that Pillow decodes into upright, opaque 8-bit sRGB."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets a picture upright, by its EXIF orientation (1 needs nothing)."""

# TIFF tags that say what a deep gray value means.
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2


def to_srgb(image: Image.Image) -> Image.Image:
    """Decode an opened image and return it in mode RGB: upright, on white, in sRGB.

    Args:
        image: As a Pillow plug-in opened it, in any mode; its pixels are loaded here.

    Raises:
        Exception: whatever Pillow raises on damaged data.
    """
    image.load()
    # Only now: Pillow turns a TIFF itself while loading, and then takes the tag away.
    turn = _TURNS.get(orientation(image))
    profile = image.info.get("icc_profile")
    image, alpha = _split(image)
    image = _apply_profile(image, profile)
    if alpha is not None:
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(image, mask=alpha)
        image = opaque
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> int:
    """Return a loaded image's EXIF orientation still to be applied; broken EXIF counts as none."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Reduce any mode to L, RGB or CMYK, and a mask of opacity (L) where there is transparency."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_gray8(image)), None
    if image.mode == "LAB":
        return _from_lab(image), None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        gray = image.mode in ("1", "L", "LA", "La")
        return image.convert("L") if gray else rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _gray8(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Scale deep gray values (modes I;16, I and F) to uint8 (H, W).

    The value of white is the largest of 16 bits, or of a TIFF's bit depth. Wider integers and
    floats do not tell it, so it is the least of the usual ones that holds all values: 255, 65,535
    or the type's largest for integers; 1, 255 or 65,535 for floats, which may overshoot twofold.
    """
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    sample_format = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    values: npt.NDArray[Any] = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        top = float(values.max())
        white = next((usual for usual in (1.0, 255.0, 65535.0) if top <= 2 * usual), top)
    elif image.mode == "I" and bits > 16:
        if sample_format == _UNSIGNED:
            values = values.view(np.uint32)
        top = float(values.max())
        largest = float(np.iinfo(values.dtype).max)
        white = next((usual for usual in (255.0, 65535.0) if top <= usual), largest)
    elif image.mode == "I" and sample_format == _SIGNED:
        white = float(2 ** (bits - 1) - 1)
    else:
        white = float(2 ** min(bits, 16) - 1)
    scaled = np.clip(values * np.float32(255 / white) + np.float32(0.5), 0, 255).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns only shallower values round
        return 255 - scaled
    return scaled


# --- Color profiles ----------------------------------------------------------------------------

_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def _from_lab(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # it is None only for work in place
    return converted


def _apply_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Bring a picture of mode L, RGB or CMYK to mode RGB in sRGB.

    A profile that does not fit the picture is ignored, save that gray may be seen as RGB.
    """
    mode, transform = _transform_to_srgb(profile) if profile else ("", None)
    if transform is None or (mode != image.mode and (mode, image.mode) != ("RGB", "L")):
        return image if image.mode == "RGB" else image.convert("RGB")
    fitting = image if image.mode == mode else image.convert(mode)
    converted = ImageCms.applyTransform(fitting, transform)
    assert converted is not None  # it is None only for work in place
    return converted


@lru_cache(maxsize=32)
def _transform_to_srgb(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode that an ICC profile describes, and the transform from it to sRGB.

    No transform is given for a profile that is broken or of another kind of device, which is
    ignored, as viewers do; nor for one that is sRGB already: whatever its name, it moves no color
    of a grid over the cube by more than 2 of 255.
    """
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = _PROFILE_MODES[source.profile.xcolor_space.strip()]
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        unmoved = mode == "RGB" and _largest_move(transform) <= 2
    except Exception:
        return "", None
    return mode, None if unmoved else transform


def _largest_move(transform: ImageCms.ImageCmsTransform) -> int:
    """By how much, of 255, a transform from RGB to RGB moves a color at most."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    moved = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform), dtype=int)
    return int(np.abs(moved - grid).max())
