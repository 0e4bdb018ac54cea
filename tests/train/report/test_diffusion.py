"""The report of a training: what it says, and how it looks in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realbench.errors import UsageError
from realbench.train.report import render_report, write_report
from realbench.train.report.sections import Line, fitted_scale, line_chart
from tests.browser import assert_outlined, readable_page
from tests.pages import Page
from tests.train.report.trainings import add_verdict, make_training

HOSTILE = "<img src=x onerror=alert(1)>" + "long-name" * 20


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_training(tmp_path_factory.mktemp("run"), name=HOSTILE)
    add_verdict(run, failed=True)
    return write_report(run)


def test_it_says_what_moved_and_by_how_much(tmp_path: Path) -> None:
    page = Page(render_report(make_training(tmp_path)))
    assert "The reward rose by 0.20; the held-out score fell by 0.10" in page.text
    assert "Iteration 40: the reward rises while the held-out score falls" in page.text
    assert "640, in groups of 8" in page.text
    assert "Iterations took 3,360 s Evaluations took 100 s" in page.text
    assert "trained, too, 8 times" in page.text
    images = [dict(attributes)["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 5 * 8
    assert all(str(one).startswith("data:image/jpeg;base64,") for one in images)
    assert "× 10⁻⁵" in page.text  # of the KL
    assert "nan" not in page.text.lower().replace("finance", "")


def test_a_change_within_chance_is_no_finding(tmp_path: Path) -> None:
    page = Page(render_report(make_training(tmp_path, rise=0.0001)))
    assert "The reward did not move measurably (0.000" in page.text


def test_a_guards_verdict_is_shown_with_its_bounds(tmp_path: Path) -> None:
    plain = Page(render_report(make_training(tmp_path)))
    assert "Quality guard" not in plain.text
    add_verdict(tmp_path)
    page = Page(render_report(tmp_path))
    assert "Passed: no measure's mean has left the range of photographs" in page.text
    assert "a share of 0.875 is within that range before the training, and 0.750" in page.text
    assert "sharpness tiny part of the reward within 3.000 3.000 2.500–9.000" in page.text
    assert "diversity outside, no further than before 0.400 0.100 at least 0.200" in page.text
    assert "how much neighbouring pixels differ photographs" in page.text  # above its plot
    add_verdict(tmp_path, failed=True)
    page = Page(render_report(tmp_path))
    assert "Not passed: the mean of diversity has left the range" in page.text
    assert "diversity worse than before 0.400" in page.text


def test_it_says_how_the_run_is_made_again(tmp_path: Path) -> None:
    page = Page(render_report(make_training(tmp_path)))
    assert (
        "accelerate launch --num_processes 8 -m realbench.cli.train diffusion --config config.toml "
        "--out another-run"
    ) in page.text
    assert 'source = "tiny"' in page.text
    assert "saved as config.toml" in page.text
    add_verdict(tmp_path)
    page = Page(render_report(tmp_path))
    assert "realgen-train demo --seed 3" in page.text
    assert "saved as config.toml" not in page.text


def test_what_was_not_measured_has_no_plot(tmp_path: Path) -> None:
    make_training(tmp_path)
    manifest = json.loads((tmp_path / "run.json").read_text())
    manifest["config"]["loss"]["kl"] = 0.0
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    page = Page(render_report(tmp_path))
    assert "KL to the base model" not in page.text
    assert "divergence from the base model is not measured" in page.text


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    make_training(tmp_path, iterations=40)
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0] + '{"iteration": 1, "rew')
    page = Page(render_report(tmp_path))
    assert "has not been evaluated twice yet" in page.text
    assert "running, or cut off" in page.text


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of a realgen-train run"):
        write_report(tmp_path)
    (make_training(tmp_path, iterations=1) / "log.jsonl").write_text("")
    with pytest.raises(UsageError, match="without a log"):
        write_report(tmp_path)


@example([2.225073858507e-311], False, 1e-12)
@given(
    st.lists(st.floats(-1e12, 1e12), max_size=6), st.booleans(), st.sampled_from([1e-12, 1.0, 1e6])
)
def test_an_axis_holds_its_values_with_few_ticks(
    values: list[float], zero: bool, unit: float
) -> None:
    scaled = [value * unit for value in values]
    scale = fitted_scale(scaled, zero=zero)
    assert 2 <= len(scale.ticks) <= 7
    slack = 1e-5 * (scale.high - scale.low)
    assert all(scale.low - slack <= value <= scale.high + slack for value in scaled)
    assert scale.low < scale.high


def test_long_runs_are_averaged_and_gaps_left_out() -> None:
    points = [(n, n / 1000 if n % 2 else None, None, float("nan")) for n in range(1000)]
    drawn = str(line_chart([Line("a", points)], width=300, height=100, label="x"))
    assert drawn.count("L") < 250
    assert "nan" not in drawn
    nothing = str(line_chart([Line("a", [])], width=300, height=100, label="x"))
    assert "nan" not in nothing


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_page_fits_its_window_and_can_be_read(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    with readable_page(browser, report, width, scheme):
        pass


@pytest.mark.browser
def test_the_headings_form_an_outline(browser: Any, report: Path) -> None:
    assert_outlined(browser, report)
