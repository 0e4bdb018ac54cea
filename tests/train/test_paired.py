"""Photographs with captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realbench.errors import UsageError
from realbench.train.paired import PairedImages, cover, match_compression


def save(path: Path, width: int = 64, height: int = 48, shade: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (shade, shade, shade)).save(path)


def lines(path: Path, *records: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_folder_with_the_projects_prompts(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg", "uncaptioned.png"):
        save(tmp_path / name)
    lines(tmp_path / "prompts.jsonl", {"id": "a", "prompt": "A"}, {"id": "b", "prompt": "B"})
    found = PairedImages(tmp_path)
    assert [path.name for path in found.paths] == ["a.png", "b.jpg"]
    assert found.captions == ["A", "B"]


@pytest.mark.parametrize("as_folder", [True, False])
def test_lists_of_both_kinds_of_keys(tmp_path: Path, as_folder: bool) -> None:
    save(tmp_path / "one.png")
    save(tmp_path / "deep" / "two.png")
    file = lines(
        tmp_path / "metadata.jsonl",
        {"file_name": "one.png", "text": "first"},
        {"image": "deep/two.png", "caption": "second"},
    )
    found = PairedImages(tmp_path if as_folder else file)
    assert [path.name for path in found.paths] == ["one.png", "two.png"]
    assert found.captions == ["first", "second"]


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"none has no prompts\.jsonl: captions are missing"):
        PairedImages(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no image with a caption"):
        PairedImages(lines(tmp_path / "empty.jsonl"))
    with pytest.raises(UsageError, match=r"bad\.jsonl, line 1: give"):
        PairedImages(lines(tmp_path / "bad.jsonl", {"image": "a.png"}))
    with pytest.raises(UsageError, match=r"line 1: there is no .*gone\.png"):
        PairedImages(lines(tmp_path / "lost.jsonl", {"image": "gone.png", "caption": "x"}))
    with pytest.raises(UsageError, match=r"missing\.jsonl"):
        PairedImages(tmp_path / "missing.jsonl")


def test_partners_show_the_same_where_they_can(tmp_path: Path) -> None:
    for n, name in enumerate("abc"):
        save(tmp_path / f"{name}.png", shade=50 * (n + 1))
    records = [{"image": f"{name}.png", "caption": name.upper()} for name in "abc"]
    found = PairedImages(lines(tmp_path / "list.jsonl", *records))
    rng = np.random.default_rng(0)
    images = found.partners(["C", "A", *["unknown"] * 60], 16, 24, rng)
    assert {image.shape for image in images} == {(16, 24, 3)}
    assert (int(images[0][0, 0, 0]), int(images[1][0, 0, 0])) == (150, 50)
    assert {int(image[0, 0, 0]) for image in images[2:]} == {50, 100, 150}


def test_photographs_are_not_enlarged(tmp_path: Path) -> None:
    save(tmp_path / "small.png", 30, 90)
    save(tmp_path / "large.png", 32, 33)
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = ("small", "large", "broken")
    records = [{"image": f"{name}.png", "caption": name} for name in names]
    found = PairedImages(lines(tmp_path / "list.jsonl", *records))
    assert found.at_least(32, 32).captions == ["large"]
    with pytest.raises(UsageError, match=r"none of the 3 photographs .* as large as .* 64 x 40"):
        found.at_least(40, 64)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (10, 40), (33, 7), (60, 80)])
def test_covering_keeps_the_middle_and_its_shape(height: int, width: int) -> None:
    """A round spot in the middle of the image stays in the middle, and round."""
    y, x = np.mgrid[:60, :80] - np.array([29.5, 39.5])[:, None, None]
    spot = np.where(np.hypot(x, y) < 6, 255, 0).astype(np.uint8)
    covered = cover(np.stack([spot] * 3, axis=2), height, width)[..., 0].astype(float)
    assert covered.shape == (height, width)
    rows, columns = np.mgrid[:height, :width]
    weight = covered / covered.sum()
    center = (weight * rows).sum(), (weight * columns).sum()
    assert center == pytest.approx(((height - 1) / 2, (width - 1) / 2), abs=0.1)
    down = np.sqrt((weight * (rows - center[0]) ** 2).sum())
    across = np.sqrt((weight * (columns - center[1]) ** 2).sum())
    assert down == pytest.approx(across, rel=0.1)


def test_compression_is_the_same_in_a_pair() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    pairs = match_compression([(one, one) for one in noise], 0.5, np.random.default_rng(1))
    real, generated = zip(*pairs, strict=True)
    changed = [not np.array_equal(one, two) for one, two in zip(real, noise, strict=True)]
    assert 8 <= sum(changed) <= 32
    assert all(np.array_equal(one, two) for one, two in zip(real, generated, strict=True))
