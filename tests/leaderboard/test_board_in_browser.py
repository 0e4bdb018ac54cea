"""A board's page in a real browser: on a desk, on a phone, dark, hostile and without script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from realbench.leaderboard.page import build_board
from tests.browser import LOWEST_CONTRAST
from tests.leaderboard.boards import fill_board

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>"
STRENGTHS = {
    "Aurora Photo 2": 2.3,
    "borealis-xl": 0.4,
    "Cirrus": 0.3,
    HOSTILE: -0.8,
    "Longest-name-of-a-model-that-anybody-has-ever-thought-of-and-put-on-a-board-v1.0": -1.9,
}
META = {"Cirrus": {"organisation": "Weather Lab", "licence": "Apache-2.0", "parameters": "12B"}}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill_board(tmp_path_factory.mktemp("page"), STRENGTHS, meta=META)
    samples = folder / "samples" / "cirrus"
    samples.mkdir(parents=True)
    for n in range(3):
        Image.new("RGB", (640, 400 + 80 * n), (40 * n, 90, 120)).save(samples / f"{n:03d}.png")
    build_board(folder)
    return folder / "index.html"


class Heard:
    """What a page must not do: complain, ask for anything elsewhere, or run what is not ours."""

    def __init__(self, page: Any, own: str) -> None:
        self.all: list[str] = []
        page.on("console", lambda message: self.all.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.all.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.all.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self._request(request.url, own))

    def _request(self, url: str, own: str) -> None:
        if not url.startswith("data:") and url.split("#")[0] != own:
            self.all.append(f"request: {url[:80]}")


def names_of(page: Any) -> list[str]:
    found: list[str] = page.locator("#board tbody.models tr:visible .who .name").all_inner_texts()
    return found


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_the_page_fits_its_window_and_can_be_read(
    browser: Any,
    board: Path,
    width: int,
    scheme: str,
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    heard = Heard(page, board.as_uri())
    page.goto(board.as_uri())
    page.wait_for_load_state("load")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrast, element = page.evaluate(LOWEST_CONTRAST)
    assert contrast >= 4.5, element
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    page.evaluate("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
    page.wait_for_function(f"{broken} === 0", timeout=10_000)
    assert page.evaluate("document.images.length") == 3
    assert heard.all == []
    page.close()


def test_columns_sort_both_ways_and_photographs_stay(browser: Any, board: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    heard = Heard(page, board.as_uri())
    page.goto(board.as_uri())
    ranking = names_of(page)
    assert ranking[0] == "Aurora Photo 2"
    page.locator("#board th", has_text="Model").get_by_role("button").click()
    assert names_of(page) == sorted(ranking, key=str.lower)
    realism = page.locator("#board th[data-key=main]")
    realism.get_by_role("button").click()
    assert realism.get_attribute("aria-sort") == "descending"
    means = page.locator("#board tbody.models td.main b").all_inner_texts()
    assert means == sorted(means, reverse=True)
    realism.get_by_role("button").click()
    assert realism.get_attribute("aria-sort") == "ascending"
    means = page.locator("#board tbody.models td.main b").all_inner_texts()
    assert means == sorted(means)
    assert page.locator("#board tbody").first.inner_text().startswith(("–", "not ranked"))
    page.locator("#grid th[data-key=k2]").get_by_role("button").click()
    cells = page.locator("#grid tbody tr td:nth-child(3)").all_inner_texts()
    assert cells == sorted(cells, reverse=True)
    page.keyboard.press("Enter")  # the button has the focus: the keyboard sorts, too
    assert page.locator("#grid th[data-key=k2]").get_attribute("aria-sort") == "ascending"
    assert heard.all == []
    page.close()


def test_a_phone_sorts_by_a_list(browser: Any, board: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(board.as_uri())
    row = page.locator("#row-borealis-xl")
    assert row.locator("svg.plot").bounding_box()["width"] > 330  # the interval spans the page
    top = row.bounding_box()["y"]
    assert row.locator(".name").bounding_box()["y"] - top < 20  # and stands below the name
    page.get_by_label("Sort by").select_option("name down")
    assert names_of(page) == sorted(STRENGTHS, key=str.lower, reverse=True)
    page.get_by_label("Sort by").select_option("rank up")
    assert names_of(page)[0] == "Aurora Photo 2"
    page.close()


def test_the_filter_finds_names_and_makers(browser: Any, board: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(board.as_uri())
    page.get_by_label("Filter").fill("weather apache")
    assert names_of(page) == ["Cirrus"]
    assert page.locator("#shown").inner_text() == "1 of 5 models"
    assert page.locator("#grid tbody tr:visible").count() == 1
    assert page.locator("details.entry:visible").count() == 2  # and the photographs
    page.get_by_label("Filter").fill("<IMG")
    assert names_of(page) == [HOSTILE]
    page.get_by_label("Filter").fill("")
    assert len(names_of(page)) == 5
    page.close()


def test_a_link_to_a_model_opens_it(browser: Any, board: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{board.as_uri()}#model-cirrus")
    assert page.locator("#model-cirrus").evaluate("one => one.open")
    page.locator("#board a", has_text="borealis-xl").click()
    page.wait_for_function("document.getElementById('model-borealis-xl').open")
    page.close()


def test_without_script_it_is_a_plain_table(browser: Any, board: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(board.as_uri())
    assert page.locator("#board tbody.models tr").count() == 5
    assert page.locator("#controls").is_hidden()
    assert page.locator("#board button").count() == 0
    page.locator("#model-cirrus summary").click()
    assert page.locator("#model-cirrus").get_by_text("Weather Lab").is_visible()
    context.close()


def test_the_policy_keeps_other_scripts_out(browser: Any, board: Path, tmp_path: Path) -> None:
    attack = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'></main>"
    changed = tmp_path / "changed.html"
    changed.write_text(board.read_text().replace("</main>", attack))
    page = browser.new_page()
    page.goto(changed.as_uri())
    page.wait_for_load_state("load")
    assert page.evaluate("window.hacked") is None
    assert page.locator("#controls").is_visible()  # ours still runs
    page.close()


def test_an_interval_is_as_wide_on_the_screen_as_its_numbers(browser: Any, board: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(board.as_uri())
    row = page.locator("#row-borealis-xl")
    drawn = row.locator("svg.plot").bounding_box()
    bar = row.locator("line.bar").bounding_box()
    low, high = row.locator("td.main small").inner_text().split("–")
    ticks = page.locator("#board thead .axis text").all_text_contents()
    scale = drawn["width"] / (float(ticks[-1]) - float(ticks[0]))
    assert bar["width"] == pytest.approx((float(high) - float(low)) * scale, abs=2.5)
    page.close()
