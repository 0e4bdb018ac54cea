"""The report in a real browser, on a desk and on a phone, in light and in dark mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from realbench.scoring.report import write_score_report
from tests.browser import assert_outlined, readable_page
from tests.scoring.runs import make_run

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>" + "long-name" * 20
SCORES = [0.9, 0.2, 0.75, 0.4, 0.6, 0.1, 0.95, 0.33, 0.5, 0.8, 0.05, 0.7, 0.66, 0.3]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    folders = {
        "photos": [0.95] * 14,
        HOSTILE: SCORES,
        "sdxl": SCORES[::-1],
        "flux": [s / 2 for s in SCORES],
        "cascade": [s / 3 for s in SCORES],
        "kandinsky": [s / 9 for s in SCORES],
    }
    failures = [("sdxl", HOSTILE + ".png", "<script>alert(2)</script>")]
    run = make_run(root / "images", folders, reference="photos", failures=failures)
    return write_score_report(run, root)


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_page_fits_its_window_and_can_be_read(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    with readable_page(browser, report, width, scheme) as page:
        assert page.evaluate("document.images.length") > 40


def test_the_dark_page_is_dark_and_paper_is_white(browser: Any, report: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(20, 23, 26)"
    page.emulate_media(media="print")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.close()


def test_the_headings_form_an_outline_and_the_sections_are_reached(
    browser: Any, report: Path
) -> None:
    assert_outlined(browser, report)


def test_an_interval_is_as_wide_on_the_screen_as_its_numbers(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(report.as_uri())
    row = page.locator(".ranking .row").nth(1)
    drawn = row.locator("svg.plot").bounding_box()
    bar = row.locator("line.bar").bounding_box()
    low, high = row.locator(".value small").first.inner_text().split("–")
    ticks = page.locator(".ranking .axis text").all_text_contents()
    scale = drawn["width"] / (float(ticks[-1]) - float(ticks[0]))
    assert bar["width"] == pytest.approx((float(high) - float(low)) * scale, abs=0.012 * scale)
    page.close()
