"""The report on detectors in a real browser: on a desk and on a phone, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realbench.bench import bench
from tests.browser import assert_outlined, readable_page
from tests.fakes import make_card

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>" + "long-name" * 15


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real benchmark: two detectors, three generators, all degradations."""
    root = tmp_path_factory.mktemp("bench")
    rng = np.random.default_rng(0)
    folders = [root / name for name in ("photos", HOSTILE, "sdxl", "flux")]
    for folder in folders:
        folder.mkdir()
        for n in range(4):
            pixels = rng.integers(0, 256, (70, 90, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{n:04}.png")
    (folders[2] / "torn<script>.png").write_bytes(b"torn")
    cards = [make_card(root / "cards", "whole"), make_card(root / "cards", "crops", seed=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REALBENCH_CACHE", str(root / "cache"))
        bench(
            *folders[1:],
            real=folders[0],
            detectors=cards,
            perturb=True,
            sample=3,
            resamples=20,
            device="cpu",
            out=root / "run",
        )
    return root / "run" / "report.html"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_window_and_can_be_read(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    with readable_page(browser, report, width, scheme) as page:
        assert page.evaluate("document.images.length") == 0  # a folder's name is text, not a tag


def test_the_headings_form_an_outline_and_the_sections_are_reached(
    browser: Any, report: Path
) -> None:
    assert_outlined(browser, report)


def test_it_says_that_so_few_prompts_are_no_evidence(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(report.as_uri())
    assert "4 prompts" in page.locator(".warning", has_text="Few prompts").inner_text()
    page.close()


def test_names_in_a_table_that_scrolls_keep_their_words_whole(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(report.as_uri())
    names = page.locator("#generators table.list td bdi")
    assert set(names.all_inner_texts()) == {"whole", "crops", "ensemble"}
    assert names.evaluate_all("all => all.every(one => one.getClientRects().length === 1)")
    page.close()


def test_a_mark_stands_where_its_number_says(browser: Any, report: Path) -> None:
    """The first generator's first AUC: the interval's bar is as long as its numbers are apart."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(report.as_uri())
    drawn = page.locator("#generators .rows.series .row").first.locator("svg.plot")
    cell = page.locator("#generators table.list tbody tr").first.locator("td.num").first
    low, high = cell.locator("small").inner_text().split("–")
    ticks = page.locator("#generators .rows.series .head .axis text").all_text_contents()
    scale = drawn.bounding_box()["width"] / (float(ticks[-1]) - float(ticks[0]))
    bar = drawn.locator("line.bar, line.series0").first.bounding_box()
    assert bar["width"] == pytest.approx((float(high) - float(low)) * scale, abs=0.015 * scale)
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_curves_keep_their_labels_inside_their_panels(
    browser: Any, report: Path, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report.as_uri())
    panels = page.locator("#robustness figure svg")
    assert panels.count() == 6  # five kinds of degradations, and chains of them
    outside = page.evaluate(
        """() => [...document.querySelectorAll('#robustness figure svg')].flatMap(svg => {
          const box = svg.getBoundingClientRect();
          return [...svg.querySelectorAll('text')].filter(text => {
            const own = text.getBoundingClientRect();
            return own.left < box.left - 1 || own.right > box.right + 1;
          }).map(text => text.textContent);
        })"""
    )
    assert outside == []
    page.close()
