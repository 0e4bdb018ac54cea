"""Every kind of pixel ends as upright, opaque 8-bit sRGB, by definitions that are not Pillow's."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from realbench.images import decode
from tests.conftest import PictureMaker
from tests.image_bytes import DISPLAY_P3, gray_profile, png, png_chunk, rgb_profile, tiff

RNG = np.random.default_rng(0)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def on_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composite colors (..., 3) of 0 to 255 with opacities (...) of 0 to 1 on white."""
    return color * alpha[..., None] + 255 * (1 - alpha[..., None])


# --- Orientation -------------------------------------------------------------------------------

# What is stored, by EXIF orientation, so that the picture shows upright: the standard names where
# the stored row 0 and column 0 are to be seen (1 top left, 2 top right, 3 bottom right, ...).
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
KINDS = {
    "PNG": ({}, 0),
    "WEBP": ({"lossless": True, "exact": True}, 0),
    "TIFF": ({}, 0),
    "JPEG": ({"quality": 98, "subsampling": 0}, 8),
    "AVIF": ({"quality": 100, "subsampling": "4:4:4"}, 8),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", KINDS)
def test_all_orientations_are_set_upright(
    make_picture: PictureMaker, format: str, orientation: int
) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    upright = np.asarray(make_picture(40, 24))
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options, tolerance = KINDS[format]
    result = decode(encoded(stored, format, exif=exif, **options))
    assert result.shape == upright.shape
    assert np.abs(result.astype(int) - upright).max() <= tolerance
    assert result.flags.c_contiguous


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_broken_exif_leaves_the_picture_as_it_is(make_picture: PictureMaker, exif: bytes) -> None:
    picture = make_picture()
    assert (decode(encoded(picture, "PNG", exif=exif)) == np.asarray(picture)).all()


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_orientations_that_do_not_exist_mean_none(
    make_picture: PictureMaker, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = make_picture()
    assert (decode(encoded(picture, "PNG", exif=exif)) == np.asarray(picture)).all()


# --- Transparency ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("kind", "channels"), [("gray+alpha", 2), ("rgb+alpha", 4)])
def test_alpha_is_put_on_white(kind: str, channels: int, dtype: type) -> None:
    most = np.iinfo(dtype).max
    pixels = RNG.integers(0, most + 1, (16, 16, channels), dtype=dtype)
    pixels[0, :, -1], pixels[1, :, -1] = 0, most
    values = pixels / most
    color = np.broadcast_to(255 * values[..., :-1], (16, 16, 3))
    result = decode(png(pixels, kind))
    assert np.abs(result - on_white(color, values[..., -1])).max() <= 1.6
    assert (result[0] == 255).all()


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_alpha_of_other_formats(make_picture: PictureMaker, format: str) -> None:
    picture = make_picture(16, 12).convert("RGBA")
    alpha = np.linspace(0, 255, 16 * 12).reshape(12, 16).astype(np.uint8)
    picture.putalpha(Image.fromarray(alpha))
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    expected = on_white(np.asarray(picture)[..., :3].astype(float), alpha / 255)
    assert np.abs(decode(encoded(picture, format, **options)) - expected).max() <= 1


def test_a_palette_with_transparency() -> None:
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])
    pixels = np.array([[0, 1, 2, 0]], dtype=np.uint8)
    chunks = ((b"PLTE", palette), (b"tRNS", bytes([255, 0, 51])))
    expected = [[255, 0, 0], [255, 255, 255], [204, 204, 255], [255, 0, 0]]
    assert decode(png(pixels, "palette", chunks=chunks))[0].tolist() == expected
    without = decode(png(pixels, "palette", chunks=chunks[:1]))
    assert without[0].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 0, 0]]


def test_one_transparent_color() -> None:
    gray = np.array([[7, 8, 200]], dtype=np.uint8)
    result = decode(png(gray, "gray", chunks=((b"tRNS", struct.pack(">H", 8)),)))
    assert result[0, :, 0].tolist() == [7, 255, 200]
    rgb = np.array([[[1, 2, 3], [1, 2, 4]]], dtype=np.uint8)
    result = decode(png(rgb, "rgb", chunks=((b"tRNS", struct.pack(">HHH", 1, 2, 3)),)))
    assert result[0].tolist() == [[255, 255, 255], [1, 2, 4]]


def test_a_transparent_gif() -> None:
    frame = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    frame.putpalette([10, 20, 30, 40, 50, 60])
    assert decode(encoded(frame, "GIF", transparency=1))[0].tolist() == [[10, 20, 30], [255] * 3]


def test_palettes_with_transparency_give_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    chunks = ((b"PLTE", bytes(6)), (b"tRNS", bytes([255, 0])))
    decode(png(np.zeros((4, 4), np.uint8), "palette", chunks=chunks))
    assert not recwarn.list


# --- Depth -------------------------------------------------------------------------------------


def ramp(dtype: type, most: float) -> np.ndarray:
    return (np.arange(512).reshape(16, 32) / 511 * most).astype(dtype)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("dtype", "most"),
    [
        (np.uint8, 255),
        (np.uint16, 65535),
        (np.int16, 32767),
        (np.int32, 2**31 - 1),
        (np.int32, 65535),
        (np.int32, 255),
        (np.float32, 1.0),
        (np.float32, 255.0),
        (np.float32, 65535.0),
    ],
)
def test_deep_gray_tiffs_use_their_whole_range(dtype: type, most: float, big_endian: bool) -> None:
    values = ramp(dtype, most)
    result = decode(tiff(values, big_endian=big_endian))
    assert np.abs(result - 255 * (values / most)[..., None]).max() <= 0.51
    assert (result[..., :1] == result).all()


def test_unsigned_long_integers_use_their_whole_range() -> None:
    values = ramp(np.uint32, 2**32 - 1)
    assert np.abs(decode(tiff(values)) - 255 * (values / (2**32 - 1))[..., None]).max() <= 0.51


def test_twelve_bits_are_told_from_sixteen() -> None:
    values = ramp(np.uint16, 4095)
    assert np.abs(decode(tiff(values, bits=12)) - 255 * (values / 4095)[..., None]).max() <= 0.51


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_white_may_be_zero(dtype: type, most: float) -> None:
    values = ramp(dtype, most)
    result = decode(tiff(values, white_is_zero=True))
    assert np.abs(255 - result - 255 * (values / most)[..., None]).max() <= 0.51


def test_gray_pngs_of_sixteen_bits() -> None:
    values = ramp(np.uint16, 65535)
    assert np.abs(decode(png(values, "gray")) - 255 * (values / 65535)[..., None]).max() <= 0.51


def test_a_dark_picture_of_sixteen_bits_stays_dark() -> None:
    """The range is that of the format, not of the picture."""
    assert decode(png(np.full((4, 4), 200, np.uint16), "gray")).max() == 1


@pytest.mark.parametrize("write", [lambda pixels: png(pixels, "rgb"), tiff])
def test_colors_of_sixteen_bits(write: object) -> None:
    assert callable(write)
    pixels = RNG.integers(0, 65536, (8, 8, 3), dtype=np.uint16)
    assert np.abs(decode(write(pixels)) - 255 * (pixels / 65535)).max() < 1


def test_floats_may_overshoot_and_hold_holes() -> None:
    values = np.array([[0.0, 0.5, 1.0, 1.5, -0.5, np.nan, np.inf, -np.inf]], dtype=np.float32)
    assert decode(tiff(values))[0, :, 0].tolist() == [0, 128, 255, 255, 0, 0, 0, 0]
    assert decode(tiff(np.full((2, 2), np.nan, np.float32))).max() == 0


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_black_and_white(format: str) -> None:
    bits = RNG.integers(0, 2, (9, 13)).astype(bool)
    result = decode(encoded(Image.fromarray(bits), format))
    assert (result == 255 * bits[..., None]).all()


# --- CMYK and other color spaces ---------------------------------------------------------------

CMYK = np.array([[[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]])
INKS_AS_RGB = [[0, 255, 255], [255, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]]


def test_cmyk_tiffs() -> None:
    image = Image.fromarray(CMYK.astype(np.uint8), "CMYK")
    assert decode(encoded(image, "TIFF"))[0].tolist() == INKS_AS_RGB


def test_cmyk_jpegs_with_adobes_inverted_inks() -> None:
    """Photoshop stores 255 for no ink, and says so with an "Adobe" marker; so does Pillow."""
    patches = np.repeat(np.repeat(CMYK, 16, axis=0), 16, axis=1).astype(np.uint8)
    data = encoded(Image.fromarray(patches, "CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data[:100]
    assert np.abs(decode(data)[8, 8::16].astype(int) - INKS_AS_RGB).max() <= 6


def test_lab_tiffs() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    colors = np.array([[[250, 250, 250], [200, 40, 40], [30, 90, 200], [0, 0, 0]]], dtype=np.uint8)
    image = ImageCms.profileToProfile(Image.fromarray(colors), srgb, lab, outputMode="LAB")
    assert image is not None
    assert np.abs(decode(encoded(image, "TIFF")).astype(int) - colors).max() <= 4


# --- Color profiles ----------------------------------------------------------------------------

SRGB_D50 = np.array(
    [[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]]
)


def srgb_encoded(linear: np.ndarray) -> np.ndarray:
    """Linear light 0 to 1 as sRGB values 0 to 255 (IEC 61966-2-1)."""
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * curve


def p3_as_srgb(pixels: np.ndarray) -> np.ndarray:
    """Display P3 values of gamma 2.2, 0 to 255, as sRGB values, by their primaries."""
    linear = (pixels / 255) ** 2.2 @ DISPLAY_P3 @ np.linalg.inv(SRGB_D50)
    return srgb_encoded(np.clip(linear, 0, 1))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_wide_gamuts_are_brought_to_srgb(format: str) -> None:
    colors = [[128, 128, 128], [200, 60, 60], [60, 200, 60], [60, 60, 200], [255, 255, 255]]
    pixels = np.repeat(np.repeat(np.array([colors], dtype=np.uint8), 16, axis=0), 16, axis=1)
    options = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 98}}[format]
    if format == "JPEG":
        options["subsampling"] = 0
    profile = rgb_profile(DISPLAY_P3, 2.2)
    data = encoded(Image.fromarray(pixels), format, icc_profile=profile, **options)
    result = decode(data)[8, 8::16]
    assert np.abs(result - p3_as_srgb(np.array(colors))).max() <= 3
    assert result[1, 0] >= 212  # a red of P3 lies further out than the same number of sRGB


@pytest.mark.parametrize("name", ["sRGB", "test"])
def test_srgb_is_left_alone_to_the_bit(make_picture: PictureMaker, name: str) -> None:
    """Whatever the profile calls itself."""
    picture = make_picture(200, 150)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    usual = "sRGB".encode("utf-16-be")
    assert usual in profile
    profile = profile.replace(usual, name.encode("utf-16-be"))
    result = decode(encoded(picture, "PNG", icc_profile=profile))
    assert (result == np.asarray(picture)).all()


def test_nearly_srgb_is_converted() -> None:
    """A plain gamma of 2.2 differs from sRGB's curve in the shadows, by more than rounding."""
    dark = np.full((4, 4, 3), 10, dtype=np.uint8)
    data = encoded(Image.fromarray(dark), "PNG", icc_profile=rgb_profile(SRGB_D50, 2.2))
    assert np.abs(decode(data) - srgb_encoded((dark / 255) ** 2.2)).max() <= 1
    assert decode(data).max() < 8


def test_gray_profiles() -> None:
    """Half the light, which is 128 in a profile of gamma 1, is 188 in sRGB."""
    gray = Image.fromarray(np.full((4, 4), 128, np.uint8))
    data = encoded(gray, "PNG", icc_profile=gray_profile(1.0))
    assert np.abs(decode(data) - srgb_encoded(np.array(128 / 255))).max() <= 1
    both = encoded(Image.merge("LA", [gray, gray]), "PNG", icc_profile=gray_profile(1.0))
    assert np.abs(decode(both) - on_white(np.full(3, 187.5), np.array(128 / 255))).max() <= 1.6


def test_gray_pictures_with_a_color_profile_are_seen_as_colors() -> None:
    gray = Image.fromarray(np.full((4, 4), 128, np.uint8))
    data = encoded(gray, "PNG", icc_profile=rgb_profile(DISPLAY_P3, 1.0))
    assert np.abs(decode(data) - srgb_encoded(np.array(128 / 255))).max() <= 1


def test_profiles_of_pictures_with_alpha_and_palette() -> None:
    profile = rgb_profile(DISPLAY_P3, 2.2)
    color = np.array([200, 60, 60])
    pixels = np.full((4, 4, 4), [*color, 128], dtype=np.uint8)
    expected = on_white(p3_as_srgb(color), np.array(128 / 255))
    result = decode(encoded(Image.fromarray(pixels), "PNG", icc_profile=profile))
    assert np.abs(result - expected).max() <= 2
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette(color.tolist())
    result = decode(encoded(palette, "PNG", icc_profile=profile))
    assert np.abs(result - p3_as_srgb(color)).max() <= 2


@pytest.mark.parametrize(
    "profile",
    [
        b"",
        b"not a profile",
        rgb_profile(DISPLAY_P3, 2.2)[:200],
        rgb_profile(DISPLAY_P3, 2.2)[:128] + b"\xff" * 400,
        gray_profile(1.0),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ],
    ids=["empty", "text", "truncated", "no tags", "gray", "lab"],
)
def test_profiles_that_are_broken_or_do_not_fit_are_ignored(
    make_picture: PictureMaker, profile: bytes
) -> None:
    picture = make_picture()
    data = encoded(picture, "PNG", icc_profile=profile)
    assert (decode(data) == np.asarray(picture)).all()


@given(profile=st.binary(min_size=1, max_size=300), keep=st.integers(0, 200))
def test_no_profile_makes_an_image_unreadable(
    make_picture: PictureMaker, profile: bytes, keep: int
) -> None:
    sound = rgb_profile(DISPLAY_P3, 2.2)
    data = encoded(make_picture(8, 8), "TIFF", icc_profile=sound[:keep] + profile)
    assert decode(data).shape == (8, 8, 3)


def test_a_profile_chunk_that_cannot_be_inflated_is_ignored() -> None:
    pixels = RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    data = png(pixels, "rgb", chunks=((b"iCCP", b"name\0\0not zlib"),))
    assert png_chunk(b"iCCP", b"name\0\0not zlib") in data
    assert (decode(data) == pixels).all()
