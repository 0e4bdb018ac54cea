"""Which pictures a report shows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from realbench.report.gallery import extremes, load_pictures, pictures_per_row
from tests.scoring.runs import DETECTORS, make_run


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=30), st.integers(1, 6))
def test_extremes_are_the_extremes_and_no_image_comes_twice(scores: list[float], k: int) -> None:
    rows = pd.DataFrame({"realism": scores, "image": [f"{n:02d}" for n in range(len(scores))]})
    most, least = extremes(rows, k)
    shown = [*most["image"], *least["image"]]
    assert len(set(shown)) == len(shown) == min(len(scores), 2 * k)
    assert list(most["realism"]) == sorted(scores, reverse=True)[: len(most)]
    assert list(least["realism"]) == sorted(scores)[: len(least)]


@given(st.integers(1, 5000))
def test_the_number_of_pictures_is_bounded(n_folders: int) -> None:
    k = pictures_per_row(n_folders)
    assert 1 <= k <= 6
    assert 2 * k * min(n_folders, 60) <= 240


def test_a_picture_that_has_gone_is_shown_as_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"a": [0.2, 0.8]})
    run.paths["a", "0000.png"].unlink()
    pictures = load_pictures(run.table, DETECTORS, run.paths)
    assert pictures["a", "0000.png"].uri is None
    kept = pictures["a", "0001.png"]
    assert kept.uri is not None
    assert kept.uri.startswith("data:image/jpeg;base64,")
    assert kept.width * 24 == kept.height * 40
