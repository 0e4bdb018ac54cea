"""A user's own folders: which generator an image is of, what folds hold out, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from realbench.content import content_path
from realbench.detection.training.folders import read_folders
from realbench.detection.training.recipe import choose_recipes, read_recipe
from realbench.errors import UsageError


def _fill(folder: Path, stems: list[str], seed: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for stem in stems:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{stem}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return _fill(tmp_path / "photos", [f"photo-{n}" for n in range(30)], 0)


def test_folders_are_generators_whether_named_or_gathered(tmp_path: Path, photos: Path) -> None:
    for n, name in enumerate(("a", "b", "c")):
        _fill(tmp_path / "gathered" / name, [f"{name}{k}" for k in range(6)], n + 1)
    _fill(tmp_path / "gathered" / "a" / "deeper", ["x"], 9)
    named = [tmp_path / "gathered" / name for name in ("a", "b", "c")]
    for given in ([tmp_path / "gathered"], named):
        made = [i for i in read_folders([photos], given, 3).images if not i.real]
        assert {i.source for i in made} == {"a", "b", "c"}
        assert sum(i.source == "a" for i in made) == 7


def test_folders_of_one_name_are_told_apart(tmp_path: Path, photos: Path) -> None:
    given = [
        _fill(tmp_path / n / "out", [f"{n}{k}" for k in range(6)], k) for k, n in enumerate("ab", 1)
    ]
    made = [i for i in read_folders([photos], given, 3).images if not i.real]
    assert {i.source for i in made} == {str(folder) for folder in given}


def test_generators_are_held_out_each_in_one_fold(tmp_path: Path, photos: Path) -> None:
    """Stems of their own say nothing of prompts, so every image is tested once."""
    folders = [
        _fill(tmp_path / name, [f"{name}-{k}" for k in range(8)], n)
        for n, name in enumerate(("a", "b", "c", "d"), start=1)
    ]
    found = read_folders([photos], folders, 3)
    made = [image for image in found.images if not image.real]
    assert found.folds == 3
    assert not found.notes
    for image in made:
        assert [image.tests(fold) for fold in range(3)].count(True) == 1
        assert all(image.trains(fold) != image.tests(fold) for fold in range(3))
    for name in "abcd":
        assert len({i.source_fold for i in made if i.source == name}) == 1
    counts = [sum(i.tests(f) for i in found.images if i.real) for f in range(3)]
    assert counts == [10, 10, 10]


def test_prompts_that_generators_share_are_held_out_with_them(tmp_path: Path, photos: Path) -> None:
    stems = [f"{n:04}" for n in range(12)]
    folders = [_fill(tmp_path / name, stems, n) for n, name in enumerate("ab", start=1)]
    _fill(photos, stems[:6], 9)  # photographs of the same prompts
    found = read_folders([photos], folders, 3)
    assert found.folds == 2  # as many as generators
    assert "prompts" in found.held_out
    for fold in range(2):
        tested = {i.path.stem for i in found.images if not i.real and i.tests(fold)}
        learned = {i.path.stem for i in found.images if i.trains(fold)}
        assert tested
        assert not tested & learned  # neither by a generator nor by a photograph


def test_a_single_generator_is_held_out_by_image_and_that_is_said(
    tmp_path: Path, photos: Path
) -> None:
    found = read_folders([photos], [_fill(tmp_path / "only", [str(n) for n in range(20)], 1)], 3)
    assert found.folds == 3
    assert "only is the only generator" in found.notes[0]
    assert "nothing tells how well others are found" in found.notes[0]
    tested = [sum(i.tests(fold) for i in found.images if not i.real) for fold in range(3)]
    assert sorted(tested) == [6, 7, 7]


def test_what_cannot_be_read_and_copies_are_left_out_and_told(tmp_path: Path, photos: Path) -> None:
    made = _fill(tmp_path / "made", [str(n) for n in range(12)], 1)
    (made / "broken.png").write_bytes(b"not a picture")
    shutil.copy(made / "0.png", made / "copy.png")
    found = read_folders([photos], [made], 3)
    assert sum(not i.real for i in found.images) == 12
    told = " ".join(found.notes)
    assert "broken.png" in told
    assert "1 copy of a picture" in told


def test_folders_that_contradict_are_refused(tmp_path: Path, photos: Path) -> None:
    made = _fill(tmp_path / "made", [str(n) for n in range(12)], 1)
    shutil.copy(photos / "photo-3.png", made / "stray.png")
    with pytest.raises(UsageError, match=r"photo-3\.png is given as a photograph and .*stray\.png"):
        read_folders([photos], [made], 3)
    with pytest.raises(UsageError, match="given twice"):
        read_folders([photos], [photos], 3)


def test_too_few_images_are_refused(tmp_path: Path, photos: Path) -> None:
    made = _fill(tmp_path / "made", ["one", "two"], 1)
    with pytest.raises(UsageError, match=r"at least 10 different generated images .* there are 2"):
        read_folders([photos], [made], 3)


def test_shipped_recipes_are_valid_and_survive_being_written(tmp_path: Path) -> None:
    shipped = [read_recipe(path) for path in content_path("detectors").glob("recipes/*.toml")]
    assert shipped
    again = tmp_path / "recipe.toml"
    for one in (*shipped, *choose_recipes([]).values()):
        again.write_text(one.toml())
        assert read_recipe(again) == one


def test_recipes_are_chosen_by_name_or_file() -> None:
    assert list(choose_recipes([])) == ["semantic-lite", "trace-lite"]
    named = choose_recipes(["small-images"], name="mine")
    assert named["mine"].matched_size == 64
    with pytest.raises(UsageError, match=r"no recipe 'nothing' \(there are .*small-images"):
        choose_recipes(["nothing"])
    with pytest.raises(UsageError, match="--name goes with one recipe"):
        choose_recipes([], name="mine")
