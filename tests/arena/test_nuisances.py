"""Ratings with what sways a judge besides realism held equal."""

from __future__ import annotations

import io
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from realbench.arena.bradley_terry import POINTS, bradley_terry
from realbench.arena.judges.judge import Judgment
from realbench.arena.nuisances import COVARIATES, controlled, measure_pictures
from realbench.arena.records import Nuisances
from realbench.arena.results import ArenaRun, rate_run
from realbench.arena.run import arena
from realbench.arena.tally import tally
from realbench.arena.votes import Comparison
from tests.arena.judges import ByName
from tests.pages import Page

NAMES = ["model", "twin", "other"]


def simulated(
    seed: int, prompts: int = 150, sways: float = 0.8
) -> tuple[list[Comparison], dict[tuple[str, str], np.ndarray]]:
    """A model, its twin whose pictures are duller, and a worse model, under a judge that is swayed.

    The second covariate is noise, and the third one for each model.
    """
    rng = np.random.default_rng(seed)
    measured = {}
    for prompt in (f"p{n:03}" for n in range(prompts)):
        sharp, dull = rng.normal(0, 1), rng.uniform(0, 2)
        for name, x in (("model", sharp), ("twin", sharp - dull), ("other", rng.normal(0, 1))):
            measured[name, prompt] = np.array([x, rng.normal(), float(NAMES.index(name))])
    strength = {"model": 0.3, "twin": 0.3, "other": -0.6}
    found = []
    for prompt in (f"p{n:03}" for n in range(prompts)):
        for a, b in combinations(sorted(NAMES), 2):
            gap = measured[a, prompt][0] - measured[b, prompt][0]
            chance = 1 / (1 + np.exp(strength[b] - strength[a] - sways * gap))
            found.append(Comparison("judge", prompt, a, b, float(rng.random() < chance), None))
    return found, measured


def rated(seed: int, **settings: Any) -> Nuisances:
    comparisons, measured = simulated(seed, **settings)
    found = controlled(
        comparisons, measured, NAMES, resamples=300, seed=0, names=("sharp", "nothing", "size")
    )
    assert not isinstance(found, str)
    return found


def by_name(found: Nuisances, key: str) -> dict[str, float]:
    rows: list[Any] = found["ratings"]
    return {row["contestant"]: row[key]["estimate"] for row in rows}


def test_twins_tie_once_what_tells_them_apart_is_held_equal() -> None:
    found = rated(0)
    plain, alike = by_name(found, "plain"), by_name(found, "controlled")
    assert plain["model"] - plain["twin"] > 80
    assert abs(alike["model"] - alike["twin"]) < 35
    assert alike["twin"] - alike["other"] == pytest.approx(0.9 * POINTS, abs=40)
    sharp, nothing, size = (one["effect"] for one in found["effects"])
    assert sharp["estimate"] is not None
    assert sharp["low"] is not None
    assert sharp["estimate"] == pytest.approx(
        0.8 * POINTS * found["effects"][0]["deviation"], abs=35
    )
    assert sharp["low"] > 50
    assert nothing["low"] is not None
    assert nothing["high"] is not None
    assert nothing["low"] < 0 < nothing["high"]
    assert size["estimate"] is None  # one for each model: not to be told from it


def test_without_covariates_it_is_bradley_terry() -> None:
    comparisons, measured = simulated(1, prompts=40)
    found = controlled(comparisons, measured, NAMES, resamples=20, seed=0, names=("a", "b", "c"))
    assert not isinstance(found, str)
    expected = dict(zip(NAMES, bradley_terry(tally(comparisons, NAMES)), strict=True))
    assert by_name(found, "plain") == pytest.approx(expected, abs=1e-4)


def test_a_rating_that_results_hardly_bound_has_no_interval() -> None:
    comparisons, measured = simulated(2, prompts=40)
    for n, one in enumerate(comparisons):
        if "other" in (one.a, one.b):
            lost = float(one.b == "other")
            comparisons[n] = Comparison("judge", one.prompt_id, one.a, one.b, lost, None)
    found = controlled(comparisons, measured, NAMES, resamples=20, seed=0, names=("a", "b", "c"))
    assert not isinstance(found, str)
    intervals = {row["contestant"]: row["controlled"]["low"] for row in found["ratings"]}
    assert intervals["other"] is None
    assert intervals["model"] is not None


@pytest.mark.slow
def test_intervals_cover() -> None:
    hits: dict[str, list[bool]] = {"effect": [], "rating": []}
    truth = dict(zip(NAMES, np.array([0.3, 0.3, -0.6]) * POINTS + 1000, strict=True))
    for seed in range(600):
        found = rated(seed, prompts=60)
        sharp = found["effects"][0]
        pairs = [("effect", sharp["effect"], 0.8 * POINTS * sharp["deviation"])]
        pairs += [
            ("rating", row["controlled"], truth[row["contestant"]]) for row in found["ratings"]
        ]
        for kind, one, true in pairs:
            assert one["low"] is not None
            assert one["high"] is not None
            hits[kind].append(bool(one["low"] <= true <= one["high"]))
    for kind, each in hits.items():
        assert 0.93 <= np.mean(each) <= 0.97, kind


def test_pictures_are_measured_as_they_look(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = rng.uniform(0, 255, (12, 12, 3)).astype(np.uint8)
    picture = Image.fromarray(smooth).resize((96, 96), Image.Resampling.BICUBIC)
    noisy = np.clip(np.asarray(picture) + rng.normal(0, 12, (96, 96, 3)), 0, 255).astype(np.uint8)
    made = {
        "plain": picture,
        "blurred": picture.filter(ImageFilter.GaussianBlur(2)),
        "noisy": Image.fromarray(noisy),
        "gray": picture.convert("L").convert("RGB"),
        "dark": Image.fromarray((np.asarray(picture) * 0.5).astype(np.uint8)),
    }
    paths = {}
    for name, each in made.items():
        paths[name, "p"] = tmp_path / f"{name}.png"
        each.save(paths[name, "p"])
    paths["jpeg", "p"] = tmp_path / "jpeg.jpg"
    picture.save(paths["jpeg", "p"], quality=30)
    paths["broken", "p"] = tmp_path / "broken.png"
    paths["broken", "p"].write_bytes(b"no picture")
    found = {
        name: dict(zip(COVARIATES, values, strict=True))
        for (name, _), values in measure_pictures(paths).items()
    }
    assert "broken" not in found
    plain = found["plain"]
    assert found["blurred"]["sharpness"] < plain["sharpness"]
    assert found["noisy"]["noise"] > plain["noise"] + 1
    assert found["gray"]["saturation"] == pytest.approx(0, abs=1e-6)
    assert found["dark"]["brightness"] == pytest.approx(plain["brightness"] / 2, abs=0.01)
    assert found["dark"]["contrast"] == pytest.approx(plain["contrast"] / 2, abs=0.01)
    assert plain["size"] == pytest.approx(np.log(96 * 96))
    weight = (tmp_path / "jpeg.jpg").stat().st_size
    assert found["jpeg"]["bytes a pixel"] == pytest.approx(np.log(weight / 96**2))
    assert (found["jpeg"]["JPEG"], plain["JPEG"]) == (1.0, 0.0)
    # Immerkær's estimate finds the deviation of noise on a flat picture.
    flat = np.clip(128 + rng.normal(0, 10, (256, 256, 1)), 0, 255).astype(np.uint8)
    Image.fromarray(np.repeat(flat, 3, axis=2)).save(tmp_path / "flat.png")
    (values,) = measure_pictures({("flat", "p"): tmp_path / "flat.png"}).values()
    assert np.exp(values[COVARIATES.index("noise")]) * 255 == pytest.approx(10, rel=0.03)


class Swayed(ByName):
    """Tends to the picture with more bytes, which is the less compressed one."""

    draw = random.Random(0)

    def _answer(self, showing: Any) -> Judgment:
        first, second = (one.path.stat().st_size for one in (showing.first, showing.second))
        return Judgment(
            "first" if self.draw.random() < 1 / (1 + (second / first) ** 6) else "second"
        )


@pytest.mark.slow
def test_a_run_with_reencoded_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in ("model", "twin"):
        (tmp_path / name).mkdir()
    for n in range(80):
        pixels = rng.uniform(0, 255, (8, 8, 3)).astype(np.uint8)
        picture = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "model" / f"{n}.jpg", quality=int(rng.integers(60, 95)))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(40, 80)))
        (tmp_path / "twin" / f"{n}.jpg").write_bytes(buffer.getvalue())
    folders = [tmp_path / "model", tmp_path / "twin"]
    arena(*folders, judge=Swayed("swayed", orders=1), out=tmp_path / "run", resamples=50)
    run = rate_run(tmp_path / "run", nuisances=True)
    found = run.ratings["nuisances"]
    assert found is not None
    plain, alike = by_name(found, "plain"), by_name(found, "controlled")
    gap = plain["model"] - plain["twin"]
    assert gap > 100
    assert abs(alike["model"] - alike["twin"]) < gap / 2
    effect = {one["covariate"]: one["effect"]["estimate"] for one in found["effects"]}
    assert effect["JPEG"] is None  # all are
    assert ArenaRun.read(tmp_path / "run").ratings["nuisances"] == found
    text = Page((tmp_path / "run" / "report.html").read_text("utf-8")).text
    for expected in ("With the pictures alike", "One standard deviation more of", "JPEG"):
        assert expected in text
