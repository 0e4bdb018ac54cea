"""Heat maps: what they are of, that they find a generated part, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import realbench
from benchmarks.maps import KINDS, measure, pictures
from realbench.detection.families import patch_statistics
from realbench.errors import UsageError
from realbench.scoring import Scorer
from realbench.scoring.maps import locating, realism_map
from tests.conftest import FolderMaker
from tests.fakes import make_card


@pytest.fixture(scope="module")
def semantic() -> Scorer:
    return Scorer("semantic-lite", device="cpu")


def test_a_place_is_judged_by_its_neighbours_as_a_picture_by_its_patches(
    semantic: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all patches as neighbours, each place says what the whole picture does."""
    detector = semantic.detectors["semantic-lite"]
    network = detector.network
    monkeypatch.setattr(patch_statistics, "_AROUND", 16)
    image = np.random.default_rng(0).integers(0, 256, (300, 224, 3), np.uint8)
    x = detector.prepare(image).float()
    with torch.inference_mode():
        places = network.local_logits(x)
        z = network.limited(network.standardized(network.statistics(x)))
        whole = network.real(z).squeeze(1) + network.tuned_logits(network.tokens(x))
    assert places.shape == (1, 16, 16)
    torch.testing.assert_close(places, whole[:, None, None].expand(1, 16, 16), atol=0.05, rtol=0)


def test_a_map_has_the_picture_s_shape_and_its_realism_as_its_mean(semantic: Scorer) -> None:
    image = np.random.default_rng(1).integers(0, 256, (96, 160, 3), np.uint8)
    values = realism_map(locating(semantic.detectors), image, 0.3)
    assert (values.dtype, values.shape) == (np.float32, (96, 160))
    logits = np.log(values.astype(np.float64) / (1 - values))
    assert logits.mean() == pytest.approx(np.log(0.3 / 0.7), abs=0.05)


@pytest.mark.parametrize("shape", [(1, 1, 3), (10, 300, 3), (65, 64, 3)])
def test_small_and_long_pictures_have_maps(semantic: Scorer, shape: tuple[int, int, int]) -> None:
    values = realism_map(locating(semantic.detectors), np.full(shape, 100, np.uint8), 0.5)
    assert values.shape == shape[:2]
    assert np.isfinite(values).all()


def test_a_run_writes_a_map_and_an_overlay_of_each_image_once(
    make_folder: FolderMaker, tmp_path: Path, semantic: Scorer
) -> None:
    folder, out = make_folder("a", 2), tmp_path / "run"
    (folder / "broken.png").write_bytes(b"?")
    run = realbench.score(folder, detectors="semantic-lite", out=out, maps=True)
    names = {f"000{n}.jpg{end}" for n in (0, 1) for end in (".png", ".overlay.jpg")}
    assert {path.name for path in (out / "maps" / "a").iterdir()} == names
    image = Image.open(folder / "0000.jpg")
    (values,) = semantic.maps([image])
    with Image.open(out / "maps" / "a" / "0000.jpg.png") as heat:
        assert heat.size == image.size
        np.testing.assert_allclose(np.asarray(heat) / 255, values, atol=0.5 / 255 + 1e-4)
    report = (out / "report.html").read_text()
    assert report.count("Heat map of a/") == 2
    assert set(run.overlays) == {("a", "0000.jpg"), ("a", "0001.jpg")}

    written = {path: path.stat().st_mtime_ns for path in (out / "maps").rglob("*.png")}
    image.rotate(90).save(folder / "0001.jpg")
    realbench.score(folder, detectors="semantic-lite", out=out, maps=True)
    anew = [path.name for path, time in written.items() if path.stat().st_mtime_ns != time]
    assert anew == ["0001.jpg.png"]


def test_what_gives_no_maps_is_told(make_folder: FolderMaker, tmp_path: Path) -> None:
    card = make_card(tmp_path, "tiny", seed=3)
    with pytest.raises(UsageError, match=r"none of tiny can say where .* need semantic-lite"):
        realbench.score(make_folder("a", 1), detectors=card, out=tmp_path / "run", maps=True)
    with pytest.raises(UsageError, match="--maps needs --out"):
        realbench.score(make_folder("b", 1), maps=True)


def test_maps_from_python_are_of_pictures_of_one_size(semantic: Scorer) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 70, 90, 3), np.uint8)
    found = semantic.maps(images)
    assert (found.dtype, found.shape) == (np.float32, (2, 70, 90))
    assert semantic.maps([]).shape == (0, 0, 0)
    with pytest.raises(UsageError, match="of one size"):
        semantic.maps([images[0], images[1][:, :80]])


@pytest.mark.slow
def test_maps_find_generated_and_photographed_regions(shared_data: Path) -> None:
    """That they do so in pictures not learned from, benchmarks/maps.py measures by folds."""
    rng, web = np.random.default_rng(0), shared_data / "web"
    real, made = (
        pictures([sorted(one.iterdir()) for one in sorted((web / kind).iterdir())], 12, rng)
        for kind in ("photos", "generated")
    )
    table = measure(Scorer(device="cpu"), real, made, seed=0)
    assert (table[list(KINDS)].mean() >= 0.7).all()
