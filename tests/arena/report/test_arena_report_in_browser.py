"""The arena's report in a real browser, on a desk and on a phone, in light and in dark mode."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from realbench.arena.report.report import write_arena_report
from tests.arena.arenas import TestJudge, make_arena
from tests.browser import assert_outlined, readable_page

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>" + "long-name" * 20
REASON = "The hands have five fingers each, <b>and</b> the shadow agrees with the lamp. " * 8


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four contestants under three judges."""
    root = tmp_path_factory.mktemp("few")
    judges = [
        TestJudge("detectors", is_vlm=False, reason=None, probabilities=True),
        TestJudge("openai:" + HOSTILE, reason=REASON, bias=1.5, noise=2.0, invalid_every=40),
        TestJudge("human", orders=1, is_vlm=False, reason=None, noise=2.0),
    ]
    strengths = {"photos": 3.0, HOSTILE: 2.0, "sdxl": 1.0, "kandinsky": -2.0}
    run = make_arena(
        root / "images",
        strengths,
        reference="photos",
        judges=judges,
        n_prompts=12,
        prompt=HOSTILE,
        manifest={
            "notes": [HOSTILE],
            "prompts": {"dropped": {HOSTILE: [HOSTILE]}, "missing": {}},
            "stop_reason": "max-votes",
            "counts": {"pairs_open": 3},
        },
    )
    value = {"estimate": 0.6, "low": 0.5, "high": 0.7, "n": 72}
    pairs = [("detectors", judges[1].name), ("detectors", "human"), (judges[1].name, "human")]
    run.ratings["agreement"] = {
        "krippendorff_alpha": value,
        "pairs": [
            {"a": a, "b": b, "cohen_kappa": value, "agreement": value, "n": 72} for a, b in pairs
        ],
        "with_human": {"detectors": value, judges[1].name: value},
    }
    return write_arena_report(run, root)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty-seven contestants under one judge."""
    root = tmp_path_factory.mktemp("many")
    strengths = {f"some-text-to-image-model-{n:02d}": n / 8 for n in range(46)} | {"photos": 7.0}
    judge = TestJudge("detectors", is_vlm=False, reason=None, bias=0.2)
    run = make_arena(root / "images", strengths, reference="photos", judges=[judge], n_prompts=3)
    return write_arena_report(run, root)


@pytest.fixture(params=["few", "many"])
def report(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_page_fits_its_window_and_can_be_read(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    with readable_page(browser, report, width, scheme, unfold=True) as page:
        assert page.evaluate("document.images.length") >= 12


@pytest.mark.parametrize("width", [1280, 320])
def test_nothing_runs_into_its_neighbour(browser: Any, report: Path, width: int) -> None:
    """No text of the rows leaves its cell, and tick labels keep apart."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report.as_uri())
    crowded = """() => [...document.querySelectorAll('.axis')].filter(axis => {
      const boxes = [...axis.querySelectorAll('text')].map(t => t.getBoundingClientRect());
      return boxes.some((box, i) => i && box.left < boxes[i - 1].right + 1);
    }).map(axis => axis.textContent)"""
    assert page.evaluate(crowded) == []
    spilt = """() => [...document.querySelectorAll('.rows .row > span:not(.draw)')]
      .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 200))"""
    assert page.evaluate(spilt) == []
    page.close()


def test_on_a_phone_tables_wrap_instead_of_scrolling(browser: Any, report: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    cut = """() => [...document.querySelectorAll('.scroll:has(.list)')]
      .filter(e => e.scrollWidth > e.clientWidth).map(e => e.getAttribute('aria-label'))"""
    assert page.evaluate(cut) == []
    page.close()


def test_a_table_that_is_cut_shows_a_shade_at_its_edge(browser: Any, many: Path) -> None:
    """The pixels at the right edge darken while there is more to see, and no longer at its end."""
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(many.as_uri())
    box = page.locator("[aria-label='Win matrix']")
    box.scroll_into_view_if_needed()
    box.evaluate("box => box.querySelector('table').style.opacity = 0")

    def darkest() -> int:
        picture = Image.open(io.BytesIO(box.screenshot())).convert("L")
        # Inside of the box, whose outermost pixels may be those of what is beside it.
        inside = (picture.width - 8, 4, picture.width - 2, picture.height - 4)
        low, _ = picture.crop(inside).getextrema()
        return int(low)  # type: ignore[arg-type]

    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    assert darkest() < 225
    box.evaluate("box => box.scrollLeft = 9999")
    assert darkest() > 250
    page.close()


def test_the_matrix_scrolls_in_its_own_box(browser: Any, many: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(many.as_uri())
    box = "document.querySelector('#matrix .scroll')"
    assert page.evaluate(f"{box}.scrollWidth > {box}.clientWidth")
    assert page.evaluate(f"({box}.scrollLeft = 300, {box}.scrollLeft)") == 300
    head = "document.querySelector('#matrix tbody th').getBoundingClientRect().left"
    assert page.evaluate(head) >= 0  # the names stay in sight
    page.close()


def test_colours_follow_the_mode_and_paper_is_white(browser: Any, many: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(many.as_uri())
    cell = "getComputedStyle(document.querySelector('.heat .w10')).backgroundColor"
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(cell) == "rgb(60, 109, 150)"
    page.emulate_media(media="print")
    assert page.evaluate(cell) == "rgb(98, 152, 196)"
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.close()


def test_the_headings_form_an_outline_and_the_sections_are_reached(
    browser: Any, report: Path
) -> None:
    assert_outlined(browser, report)


def test_an_interval_is_as_wide_on_the_screen_as_its_numbers(browser: Any, few: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(few.as_uri())
    ticks = page.locator(".ladder .axis text").all_text_contents()
    low_tick, high_tick = (float(t.replace("−", "-")) for t in (ticks[0], ticks[-1]))
    for n in range(4):
        row = page.locator(".ladder .row").nth(n)
        drawn = row.locator("svg.plot").first.bounding_box()
        bar = row.locator("line.bar").evaluate("line => line.getBBox().width")
        numbers = row.locator(".value small").first.inner_text().replace(" to ", "–")
        low, high = (float(t.replace("−", "-")) for t in numbers.split("–"))
        scale = drawn["width"] / (high_tick - low_tick)
        assert bar == pytest.approx((high - low) * scale, abs=1.5 * scale + 0.5)
    page.close()
