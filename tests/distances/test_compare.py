"""Folders against photographs: equal numbers, the yardstick, ranks, notes, and a run's files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import realbench
from realbench.distances.compare import DINO, Distances, compare
from realbench.errors import RealBenchError, UsageError
from realbench.scoring import pipeline
from realbench.scoring.report import write_score_report
from realbench.scoring.run import ScoreRun
from tests.conftest import FolderMaker
from tests.fakes import make_card
from tests.pages import Page

WIDTH = 12  # of either half


def made(
    sizes: Mapping[str, tuple[int, float]], *, prompts: str = "{folder}{n}", seed: int = 0
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a table and features of folders with so many pictures, shifted from photographs."""
    rng = np.random.default_rng(seed)
    rows, features = [], []
    for folder, (n, shift) in sizes.items():
        for number in range(n):
            prompt = prompts.format(folder=folder, n=number)
            rows.append((folder, f"{number}.png", prompt, f"{folder}{number}", "ok"))
        features.append(rng.normal(shift, 1, size=(n, 2 * WIDTH)))
    table = pd.DataFrame(rows, columns=["folder", "image", "prompt_id", "sha256", "status"])
    return table, np.concatenate(features).astype(np.float32)


def compared(table: pd.DataFrame, features: np.ndarray) -> tuple[Distances | None, list[str]]:
    folders = [name for name in dict.fromkeys(table["folder"]) if name != "photos"]
    return compare(table, "photos", folders, {DINO: features}, [])


def test_the_nearer_folder_is_first_and_photographs_are_at_chance() -> None:
    table, features = made({"far": (120, 1.0), "near": (150, 0.3), "photos": (400, 0.0)})
    record, notes = compared(table, features)
    assert record is not None
    assert record["n"] == 120
    found = {one["folder"]: one["figures"] for one in record["folders"]}
    for kind, half in record["photographs"].items():
        assert (found["near"][kind]["rank"], found["far"][kind]["rank"]) == (1, 2), kind
        assert half["n"] == found["near"][kind]["n"] == 120
    yardstick = record["photographs"]
    assert yardstick["auc"]["low"] <= 0.5 <= yardstick["auc"]["high"]
    assert yardstick["kd"]["low"] <= 0 <= yardstick["kd"]["high"]
    assert found["far"]["auc"]["low"] > 0.8
    assert found["far"]["auc"]["rank_low"] == found["far"]["auc"]["rank_high"] == 2
    assert notes[0].startswith("distances are of 120 pictures with 120 photographs (the size of")
    assert "take 200 or more" in notes[1]


def test_folders_of_one_kind_are_tied() -> None:
    table, features = made({"a": (60, 0.5), "b": (60, 0.5), "photos": (120, 0.0)})
    record, _ = compared(table, features)
    assert record is not None
    for one in record["folders"]:
        assert {(f["rank_low"], f["rank_high"]) for f in one["figures"].values()} == {(1, 2)}


def test_pictures_of_two_prompts_have_an_interval() -> None:
    table, features = made({"a": (20, 0.5), "photos": (60, 0.0)})
    pictures = table["folder"] == "a"
    table.loc[pictures, "prompt_id"] = [f"p{n % 2}" for n in range(20)]
    record, _ = compared(table, features)
    assert record is not None
    for value in record["folders"][0]["figures"].values():
        assert value["low"] <= value["estimate"] <= value["high"]


def test_folders_are_compared_on_the_same_prompts() -> None:
    """Pictures of a prompt are drawn together: of equal pictures the difference is none."""
    table, features = made({"a": (50, 0.4), "photos": (90, 0.0)}, prompts="{n}")
    twin = table[table["folder"] == "a"].assign(folder="b")
    both = pd.concat([table, twin], ignore_index=True)
    record, _ = compared(both, np.concatenate([features, features[:50]]))
    assert record is not None
    a, b = (one["figures"] for one in record["folders"])
    assert {kind: (v["estimate"], v["low"]) for kind, v in a.items()} == {
        kind: (v["estimate"], v["low"]) for kind, v in b.items()
    }
    used = both[both["typicality"].notna()]
    assert set(used.loc[used["folder"] == "a", "image"]) == set(
        used.loc[used["folder"] == "b", "image"]
    )


def test_the_sample_is_of_equal_size_and_each_picture_has_a_nearest_photograph() -> None:
    table, features = made({"a": (30, 0.5), "b": (80, 0.5), "photos": (200, 0.0)})
    features[5] = features[150]  # a picture that is a photograph's twin
    compared(table, features)
    assert table.groupby("folder")["typicality"].count().to_dict() == {
        "a": 30,
        "b": 30,
        "photos": 0,
    }
    assert table.loc[5, "nearest_photograph"] == table.loc[150, "image"]
    assert table[["map_x", "map_y"]].notna().all(axis=None)
    assert (table.loc[table["folder"] == "photos", "nearest_photograph"] == "").all()


@pytest.mark.parametrize(
    ("sizes", "note"),
    [
        ({"a": (9, 0.0), "photos": (60, 0.0)}, "no folder has enough pictures"),
        ({"a": (50, 0.0), "photos": (19, 0.0)}, "19 photographs are too few (at least 20)"),
    ],
)
def test_too_few_pictures_have_no_distance(sizes: dict[str, tuple[int, float]], note: str) -> None:
    record, notes = compared(*made(sizes))
    assert record is None
    assert note in notes[-1]


def test_a_folder_of_too_few_is_left_out_and_limits_no_other() -> None:
    record, notes = compared(*made({"a": (9, 0.0), "b": (40, 0.0), "photos": (80, 0.0)}))
    assert record is not None
    assert record["n"] == 40
    assert [bool(one["figures"]) for one in record["folders"]] == [False, True]
    assert notes[0] == "distances: a has 9 pictures, fewer than 10: left out"


def test_what_does_not_count_is_in_no_sample() -> None:
    table, features = made({"a": (40, 0.5), "photos": (60, 0.0)})
    table.loc[:9, "status"] = "copy"
    features[:10] = np.nan
    record, _ = compared(table, features)
    assert record is not None
    assert record["n"] == 30
    assert table.loc[:9, "typicality"].isna().all()


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_card(tmp_path_factory.mktemp("cards"), "tiny", seed=3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))


def test_a_run_with_distances_is_written_read_and_not_computed_again(
    make_folder: FolderMaker, card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, photographs = make_folder("a", 10), make_folder("photos", 20)
    calls: Counter[str] = Counter()
    for name in ("read_bytes_and_hash", "decode"):
        real = getattr(pipeline, name)

        def counted(*given: object, name: str = name, real: Any = real, **more: object) -> Any:
            calls[name] += 1
            return real(*given, **more)

        monkeypatch.setattr(pipeline, name, counted)
    run = realbench.score(
        folder, reference=photographs, detectors=str(card), distances=True, out=tmp_path / "run"
    )
    assert list(run.distances["figure"])[:3] == ["auc", "fd", "kd"]
    assert calls == {"read_bytes_and_hash": 30, "decode": 30}  # for detectors and features
    written = pd.read_csv(tmp_path / "run" / "distances.csv")
    assert list(written["folder"].unique()) == ["a"]
    assert {"rank_low", "photographs_estimate", "n"} <= set(written)

    again = ScoreRun.read(tmp_path / "run")
    assert again.summary == run.summary
    assert again.features[DINO].shape == (30, 768)
    assert again.features[DINO] == pytest.approx(run.features[DINO], rel=1e-3, abs=1e-4)
    assert again.table["nearest_photograph"].tolist() == run.table["nearest_photograph"].tolist()
    html = write_score_report(again, tmp_path / "again.html").read_text()
    assert html.count('aria-label="a: KD, DINOv2"') == 1  # drawn beside its yardstick
    page = Page(html)
    assert "Distance from the photographs" in page.text
    assert "Fewer than 200 pictures" in page.text

    def no_network(*_: object) -> None:
        raise AssertionError("the features were known")

    monkeypatch.setattr("realbench.scoring.engine.load_features", no_network)
    second = realbench.score(folder, reference=photographs, detectors=str(card), distances=True)
    assert second.summary["distances"] == run.summary["distances"]
    (tmp_path / "run" / "features.safetensors").write_bytes(b"cut")
    with pytest.raises(RealBenchError, match=r"features.safetensors is damaged .*score again"):
        ScoreRun.read(tmp_path / "run")
    realbench.score(folder, reference=photographs, detectors=str(card), out=tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert not {"distances.csv", "features.safetensors"} & left


def test_distances_need_photographs(make_folder: FolderMaker, card: Path) -> None:
    with pytest.raises(UsageError, match="distances are from photographs"):
        realbench.score(make_folder("a", 2), detectors=str(card), distances=True)


def test_a_run_without_distances_has_no_trace_of_them(make_folder: FolderMaker, card: Path) -> None:
    run = realbench.score(make_folder("a", 2), detectors=str(card))
    assert run.summary["distances"] is None
    assert "typicality" not in run.table
    assert run.distances.empty
