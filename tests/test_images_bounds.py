"""Settings of the process, files that ask for too much, and damage that Pillow does not see."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import warnings
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, features
from PIL.PngImagePlugin import PngInfo

from realbench.images import (
    UnreadableImage,
    decode,
    decoding,
    find_images,
    pixel_count,
    thumbnail_jpeg,
)
from realbench.images.formats import container
from tests.conftest import PictureMaker
from tests.image_bytes import jpeg_of_scans, png, png_chunk, tiff


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(UnreadableImage) as raised:
        decode(data, **options)
    assert "\n" not in raised.value.reason
    return raised.value.reason


# --- Settings of the process -------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
def test_settings_of_the_process_decide_nothing_and_stay(
    monkeypatch: pytest.MonkeyPatch, make_picture: PictureMaker, format: str
) -> None:
    data = encoded(make_picture(120, 90), format)
    expected = decode(data)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1)
    monkeypatch.setattr(Image, "OPEN", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode(data), expected)
        assert reason(data[: len(data) // 2]).startswith("truncated, damaged or unusual")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK) == (10, 1)


def test_an_odd_file_warns_nobody(make_picture: PictureMaker) -> None:
    """Its EXIF data claim more than there is, of which Pillow warns."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x010F, 2, 999, 999) + bytes(4)
    data = encoded(make_picture(), "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data).size


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_lzw", "jpeg"])
def test_libtiff_prints_nothing(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    make_picture: PictureMaker,
    compression: str,
) -> None:
    data = bytearray(encoded(make_picture(90, 60), "TIFF", compression=compression))
    rng = np.random.default_rng(0)
    for _ in range(30):
        broken = data.copy()
        for at in rng.integers(8, len(data), 5):
            broken[at] ^= 255
        with suppress(UnreadableImage):
            decode(bytes(broken), max_pixels=1_000_000)
        (tmp_path / "a.tif").write_bytes(broken)
        with suppress(UnreadableImage):
            thumbnail_jpeg(tmp_path / "a.tif", max_pixels=1_000_000)
    assert capfd.readouterr() == ("", "")


# --- Damage ------------------------------------------------------------------------------------

JPEGS = [
    {"quality": 95},
    {"quality": 100, "subsampling": 0},
    {"quality": 30, "optimize": True},
    {"quality": 80, "progressive": True},
]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("mark", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_a_jpeg_whose_tail_is_zeros_is_told(
    make_picture: PictureMaker, options: dict[str, object], mark: bytes, share: float
) -> None:
    data = encoded(make_picture(400, 300), "JPEG", **options)
    kept = int(share * len(data))
    zeros = bytes(len(data) - kept - len(mark))
    assert "truncated, damaged or unusual JPEG file (" in reason(data[:kept] + zeros + mark)


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_a_jpeg_that_is_ended_before_its_end_is_told(
    make_picture: PictureMaker, options: dict[str, object], share: float
) -> None:
    data = encoded(make_picture(400, 300), "JPEG", **options)
    message = reason(data[: int(share * len(data))] + b"\xff\xd9")
    assert "its data end before the picture does" in message


@pytest.mark.parametrize("options", JPEGS)
def test_most_holes_of_zeros_in_a_jpeg_are_told(
    make_picture: PictureMaker, options: dict[str, object]
) -> None:
    """Not all can be: by chance, the code behind a hole may end where it should."""
    data = encoded(make_picture(400, 300), "JPEG", **options)
    told = 0
    for at in range(1, 9):
        start = at * len(data) // 10
        try:
            decode(data[:start] + bytes(512) + data[start + 512 :])
        except UnreadableImage:
            told += 1
    assert told >= 5


def test_several_scans_that_are_whole_are_read(make_picture: PictureMaker) -> None:
    """Also with zeros in them, with restarts, with fill bytes and with something behind the end."""
    for picture in (make_picture(400, 300), Image.new("RGB", (1200, 900), (90, 200, 30))):
        plain = decode(encoded(picture, "JPEG", quality=90))
        for options in ({}, {"restart_marker_rows": 3}, {"subsampling": 0}):
            data = encoded(picture, "JPEG", quality=90, progressive=True, **options)
            expected = decode(data)
            assert np.abs(expected.astype(int) - plain).mean() < 2
            filled = data.replace(b"\xff\xda", b"\xff\xff\xff\xda")
            np.testing.assert_array_equal(decode(filled + b"\0" * 99), expected)


@pytest.mark.parametrize("level", [0, 127, 128, 255])
@pytest.mark.parametrize("optimize", [False, True])
def test_flat_pictures_may_be_coded_as_zeros(level: int, optimize: bool) -> None:
    for side in range(200, 216):
        picture = Image.new("RGB", (side, 300), (level,) * 3)
        data = encoded(picture, "JPEG", optimize=optimize)
        assert decode(data + b"trailer").mean() == pytest.approx(level, abs=1)
        assert decode(encoded(picture, "WEBP", lossless=True)).mean() == level


@pytest.mark.parametrize("format", ["PNG", "WEBP", "LOSSLESS", "GIF", "TIFF", "JPEG2000", "AVIF"])
def test_other_files_whose_tail_is_zeros_are_told(make_picture: PictureMaker, format: str) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    kind = {"LOSSLESS": ("WEBP", {"lossless": True}), "TIFF": ("TIFF", {"compression": "jpeg"})}
    name, options = kind.get(format, (format, {}))
    data = encoded(make_picture(400, 300), name, **options)
    for share in (0.3, 0.6, 0.8):
        kept = int(share * len(data))
        assert reason(data[:kept] + bytes(len(data) - kept))


def test_a_changed_byte_of_a_png_is_told(make_picture: PictureMaker) -> None:
    data = encoded(make_picture(60, 40), "PNG")
    expected = decode(data)
    for at in range(30, len(data), len(data) // 97):
        broken = bytearray(data)
        broken[at] ^= 4
        try:
            np.testing.assert_array_equal(decode(bytes(broken)), expected)
        except UnreadableImage as error:
            assert "PNG" in error.reason  # noqa: PT017 - or the pixels are right


# --- Transparency ------------------------------------------------------------------------------


def packed_png(values: np.ndarray, bits: int, clear: int) -> bytes:
    """A gray PNG of 1, 2 or 4 bits, whose width fills whole bytes, with one clear value."""
    per_byte = 8 // bits
    weights = 2 ** (bits * np.arange(per_byte - 1, -1, -1))
    packed = (values.reshape(len(values), -1, per_byte) * weights).sum(-1).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    head = struct.pack(">IIBBBBB", values.shape[1], len(values), bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"tRNS", struct.pack(">H", clear)), (b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*one) for one in (*chunks, (b"IEND", b"")))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_clear_gray_of_few_bits_is_white(bits: int) -> None:
    levels = 2**bits
    values = np.arange(64).reshape(8, 8) % levels
    for clear in range(levels):
        gray = values * 255 // (levels - 1)
        pixels = decode(packed_png(values, bits, clear))
        np.testing.assert_array_equal(pixels[..., 0], np.where(values == clear, 255, gray))


def test_the_clear_gray_of_16_bits_is_white() -> None:
    values = np.full((4, 5), 500, np.uint16)
    values[0, 0], values[1, 1] = 501, 0x1234
    data = png(values, "gray", chunks=((b"tRNS", struct.pack(">H", 500)),))
    expected = np.full((4, 5), 255)
    expected[0, 0], expected[1, 1] = 2, 0x12
    np.testing.assert_array_equal(decode(data)[..., 1], expected)


def test_the_clear_color_of_16_bits_is_compared_whole() -> None:
    pixels = np.empty((4, 5, 3), np.uint16)
    pixels[...] = clear = (0x1234, 0x5678, 0x9ABC)
    pixels[0, 0, 2] = 0x9ABD  # of the same upper 8 bits
    data = png(pixels, "rgb", chunks=((b"tRNS", struct.pack(">3H", *clear)),))
    expected = np.full((4, 5, 3), 255)
    expected[0, 0] = 0x12, 0x56, 0x9A
    np.testing.assert_array_equal(decode(data), expected)


# --- Metadata ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "deflated iTXt", "iCCP", "eXIf"])
def test_large_metadata_of_a_png_change_nothing(make_picture: PictureMaker, kind: str) -> None:
    picture = make_picture(64, 48)
    info, options = PngInfo(), {}
    if kind == "tEXt":
        for n in range(3):
            info.add_text(f"workflow {n}", "x" * 30_000_000)
    elif kind == "zTXt":
        info.add_text("workflow", "x" * 3_000_000, zip=True)
    elif "iTXt" in kind:
        info.add_itxt("workflow", "x" * 90_000_000, zip="deflated" in kind)
    elif kind == "iCCP":
        options["icc_profile"] = bytes(range(256)) * 12_000
    else:
        options["exif"] = b"Exif\0\0MM\0*\0\0\0\x08\0\0" + bytes(3_000_000)
    data = encoded(picture, "PNG", pnginfo=info, **options)
    np.testing.assert_array_equal(decode(data), np.asarray(picture))
    assert pixel_count(data) == 64 * 48


def test_the_orientation_behind_large_texts_is_kept(make_picture: PictureMaker) -> None:
    info = PngInfo()
    info.add_itxt("prompt", "x" * 2_000_000)
    info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    data = encoded(make_picture(64, 48), "PNG", pnginfo=info)
    assert decode(data).shape == (64, 48, 3)


def test_a_png_of_endless_parts_is_refused() -> None:
    whole = png(np.zeros((4, 4), np.uint8), "gray")
    start = time.monotonic()
    many = whole[:33] + png_chunk(b"teSt", b"") * 500_000 + whole[33:]
    assert "a PNG file with more than" in reason(many)
    assert time.monotonic() - start < 10


# --- Work and memory ---------------------------------------------------------------------------


def test_a_jpeg_of_a_thousand_scans_is_refused_at_once() -> None:
    assert decode(jpeg_of_scans(512, 64)).mean() == 128
    start = time.monotonic()
    for scans in (65, 1000):
        message = reason(jpeg_of_scans(2048, scans))
        assert message.startswith("a JPEG file with more than 64 scans of 4,194,304 pixels")
        with pytest.raises(UnreadableImage, match="scans"):
            pixel_count(jpeg_of_scans(2048, scans))
    assert time.monotonic() - start < 5


def test_the_pixels_of_a_large_jpeg_leave_fewer_scans() -> None:
    assert "more than 29 scans of 16,777,216 pixels" in reason(jpeg_of_scans(4096, 30))


def test_endless_fill_bytes_cost_no_more_than_others(make_picture: PictureMaker) -> None:
    """Bytes 0xFF before a marker fill up; a search that began at each of them took minutes."""
    data = encoded(make_picture(64, 48), "JPEG", progressive=True)
    filled = data[:-2] + b"\xff" * 2_000_000
    start = time.monotonic()
    np.testing.assert_array_equal(decode(filled + b"\xd9"), decode(data))
    assert "JPEG file" in reason(filled + b"\0" + b"\xff\xda" * 70)
    assert time.monotonic() - start < 5


def test_scans_are_counted_past_pictures_in_the_metadata_and_behind(
    make_picture: PictureMaker,
) -> None:
    data = encoded(make_picture(64, 48), "JPEG", progressive=True)
    start = b"\xff\xd8\xff\xe5" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200
    np.testing.assert_array_equal(decode(start + data[2:] + b"\xff\xda" * 200), decode(data))


def test_scans_are_counted_inside_a_tiff() -> None:
    data = encoded(Image.new("L", (64, 64)), "TIFF", compression="jpeg")
    assert decode(data).shape == (64, 64, 3)
    assert "JPEG scans in each strip" in reason(data + jpeg_of_scans(64, 500))


def test_a_tile_far_larger_than_its_tiff_is_refused() -> None:
    data = tiff(np.zeros((16, 16), np.uint8))
    # Strip offsets (273) become tile offsets, the rows of a strip (278) and their bytes (279) a
    # tile's width and height.
    for old, new, value in ((273, 324, 8), (278, 322, 40_000), (279, 323, 40_000)):
        at = data.index(struct.pack("<HHI", old, 4, 1))
        data = data[:at] + struct.pack("<HHII", new, 4, 1, value) + data[at + 12 :]
    assert "tiles of 1,600,000,000 pixels for a picture of 256" in reason(data)


def test_a_jpeg_2000_of_tiny_tiles_or_precincts_is_refused(make_picture: PictureMaker) -> None:
    data = encoded(make_picture(600, 600), "JPEG2000", no_jp2=True)
    assert decode(data).shape == (600, 600, 3)
    at = data.index(b"\xff\x51")
    tiled = data[: at + 22] + struct.pack(">II", 4, 4) + data[at + 30 :]
    assert "22,500 tiles of 3 components" in reason(tiled)
    coding = data.index(b"\xff\x52")
    length = int.from_bytes(data[coding + 2 : coding + 4], "big")
    levels = data[coding + 9]
    fine = data[coding + 4 : coding + 2 + length]
    fine = bytes([fine[0] | 1]) + fine[1:10] + b"\0" * (levels + 1)
    part = b"\xff\x52" + struct.pack(">H", 2 + len(fine)) + fine
    assert "precincts" in reason(data[:coding] + part + data[coding + 2 + length :])


def test_the_limit_is_of_memory_as_well(
    monkeypatch: pytest.MonkeyPatch, make_picture: PictureMaker
) -> None:
    data = encoded(make_picture(100, 100), "JPEG2000")
    assert decode(data, max_pixels=20_000).size
    assert "more than the limit of 0.0 GiB (10,000 pixels of 16 bytes)" in reason(
        data, max_pixels=10_000
    )


@pytest.mark.parametrize("size", [(16_383, 11_000), (15_800, 15_800)])
def test_large_files_are_not_called_damaged(size: tuple[int, int]) -> None:
    """Pillow would refuse them above 179 million pixels; nothing is decoded here."""
    for data in (
        tiff(np.zeros((1, 1), np.uint8)),
        png(np.zeros((1, 1), np.uint8), "gray", size=size),
    ):
        if data[:2] == b"II":
            for tag, side in zip((256, 257), size, strict=True):
                at = data.index(struct.pack("<HHI", tag, 4, 1))
                data = data[: at + 8] + struct.pack("<I", side) + data[at + 12 :]
        assert pixel_count(data) == size[0] * size[1]
        with pytest.raises(UnreadableImage, match="limit of 1,000,000; raise --max-pixels"):
            pixel_count(data, max_pixels=1_000_000)


@pytest.mark.slow
def test_a_deep_picture_takes_at_most_twice_its_pixels(tmp_path: Path) -> None:
    """RGBA of 16 bits, 6,000 pixels square: 4 bytes of each decoded, 3 returned."""
    side = 6000
    deflate = zlib.compressobj(6)
    rows = b"".join(deflate.compress(bytes(1 + 8 * side)) for _ in range(side)) + deflate.flush()
    head = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    path = tmp_path / "deep.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*one) for one in chunks))
    code = (
        "import resource, sys; from realbench.images import read_image\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak(); assert read_image(sys.argv[1]).min() == 255; print(peak() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 8 * side**2


# --- Formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("major", "others", "kind"),
    [
        *((brand, b"", "HEIC") for brand in (b"heic", b"heix", b"heim", b"heis", b"hevs", b"hevm")),
        (b"mif1", b"mif1heic", "HEIC"),
        (b"mif1", b"mif1avif", "AVIF"),
        (b"mif1", b"", "HEIC"),
        (b"msf1", b"hevc", "HEIC"),
        (b"avis", b"mif1", "AVIF"),
        (b"mp42", b"isom", ""),
    ],
)
def test_containers_are_told_by_all_their_brands(
    monkeypatch: pytest.MonkeyPatch, major: bytes, others: bytes, kind: str
) -> None:
    monkeypatch.setattr(decoding, "can_read", lambda _: False)
    box = b"ftyp" + major + bytes(4) + others
    data = struct.pack(">I", 4 + len(box)) + box + bytes(100)
    assert container(data) == kind
    if kind == "HEIC":
        assert reason(data).startswith("a HEIC image, which cannot be read here")


@pytest.mark.parametrize("options", [{}, {"compression": "tga_rle"}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_tga(make_picture: PictureMaker, mode: str, options: dict[str, str]) -> None:
    picture = make_picture(50, 30).convert(mode)
    data = encoded(picture, "TGA", **options)
    footless = data.removesuffix(b"TRUEVISION-XFILE.\0")
    for one in (data, footless):
        np.testing.assert_array_equal(decode(one), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("ending", ["ppm", "pgm", "dib", "j2k", "pjpeg", "tga", "icb", "mpo", ""])
def test_further_endings_are_read(tmp_path: Path, make_picture: PictureMaker, ending: str) -> None:
    formats = {"pgm": "PPM", "j2k": "JPEG2000", "icb": "TGA", "": "PNG"}
    format = formats.get(ending, "JPEG" if ending in ("pjpeg", "mpo") else ending)
    picture = make_picture(40, 30)
    path = tmp_path / f"a.{ending}".removesuffix(".")
    path.write_bytes(encoded(picture, format.upper()))
    (tmp_path / "LICENSE").write_text("of no picture")
    (found,) = find_images(tmp_path)
    assert (found.path, found.prompt_id) == (path, "a")
    assert decode(path.read_bytes()).shape == (30, 40, 3)


def test_a_ppm_without_an_ending_is_read(tmp_path: Path, make_picture: PictureMaker) -> None:
    (tmp_path / "a").write_bytes(encoded(make_picture(40, 30), "PPM"))
    assert [one.prompt_id for one in find_images(tmp_path)] == ["a"]


def test_pictures_that_are_not_read_are_counted(tmp_path: Path, make_picture: PictureMaker) -> None:
    make_picture().save(tmp_path / "a.png")
    for name in ("b.ico", "c.psd", "d.PSD", "e.txt"):
        (tmp_path / name).touch()
    notes: list[tuple[Path, str]] = []
    assert len(find_images(tmp_path, on_problem=lambda *note: notes.append(note))) == 1
    ((where, why),) = notes
    assert where == tmp_path
    assert "(.ico: 1, .psd: 2); convert them to PNG or JPEG" in why


def test_heic(make_picture: PictureMaker) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    picture = make_picture(64, 48)
    heif = pillow_heif.from_pillow(picture)
    buffer = BytesIO()
    heif.save(buffer, quality=-1, chroma=444)
    pixels = decode(buffer.getvalue())
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - np.asarray(picture)).mean() < 3
    assert pixel_count(buffer.getvalue()) == 64 * 48
    assert reason(buffer.getvalue()[: len(buffer.getvalue()) // 2])
