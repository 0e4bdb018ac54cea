"""Images as they are sent to a browser: untouched where it shows them as they are decoded."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

from realbench.images import UnreadableImage, decode, for_browser
from tests.conftest import PictureMaker


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_what_browsers_show_is_sent_to_the_byte(format: str, make_picture: PictureMaker) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("needs a Pillow with AVIF")
    data = encoded(make_picture(), format)
    assert for_browser(data) == (data, f"image/{format.lower()}")


def test_a_turned_photograph_is_sent_to_the_byte(make_picture: PictureMaker) -> None:
    data = encoded(make_picture(), "JPEG", exif=exif(6))
    assert for_browser(data) == (data, "image/jpeg")


def other_files(make_picture: PictureMaker) -> dict[str, bytes]:
    picture, other = make_picture(seed=1), make_picture(seed=2)
    return {
        "BMP": encoded(picture, "BMP"),
        "TIFF": encoded(picture, "TIFF"),
        "JPEG 2000": encoded(picture, "JPEG2000"),
        "CMYK": encoded(picture.convert("CMYK"), "JPEG"),
        "turned PNG": encoded(picture, "PNG", exif=exif(6)),
        "turned WebP": encoded(picture, "WEBP", exif=exif(3), lossless=True),
        "animated GIF": encoded(picture, "GIF", save_all=True, append_images=[other]),
        "animated PNG": encoded(picture, "PNG", save_all=True, append_images=[other]),
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("BMP", "TIFF", "JPEG 2000", "CMYK", "turned PNG", "turned WebP"),
        *("animated GIF", "animated PNG"),
    ],
)
def test_anything_else_becomes_a_png_of_the_same_pixels(
    kind: str, make_picture: PictureMaker
) -> None:
    data = other_files(make_picture)[kind]
    sent, media_type = for_browser(data)
    assert media_type == "image/png"
    with Image.open(BytesIO(sent)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert not image.getexif()
        np.testing.assert_array_equal(np.asarray(image), decode(data))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_a_truncated_file_is_unreadable(format: str, make_picture: PictureMaker) -> None:
    data = encoded(make_picture(200, 200), format)
    with pytest.raises(UnreadableImage, match="truncated, damaged"):
        for_browser(data[: len(data) // 2])


def test_an_image_beyond_the_limit_is_refused(make_picture: PictureMaker) -> None:
    with pytest.raises(UnreadableImage, match="max-pixels"):
        for_browser(encoded(make_picture(), "PNG"), max_pixels=100)
