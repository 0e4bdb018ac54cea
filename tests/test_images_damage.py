"""Damaged files, and files that are no images: one clear line, whatever the bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features

from realbench.images import UnreadableImage, decode, decoding
from tests.conftest import PictureMaker
from tests.image_bytes import DISPLAY_P3, rgb_profile

FORMATS = ["JPEG", "PROGRESSIVE", "PNG", "WEBP", "LOSSLESS", "GIF", "BMP", "TIFF", "LZW", "AVIF"]
OPTIONS = {
    "PROGRESSIVE": {"format": "JPEG", "progressive": True},
    "LOSSLESS": {"format": "WEBP", "lossless": True},
    "LZW": {"format": "TIFF", "compression": "tiff_lzw"},
}


@pytest.fixture(scope="session")
def sound_files(make_picture: PictureMaker) -> dict[str, bytes]:
    """A valid file of each format, with what files carry besides pixels: EXIF and a profile."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    carried = {"exif": exif, "icc_profile": rgb_profile(DISPLAY_P3, 2.2)}
    files = {}
    for name in FORMATS:
        options = {"format": name, **OPTIONS.get(name, {})}
        if options["format"] == "AVIF" and not features.check("avif"):
            continue
        if options["format"] not in ("GIF", "BMP"):
            options.update(carried)
        buffer = BytesIO()
        make_picture(96, 64).save(buffer, **options)
        files[name] = buffer.getvalue()
    return files


@pytest.fixture(autouse=True)
def _pillow_may_warn_of_broken_metadata() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def outcome(data: bytes) -> str:
    """Decode at most a megapixel; anything but pixels or UnreadableImage fails the test."""
    try:
        pixels = decode(data, max_pixels=1_000_000)
    except UnreadableImage as error:
        assert error.path is None  # noqa: PT017 - the message is checked where there is one
        return str(error)
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size
    return "decoded"


def is_one_clear_line(message: str) -> bool:
    return 10 < len(message) < 320 and message.isprintable() and "0x" not in message


# --- Cut short ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
def test_truncated_files_are_unreadable(
    sound_files: dict[str, bytes], name: str, share: float
) -> None:
    if name not in sound_files:
        pytest.skip("this Pillow has no AVIF")
    data = sound_files[name]
    assert outcome(data) == "decoded"
    message = outcome(data[: int(share * len(data))])
    assert message != "decoded"
    assert is_one_clear_line(message)
    assert "export or download it again" in message or "not an image" in message


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF"])
def test_truncation_is_named(sound_files: dict[str, bytes], name: str) -> None:
    message = outcome(sound_files[name][:-200])
    assert message.startswith(f"truncated, damaged or unusual {name} file (")


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cut_gives_anything_but_one_clear_line(
    sound_files: dict[str, bytes], data: st.DataObject
) -> None:
    whole = sound_files[data.draw(st.sampled_from(sorted(sound_files)))]
    message = outcome(whole[: data.draw(st.integers(0, len(whole)))])
    assert message == "decoded" or is_one_clear_line(message)


@pytest.mark.parametrize("name", ["JPEG", "PROGRESSIVE"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_download_that_ends_in_zeros(make_picture: PictureMaker, name: str, share: float) -> None:
    buffer = BytesIO()
    make_picture(400, 300).save(buffer, "JPEG", progressive=name == "PROGRESSIVE")
    whole = buffer.getvalue()
    kept = int(share * len(whole))
    assert "image file is truncated" in outcome(whole[:kept] + bytes(len(whole) - kept))
    assert outcome(whole + bytes(5000)) == "decoded"  # padded, as some cameras do


def test_an_empty_file() -> None:
    assert outcome(b"") == "the file is empty (0 bytes); export or download it again"


def test_the_setting_that_hides_truncation_is_not_touched() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# --- Not images --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"just some text\n" * 9, "not an image in a known format"),
        (bytes(1000), "not an image in a known format"),
        (b"\xff", "not an image in a known format"),
        (b"%PDF-1.7\n%", "not an image in a known format"),
        (b"\n <!DOCTYPE html><html><body>404</body></html>", "a web page, not an image"),
        (b"<html><head>", "a web page, not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run 'git lfs pull'"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image, which cannot be read here"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image, which cannot be read here"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL image, which cannot be read here"),
    ],
)
def test_what_is_no_readable_image_is_named(
    monkeypatch: pytest.MonkeyPatch, content: bytes, message: str
) -> None:
    monkeypatch.setattr(decoding, "can_read", lambda _: False)  # whatever is installed here
    assert message in outcome(content)
    assert is_one_clear_line(outcome(content))


def test_postscript_is_never_run() -> None:
    """Pillow would start Ghostscript on it."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert Image.open(BytesIO(script)).format == "EPS"
    assert "not an image in a known format" in outcome(script)


# --- Random bytes ------------------------------------------------------------------------------

MAGIC = [
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x10\0\0\0WEBPVP8 ", b"RIFF\x10\0\0\0WEBPVP8L"),
    *(b"RIFF\x10\0\0\0WEBPVP8X", b"GIF89a", b"GIF87a", b"BM", b"II*\0", b"MM\0*", b"II+\0"),
    *(b"\0\0\0\x20ftypavif", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b""),
]


@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=400))
@settings(max_examples=500)
def test_random_bytes_give_one_clear_line(magic: bytes, rest: bytes) -> None:
    message = outcome(magic + rest)
    assert message == "decoded" or is_one_clear_line(message)


@given(data=st.data())
@settings(
    max_examples=500,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_random_changes_of_sound_files_give_pixels_or_one_clear_line(
    sound_files: dict[str, bytes], data: st.DataObject
) -> None:
    content = bytearray(sound_files[data.draw(st.sampled_from(sorted(sound_files)))])
    # Headers steer the decoders, so most of the changes are there.
    place = st.integers(0, min(200, len(content) - 1)) | st.integers(0, len(content) - 1)
    for position, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), min_size=1)):
        content[position] = value
    message = outcome(bytes(content))
    assert message == "decoded" or is_one_clear_line(message)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_random_changes(sound_files: dict[str, bytes], name: str) -> None:
    """As above, by a plain generator: 500 changed files of each format."""
    if name not in sound_files:
        pytest.skip("this Pillow has no AVIF")
    whole = np.frombuffer(sound_files[name], dtype=np.uint8)
    rng = np.random.default_rng(FORMATS.index(name))
    outcomes = set()
    for _ in range(500):
        content = whole.copy()
        reach = len(whole) if rng.random() < 0.5 else min(200, len(whole))
        places = rng.integers(0, reach, rng.integers(1, 20))
        content[places] = rng.integers(0, 256, len(places))
        outcomes.add(outcome(content.tobytes()))
    assert "decoded" in outcomes
    messages = outcomes - {"decoded"}
    assert messages
    assert all(is_one_clear_line(message) for message in messages)
