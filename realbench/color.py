"""Turns any picture that Pillow decodes into upright, opaque 8-bit sRGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms

RgbArray = npt.NDArray[np.uint8]
_ToGray = Callable[[npt.NDArray[Any]], npt.NDArray[np.uint8]]

_STRIP_BYTES = 1 << 19

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


def srgb_pixels(image: Image.Image) -> RgbArray:
    """Decode an opened image to its pixels: upright, on white, in sRGB.

    It is converted in strips, so that beside the decoded image and the result little memory is
    needed; strips that fit the processor's cache are also the quickest.

    Args:
        image: As a Pillow plug-in opened it, in any mode; its pixels are loaded here.

    Returns:
        uint8 (H, W, 3), C-contiguous and writable.

    Raises:
        Exception: whatever Pillow raises on damaged data.
    """
    image.load()
    to_gray = _gray_scale(image)
    # Only now: Pillow turns a TIFF itself while loading, and then takes the tag away.
    turn = _TURNS.get(orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    width, height = image.size
    # np.asarray(image) is read-only, which torch.from_numpy warns of.
    pixels = np.empty((height, width, 3), np.uint8)
    for top, strip in _strips(image):
        pixels[top : top + strip.height] = np.asarray(_opaque(strip, to_gray))
    return pixels


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in pieces of full width from the top, each with the row where it begins."""
    width, height = image.size
    rows = max(1, _STRIP_BYTES // (3 * width))
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(height, top + rows)))


def _opaque(image: Image.Image, to_gray: _ToGray | None) -> Image.Image:
    """Return a part of an image in mode RGB, in sRGB, on white."""
    profile = image.info.get("icc_profile")
    image, alpha = _split(image, to_gray)
    image = _apply_profile(image, profile)
    if alpha is None:
        return image
    opaque = image.copy()
    opaque.paste((255, 255, 255), (0, 0, *image.size))
    opaque.paste(image, mask=alpha)
    return opaque


def orientation(image: Image.Image) -> int:
    """Return a loaded image's EXIF orientation still to be applied; broken EXIF counts as none."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _split(image: Image.Image, to_gray: _ToGray | None) -> tuple[Image.Image, Image.Image | None]:
    """Reduce any mode to L, RGB or CMYK, and a mask of opacity (L) where there is transparency."""
    if to_gray is not None:
        values = np.asarray(image)
        clear = image.info.get("transparency")  # a PNG's one value that is clear
        alpha = None if clear is None else np.where(values == clear, 0, 255).astype(np.uint8)
        return Image.fromarray(to_gray(values)), None if alpha is None else Image.fromarray(alpha)
    if image.mode == "LAB":
        return _from_lab(image), None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        gray = image.mode in ("1", "L", "LA", "La")
        return image.convert("L") if gray else rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _shallow(
    values: npt.NDArray[Any], white: float, unsigned: bool, inverted: bool
) -> npt.NDArray[np.uint8]:
    """Return deep gray values (modes I;16, I and F) as 8-bit ones.

    Args:
        white: The value of white.
        unsigned: Whether Pillow's 32-bit integers are to be read as unsigned.
        inverted: Whether white is written as zero.
    """
    scaled = _finite(values, unsigned) * np.float32(255 / white) + np.float32(0.5)
    gray: npt.NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return 255 - gray if inverted else gray


def _finite(values: npt.NDArray[Any], unsigned: bool) -> npt.NDArray[Any]:
    if values.dtype.kind == "f":
        return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    return values.view(np.uint32) if unsigned else values


def _gray_scale(image: Image.Image) -> _ToGray | None:
    """Find how a loaded image's deep gray values become 8-bit ones; None for other modes.

    The value of white is the largest of 16 bits, or of a TIFF's bit depth. Wider integers and
    floats do not tell it, so it is the least of the usual ones that holds all values: 255, 65,535
    or the type's largest for integers; 1, 255 or 65,535 for floats, which may overshoot twofold.
    """
    if not image.mode.startswith(("I", "F")):
        return None
    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    sample_format = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    wide = image.mode == "I" and bits > 16
    unsigned = wide and sample_format == _UNSIGNED
    white = float(2 ** min(bits, 16) - 1)
    if image.mode == "F" or wide:
        strips = (np.asarray(strip) for _, strip in _strips(image))
        top = max(float(_finite(values, unsigned).max()) for values in strips)
        usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        slack = 2 if image.mode == "F" else 1
        largest = float(np.iinfo(np.uint32 if unsigned else np.int32).max)
        none_holds = top if image.mode == "F" else largest
        white = next((value for value in usual if top <= slack * value), none_holds)
    elif image.mode == "I" and sample_format == _SIGNED:
        white = float(2 ** (bits - 1) - 1)
    # Pillow turns only shallower values round.
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return partial(_shallow, white=white, unsigned=unsigned, inverted=inverted)


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
