"""What a table of scores says: folders, ranking, pairs, photographs, categories, notes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realbench.prompts import Prompt
from realbench.runs.files import json_bytes, read_table, table_csv
from realbench.scoring.summary import summarize


def table(
    folders: Mapping[str, Mapping[str, float | None]],
    called: Mapping[str, str] = MappingProxyType({}),
) -> pd.DataFrame:
    """Make a table from folder name to prompt id to realism; None is an unreadable image.

    ``called`` has the verdicts by folder and prompt.
    """
    rows = [
        {
            "folder": folder,
            "image": f"{prompt}.png",
            "prompt_id": prompt,
            "sha256": "0" * 64,
            "status": "unreadable" if score is None else "ok",
            "reason": "0 bytes" if score is None else "",
            "realism": np.nan if score is None else score,
            "net": np.nan if score is None else score,
            "disagreement": np.nan if score is None else 0.25,
            "verdict": "" if score is None else called.get(f"{folder}/{prompt}", ""),
        }
        for folder, scores in folders.items()
        for prompt, score in scores.items()
    ]
    return pd.DataFrame(rows)


def summary_of(
    folders: Mapping[str, Mapping[str, float | None]],
    reference: str | None = None,
    prompts: Sequence[Prompt] | None = None,
) -> dict[str, Any]:
    summary = summarize(
        table(folders),
        folders=[(name, f"/x/{name}") for name in folders if name != reference],
        reference=None if reference is None else (reference, f"/x/{reference}"),
        detectors=["net"],
        prompts=None if prompts is None else {prompt.id: prompt for prompt in prompts},
        seed=0,
    )
    json_bytes(summary)  # no NaN, no NumPy value
    return summary


def spread(center: float, count: int = 20, seed: int = 0) -> dict[str, float]:
    noise = np.random.default_rng(seed).uniform(-0.05, 0.05, count)
    return {f"p{n}": float(center + noise[n]) for n in range(count)}


def test_a_folder_has_its_mean_interval_and_counts() -> None:
    scores: dict[str, float | None] = {**spread(0.5, 10), "broken": None}
    (entry,) = summary_of({"a": scores})["folders"]
    values = np.array([value for value in scores.values() if value is not None])
    assert (entry["n"], entry["n_failed"], entry["n_prompts"]) == (10, 1, 10)
    assert entry["realism"]["estimate"] == pytest.approx(values.mean(), abs=1e-6)
    assert entry["realism"]["low"] < values.mean() < entry["realism"]["high"]
    assert entry["escape_rate"]["estimate"] == pytest.approx((values > 0.5).mean(), abs=1e-6)
    assert entry["detectors"]["net"] == entry["realism"]
    assert entry["disagreement"]["estimate"] == 0.25
    assert (entry["rank"], entry["rank_low"], entry["rank_high"]) == (1, 1, 1)
    assert entry["auc"] is None


def test_folders_that_differ_are_ranked_and_equal_ones_are_tied() -> None:
    folders = {"low": spread(0.2), "high": spread(0.8, seed=1), "same": spread(0.8, seed=2)}
    summary = summary_of(folders)
    rank = {e["folder"]: (e["rank_low"], e["rank_high"]) for e in summary["folders"]}
    assert rank == {"low": (3, 3), "high": (1, 2), "same": (1, 2)}
    assert sorted(entry["rank"] for entry in summary["folders"]) == [1, 2, 3]
    tied = {(pair["a"], pair["b"]): pair["tied"] for pair in summary["pairs"]}
    assert tied == {("low", "high"): False, ("low", "same"): False, ("high", "same"): True}
    for pair in summary["pairs"]:
        assert pair["paired"]
        assert pair["n_shared"] == 20
        assert pair["p_adjusted"] >= pair["p_value"]
        assert pair["low"] <= pair["difference"] <= pair["high"]


def test_prompts_that_are_not_shared_are_noted_and_pairs_use_the_rest() -> None:
    first = {"shared1": 0.2, "shared2": 0.3, "shared3": 0.25, "own": 0.9}
    second = {"shared1": 0.4, "shared2": 0.5, "shared3": 0.45, "b1": 0.0, "b2": 0.0}
    summary = summary_of({"a": first, "b": second})
    (pair,) = summary["pairs"]
    assert (pair["paired"], pair["n_shared"]) == (True, 3)
    assert pair["difference"] == pytest.approx(-0.2)  # the other prompts would say +0.14
    notes = " ".join(summary["notes"])
    assert "a: 1 of 4 prompt ids" in notes
    assert "b: 2 of 5 prompt ids" in notes
    apart = summary_of({"a": spread(0.2), "b": {f"q{n}": 0.8 for n in range(20)}})
    assert not apart["pairs"][0]["paired"]
    assert apart["pairs"][0]["n_shared"] == 0
    assert not apart["pairs"][0]["tied"]


def test_an_order_that_shared_prompts_contradict_is_left_open() -> None:
    shared = [f"p{n}" for n in range(8)]
    first = dict.fromkeys(shared, 0.1) | {f"easy{n}": 0.95 for n in range(30)}
    second = {name: 0.5 + n / 100 for n, name in enumerate(shared)}
    summary = summary_of({"a": first, "b": second})
    (pair,) = summary["pairs"]
    assert pair["difference"] < 0
    assert not pair["tied"]
    assert [(e["rank"], e["rank_low"], e["rank_high"]) for e in summary["folders"]] == [
        (1, 1, 2),
        (2, 1, 2),
    ]
    assert any("order is left open" in note for note in summary["notes"])


def test_photographs_are_compared_and_not_ranked() -> None:
    folders = {"a": spread(0.2), "photos": spread(0.9, seed=1)}
    summary = summary_of(folders, reference="photos")
    assert [entry["folder"] for entry in summary["folders"]] == ["a"]
    assert summary["reference"]["folder"] == "photos"
    assert summary["reference"]["realism"]["estimate"] == pytest.approx(0.9, abs=0.03)
    auc = summary["folders"][0]["auc"]
    assert auc["estimate"] == 1.0
    assert 0.5 < auc["low"] < auc["high"] == 1.0
    assert summary["pairs"] == []


def test_a_folder_without_a_readable_image_is_shown_and_not_ranked() -> None:
    summary = summary_of({"empty": {"x": None, "y": None}, "a": spread(0.4)})
    empty, other = summary["folders"]
    assert (empty["n"], empty["n_failed"], empty["rank"]) == (0, 2, None)
    assert empty["realism"]["estimate"] is None
    assert empty["disagreement"]["estimate"] is None
    assert other["rank"] == 1
    assert summary["pairs"] == []
    alone = summary_of({"empty": {"x": None}}, reference=None)
    assert alone["folders"][0]["rank"] is None
    assert (
        summary_of({"a": {"x": 0.4}, "photos": {"y": None}}, reference="photos")["folders"][0][
            "auc"
        ]
        is None
    )


def test_categories_and_prompts_without_images_are_reported() -> None:
    suite = [
        Prompt("p0", "a fox", "animals"),
        Prompt("p1", "a cat", "animals"),
        Prompt("p2", "a house", "buildings"),
        Prompt("absent", "a ship"),
    ]
    summary = summary_of({"a": {"p0": 0.1, "p1": 0.3, "p2": 0.8, "extra": 0.5}}, prompts=suite)
    (entry,) = summary["folders"]
    assert set(entry["categories"]) == {"animals", "buildings"}
    assert entry["categories"]["animals"]["estimate"] == pytest.approx(0.2)
    assert entry["categories"]["animals"]["n"] == 2
    notes = " ".join(summary["notes"])
    assert "no image for 1 prompt (absent)" in notes
    assert "1 prompt id not in the prompts file (extra)" in notes


scores_of_a_folder = st.dictionaries(
    st.sampled_from([f"p{n}" for n in range(8)]), st.none() | st.floats(0, 1), min_size=1
)


@given(st.dictionaries(st.sampled_from("abcde"), scores_of_a_folder, min_size=1))
def test_ranks_are_consistent_whatever_the_scores(
    folders: dict[str, dict[str, float | None]],
) -> None:
    summary = summary_of(folders)
    ranked = [entry for entry in summary["folders"] if entry["rank"] is not None]
    assert sorted(entry["rank"] for entry in ranked) == list(range(1, len(ranked) + 1))
    for entry in summary["folders"]:
        assert (entry["rank"] is None) == (entry["n"] == 0)
        assert entry["n"] + entry["n_failed"] == len(folders[entry["folder"]])
    for entry in ranked:
        assert 1 <= entry["rank_low"] <= entry["rank"] <= entry["rank_high"] <= len(ranked)
    by_rank = sorted(ranked, key=lambda entry: entry["rank"])
    means = [entry["realism"]["estimate"] for entry in by_rank]
    assert means == sorted(means, reverse=True)
    place = {entry["folder"]: entry for entry in ranked}
    for pair in summary["pairs"]:
        a, b = place[pair["a"]], place[pair["b"]]
        if not pair["tied"]:
            assert pair["p_adjusted"] < 0.05
            better, worse = (a, b) if pair["difference"] > 0 else (b, a)
            order_is_open = any(f"{pair['a']} and {pair['b']}" in n for n in summary["notes"])
            assert order_is_open == (better["rank"] > worse["rank"])
            # Not better.rank_high < worse.rank_high: pairs that share no prompt are compared on
            # other images, so a third folder may tie with the better and lose to the worse.
            assert better["rank_high"] < len(ranked)
            assert worse["rank_low"] > 1


def test_the_csv_keeps_awkward_names_and_leaves_missing_cells_empty() -> None:
    made = table({'a "b", c': {"x,y": 0.123456789, "z": None}})
    lines = table_csv(made).decode().splitlines()
    assert lines[1].endswith(",ok,,0.123457,0.123457,0.250000,")
    assert lines[2].endswith(",unreadable,0 bytes,,,,")
    assert lines[1].startswith('"a ""b"", c","x,y.png",')


def test_json_refuses_what_is_not_json() -> None:
    assert json.loads(json_bytes({"é": 1})) == {"é": 1}
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"x": float("nan")})


@given(
    st.lists(
        st.text(st.sampled_from("=+-@\uff1d\uff0b\uff0d\uff20\u2212'\",a1 \t\n"), max_size=5),
        min_size=1,
        max_size=5,
    )
)
def test_no_cell_is_a_formula_and_every_text_is_read_back(names: list[str]) -> None:
    made = table({name: {"NA": 0.5, "001": None} for name in names})
    made["image"] = made["folder"]
    data = table_csv(made)
    for row in csv.DictReader(io.StringIO(data.decode(), newline="")):
        assert row["folder"].lstrip(" ")[:1] not in tuple("=+-@\uff1d\uff0b\uff0d\uff20\u2212\t\n")
    texts = ("folder", "image", "prompt_id", "sha256", "status", "reason")
    read = read_table(data, texts)
    assert {name: read[name].tolist() for name in texts} == {
        name: made[name].tolist() for name in texts
    }
    np.testing.assert_array_equal(read["realism"], made["realism"])
