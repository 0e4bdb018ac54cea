"""Reading, hashing and decoding sound files; sizes, animations, threads, thumbnails."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, features

import realbench.color
from realbench.images import (
    UnreadableImage,
    decode,
    pixel_count,
    read_bytes_and_hash,
    read_image,
    thumbnail_jpeg,
)
from tests.conftest import PictureMaker
from tests.image_bytes import DISPLAY_P3, png, rgb_profile

posix_only = pytest.mark.skipif(os.name != "posix", reason="files of POSIX systems")


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


# --- Round trips -------------------------------------------------------------------------------

pictures = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)), fill=st.nothing()
) | arrays.arrays(np.uint8, st.tuples(st.integers(1, 300), st.integers(1, 3), st.just(3)))


@pytest.mark.slow
@given(pixels=pictures, format=st.sampled_from(["PNG", "BMP", "TIFF", "WEBP"]))
def test_lossless_files_come_back_to_the_bit(pixels: np.ndarray, format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    result = decode(encoded(Image.fromarray(pixels), format, **options))
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert result.flags.writeable  # torch.from_numpy warns of others
    np.testing.assert_array_equal(result, pixels)


@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    format=st.sampled_from(["JPEG", "WEBP", "PNG", "GIF", "JPEG2000"]),
    mode=st.sampled_from(["RGB", "L"]),
)
def test_decoding_agrees_with_pillows_own_conversion(
    make_picture: PictureMaker, width: int, height: int, format: str, mode: str
) -> None:
    data = encoded(make_picture(width, height).convert(mode), format)
    expected = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_tiny_and_narrow_pictures(
    make_picture: PictureMaker, format: str, size: tuple[int, int]
) -> None:
    assert decode(encoded(make_picture(*size), format)).shape == (size[1], size[0], 3)


def test_pictures_of_several_strips(
    make_picture: PictureMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels are copied in strips: less than a row, one row, and several with an odd rest."""
    picture = make_picture(53, 31)
    data = encoded(picture, "PNG")
    for strip in (1, 53 * 3, 53 * 3 * 4 + 5):
        monkeypatch.setattr(realbench.color, "_STRIP_BYTES", strip)
        np.testing.assert_array_equal(decode(data), np.asarray(picture))


def test_the_content_decides_not_the_name(tmp_path: Path, make_picture: PictureMaker) -> None:
    picture = make_picture()
    (tmp_path / "really-png.jpg").write_bytes(encoded(picture, "PNG"))
    np.testing.assert_array_equal(read_image(tmp_path / "really-png.jpg"), np.asarray(picture))


# --- Animations --------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_animations_and_stacks_give_their_first_frame(format: str) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    red, blue = Image.new("RGB", (16, 16), (250, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 250))
    data = encoded(red, format, save_all=True, append_images=[blue, red])
    assert getattr(Image.open(BytesIO(data)), "n_frames", 1) == 3
    assert np.abs(decode(data).astype(int) - [250, 0, 0]).max() <= 6


# --- Size limits -------------------------------------------------------------------------------


def test_the_limit_counts_pixels(make_picture: PictureMaker) -> None:
    data = encoded(make_picture(20, 10), "PNG")
    assert decode(data, max_pixels=200).shape == (10, 20, 3)
    with pytest.raises(
        UnreadableImage, match=r"20 x 10 pixels .* limit of 199; raise --max-pixels"
    ):
        decode(data, max_pixels=199)


def test_the_header_tells_the_size(make_picture: PictureMaker) -> None:
    data = encoded(make_picture(20, 10), "PNG")
    assert pixel_count(data[:200], max_pixels=200) == 200
    with pytest.raises(UnreadableImage, match="20 x 10 pixels"):
        pixel_count(data, max_pixels=199)
    with pytest.raises(UnreadableImage, match="not an image"):
        pixel_count(b"text")


def huge_png() -> bytes:
    return png(np.zeros((1, 1), np.uint8), "gray", size=(60_000, 60_000))


def huge_gif() -> bytes:
    data = bytearray(encoded(Image.new("P", (1, 1)), "GIF"))
    data[6:10] = (60_000).to_bytes(2, "little") * 2
    return bytes(data)


def huge_bmp() -> bytes:
    data = bytearray(encoded(Image.new("RGB", (1, 1)), "BMP"))
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    return bytes(data)


def huge_jpeg() -> bytes:
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (60_000).to_bytes(2, "big") * 2
    return bytes(data)


def huge_tiff() -> bytes:
    data = encoded(Image.new("L", (257, 259)), "TIFF")
    for side in (257, 259):
        value = side.to_bytes(2, "little") + b"\0\0"
        assert value in data
        data = data.replace(value, (60_000).to_bytes(4, "little"))
    return data


@pytest.mark.parametrize("bomb", [huge_png, huge_gif, huge_bmp, huge_jpeg, huge_tiff])
def test_decompression_bombs_are_refused_by_their_header(bomb: object) -> None:
    assert callable(bomb)
    data = bomb()
    with pytest.raises(UnreadableImage, match=r"60000 x 60000 pixels .*--max-pixels") as error:
        decode(data)
    assert "\n" not in str(error.value)


def test_pillows_own_limit_is_neither_changed_nor_heard_of(
    monkeypatch: pytest.MonkeyPatch, make_picture: PictureMaker
) -> None:
    """It is a setting of the whole process, and a program's that uses this library."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encoded(make_picture(64, 48), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data).shape == (48, 64, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.slow
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_hundred_megapixels(tmp_path: Path, format: str) -> None:
    width, height = 12_500, 8_000
    x = np.linspace(0, 255, width).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(x, (height, width))).convert("RGB")
    path = tmp_path / "huge"
    image.save(path, format, **({"compress_level": 1} if format == "PNG" else {"quality": 90}))
    del image
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = read_image(path)
    assert result.shape == (height, width, 3)
    assert np.abs(result[::1000, :, 0].astype(int) - x).max() <= (0 if format == "PNG" else 4)
    with Image.open(BytesIO(thumbnail_jpeg(path))) as small:
        assert small.size == (256, 164)
    with pytest.raises(UnreadableImage, match="12500 x 8000"):
        read_image(path, max_pixels=99_999_999)


# --- Reading -----------------------------------------------------------------------------------


@given(content=st.binary(max_size=5000))
def test_bytes_and_hash_are_those_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("hash") / "x.jpg"
    path.write_bytes(content)
    assert read_bytes_and_hash(path) == (content, hashlib.sha256(content).hexdigest())
    assert read_bytes_and_hash(str(path))[0] == content


def reason_of(path: Path) -> str:
    """Why a file is unreadable, from all ways to read it, each within a few seconds."""
    reasons = []

    def read() -> None:
        for reader in (read_bytes_and_hash, read_image, thumbnail_jpeg):
            try:
                reader(path)
            except UnreadableImage as error:
                reasons.append((error.reason, error.path, str(error)))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(timeout=10)
    assert not reader.is_alive(), "reading hangs"
    assert len(reasons) == 3
    assert len(set(reasons)) == 1
    reason, named, message = reasons[0]
    assert named == path
    assert message.endswith(f": {reason}")
    assert len(message.splitlines()) == 1
    return reason


def test_a_vanished_file(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "x.jpg") == "no such file (removed, or a link to nothing)"


def test_a_folder_that_is_named_like_an_image(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    assert reason_of(tmp_path / "x.jpg") == "cannot be read: Is a directory"


@posix_only
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    assert reason_of(tmp_path / "x.jpg") == "not a regular file (a pipe or a device)"


@posix_only
def test_an_endless_device(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to("/dev/zero")
    assert reason_of(tmp_path / "x.jpg") == "not a regular file (a pipe or a device)"


@posix_only
def test_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to("x.jpg")
    assert reason_of(tmp_path / "x.jpg").startswith("cannot be read: Too many levels")


@posix_only
def test_a_huge_sparse_file_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "x.jpg", "wb") as file:
        file.truncate(2**40)
    assert reason_of(tmp_path / "x.jpg") == "the file has 1024.0 GiB, too much for an image"


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert "null byte" in reason_of(tmp_path / "nul\0byte.jpg").lower()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").touch(mode=0)
    assert reason_of(tmp_path / "x.jpg") == "permission denied; allow this user to read it"


def test_errors_pass_between_processes() -> None:
    error = UnreadableImage("the file is empty", Path("a/b.jpg"))
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.reason, copy.path) == (error.reason, error.path)
    assert str(copy) == str(error) == f"{Path('a/b.jpg')}: the file is empty"
    assert str(UnreadableImage("the file is empty")) == "the file is empty"


# --- Threads -----------------------------------------------------------------------------------


def test_threads_decode_what_one_thread_decodes(make_picture: PictureMaker) -> None:
    profiles = [rgb_profile(DISPLAY_P3, gamma) for gamma in (1.8, 2.2)]
    files = []
    for i in range(40):
        picture = make_picture(160, 120, seed=i)
        format = ("JPEG", "PNG", "WEBP", "GIF", "TIFF")[i % 5]
        options = {} if format == "GIF" else {"icc_profile": profiles[i // 5 % 2]}
        files.append(encoded(picture, format, **options))
    one_by_one = [decode(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(decode, files * 3))
    for i, result in enumerate(at_once):
        np.testing.assert_array_equal(result, one_by_one[i % len(files)])


# --- Thumbnails --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 512), (256, 128)), ((300, 3000), (26, 256)), ((8, 8), (8, 8)), ((4000, 10), (256, 1))],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_thumbnails_fit_the_size_and_never_grow(
    tmp_path: Path,
    make_picture: PictureMaker,
    format: str,
    size: tuple[int, int],
    expected: tuple[int, int],
) -> None:
    make_picture(*size).save(tmp_path / "x", format)
    with Image.open(BytesIO(thumbnail_jpeg(tmp_path / "x"))) as small:
        assert (small.format, small.mode) == ("JPEG", "RGB")
        assert small.size == expected


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_thumbnails_show_the_picture_upright(
    tmp_path: Path, make_picture: PictureMaker, mode: str
) -> None:
    picture = make_picture(1200, 800).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "x.jpg", exif=exif, quality=95)
    small = np.asarray(Image.open(BytesIO(thumbnail_jpeg(tmp_path / "x.jpg", size=120))))
    assert small.shape == (120, 80, 3)
    whole = Image.fromarray(read_image(tmp_path / "x.jpg")).resize((80, 120), Image.Resampling.BOX)
    assert np.abs(small.astype(int) - np.asarray(whole)).mean() < 4


def test_thumbnails_keep_to_the_limit(tmp_path: Path, make_picture: PictureMaker) -> None:
    make_picture(20, 10).save(tmp_path / "x.png")
    assert thumbnail_jpeg(tmp_path / "x.png", max_pixels=200)
    with pytest.raises(UnreadableImage, match=r"x\.png: 20 x 10 pixels"):
        thumbnail_jpeg(tmp_path / "x.png", max_pixels=199)


# --- Real files --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_shared_photographs_decode_as_pillow_decodes_them(shared_data: Path) -> None:
    compared = 0
    for path in sorted((shared_data / "photos").iterdir()):
        if path.suffix == ".jsonl":
            continue
        with Image.open(path) as image:
            if "icc_profile" in image.info or image.getexif().get(0x0112, 1) != 1:
                continue
            if image.has_transparency_data:
                continue
            np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))
        compared += 1
    assert compared > 50
