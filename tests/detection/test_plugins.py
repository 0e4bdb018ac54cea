"""Detectors of other packages: found, checked, kept apart when they are broken."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import realbench
from realbench.detection.cards import read_card
from realbench.detection.registry import find_card, plugin_cards
from realbench.errors import RealBenchError, UsageError
from tests.detection.plugin_packages import CODE, make_package

PICTURE = np.full((30, 40, 3), 200, np.uint8)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages on Python's path; what is imported from it is forgotten."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or str(folder) in str(
            sys.modules[name].__file__
        ):
            del sys.modules[name]


def test_an_installed_detector_is_found_by_name_and_scores(site: Path) -> None:
    make_package(site, "mean-color")
    assert "mean-color" in realbench.list_detectors()
    assert "mean_color" not in sys.modules  # listing runs no code of it
    detector = realbench.load_detector("mean-color")
    assert detector.level == "feature"
    logit = detector.logits(detector.prepare(PICTURE)[None]).item()
    assert logit == pytest.approx(200 / 32 - 4)
    scores = realbench.Scorer(["mean-color", "trace-lite"], device="cpu")([PICTURE])
    assert scores.logits["mean-color"][0] == pytest.approx(logit)


def test_a_card_folder_may_name_an_installed_family(site: Path, tmp_path: Path) -> None:
    folder = make_package(site, "mean-color")
    other = tmp_path / "warmer"
    other.mkdir()
    text = (folder / "card.toml").read_text()
    (other / "card.toml").write_text(text.replace('name = "mean-color"', 'name = "warmer"'))
    detector = realbench.load_detector(other)
    assert detector.name == "warmer"
    assert detector.fingerprint == find_card("mean-color").fingerprint  # names decide nothing


def test_the_fingerprint_follows_version_code_card_and_weights(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_package(site, "mean-color")
    marks = [find_card("mean-color").fingerprint]
    (folder / "__init__.py").write_text(CODE.replace("/ 32", "/ 16"))
    marks.append(find_card("mean-color").fingerprint)
    shutil.rmtree(folder)
    shutil.rmtree(site / "mean_color-1.0.dist-info")
    make_package(site, "mean-color", version="2.0")
    marks.append(find_card("mean-color").fingerprint)
    card = folder / "card.toml"
    card.write_text(card.read_text() + "\n[calibration]\nbias = 1.0\n")
    marks.append(find_card("mean-color").fingerprint)
    with_file = card.read_text().replace('source = "none"', 'source = "file"\nfile = "w.bin"')
    card.write_text(with_file)
    for content in (b"one", b"two"):
        (folder / "w.bin").write_bytes(content)
        marks.append(find_card("mean-color").fingerprint)
    assert len(set(marks)) == len(marks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": "import no_such_library"}, r"cannot be imported \(ModuleNotFoundError: No mod"),
        ({"code": "raise SystemError('later\\nmore')"}, r"cannot be imported \(SystemError: later"),
        ({"target": "nothing"}, "cannot be imported"),
        ({"code": "build = 3"}, "is a int, not a function"),
        ({"code": "def build(card): return 7"}, "returns a int, which is no"),
        ({"code": "def build(card): raise KeyError('x')"}, "cannot build its detector"),
        (
            {"code": CODE.replace("card.name", "'other'")},
            "must have the name, level and fingerprint of its card",
        ),
    ],
)
def test_broken_code_is_told_in_one_line(site: Path, change: dict[str, str], message: str) -> None:
    make_package(site, "broken", **change)
    make_package(site, "mean-color")
    with pytest.raises(UsageError, match=message) as caught:
        realbench.load_detector("broken")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("plug-in 'broken' of broken 1.0")
    assert realbench.load_detector("mean-color").name == "mean-color"


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (None, r"there is no card\.toml in"),
        ("name = 'broken'", "is not a valid detector card: family"),
        ("name = ", "is no TOML"),
        (CODE, "is no TOML"),
    ],
)
def test_a_broken_card_is_left_out_of_the_list(site: Path, card: str | None, message: str) -> None:
    make_package(site, "broken", card=card)
    make_package(site, "mean-color")
    cards, problems = plugin_cards()
    assert list(cards) == ["mean-color"]
    assert len(problems) == 1
    with pytest.raises(UsageError, match=message):
        find_card("broken")
    assert "broken" not in realbench.list_detectors()
    assert "trace-lite" in realbench.list_detectors()


def test_names_that_clash_are_left_out(site: Path) -> None:
    make_package(site, "trace-lite", package="evil")
    make_package(site, "twice", package="first")
    make_package(site, "twice", package="second")
    cards, problems = plugin_cards()
    assert not cards
    assert problems == [
        "plug-in 'trace-lite' of evil 1.0 is left out: a bundled detector has this name",
        "plug-in 'twice' is left out, for first 1.0 and second 1.0 both have one of this name: "
        "uninstall one",
    ]
    assert find_card("trace-lite").path.parent.name == "detectors"
    assert "evil" not in sys.modules
    with pytest.raises(UsageError, match=r"first 1\.0 and second 1\.0"):
        find_card("twice")


def test_a_lone_module_and_a_removed_package_are_told(site: Path) -> None:
    folder = make_package(site, "alone")
    (site / "alone.py").write_text(CODE)
    shutil.rmtree(folder)
    shutil.rmtree(make_package(site, "gone"))
    with pytest.raises(UsageError, match="is a module by itself"):
        find_card("alone")
    with pytest.raises(UsageError, match="there is no module 'gone'"):
        find_card("gone")


def test_wrong_results_name_the_plug_in(site: Path) -> None:
    make_package(site, "floats", code=CODE.replace("dtype=torch.uint8", "dtype=torch.float32"))
    make_package(site, "sums", code=CODE.replace("dim=(1, 2, 3, 4)", "dim=(1, 2, 3)"))
    make_package(site, "fails", code=CODE.replace("batch.float()", "batch.flot()"))
    floats, sums, fails = (realbench.load_detector(name) for name in ("floats", "sums", "fails"))
    with pytest.raises(RealBenchError, match=r"'floats' .*float32 of shape \(1, 3, 2, 2\)"):
        floats.prepare(PICTURE)
    batch = sums.prepare(PICTURE)[None]
    with pytest.raises(RealBenchError, match=r"'sums' .* not a tensor of shape \(1,\)"):
        sums.logits(batch)
    with pytest.raises(RealBenchError, match=r"'fails' .* cannot score a batch \(AttributeError"):
        fails.logits(batch)


def test_only_a_plug_in_goes_without_weights(tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text(
        'name = "x"\nlevel = "feature"\nfamily = "whole-image"\ndescription = ""\nlicence = ""\n'
        '[model]\narchitecture = "resnet18"\n[weights]\nsource = "none"\n'
    )
    with pytest.raises(UsageError, match="needs weights"):
        realbench.load_detector(tmp_path)
    with pytest.raises(UsageError, match="has no weights, no 'weights'"):
        read_card(tmp_path).with_weights({"weights": card})
