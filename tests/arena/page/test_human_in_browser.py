"""A person judges in a real browser: keys, undo, zoom, resume, and what lands in the run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest
from PIL import Image

from realbench.arena.judges import JudgeOptions
from realbench.arena.judges.human import HumanJudge
from realbench.arena.run import ArenaRun, arena
from tests.cli.commands import command

sync_api = pytest.importorskip("playwright.sync_api", reason="needs the test extra's Playwright")
expect = sync_api.expect
expect.set_options(timeout=30_000)  # a busy machine is no failure

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CHROMIUM = next(
    (found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]

RED, BLUE = "zebra-model", "quokka-model"
PROMPT = "<img src=x onerror=alert(1)> a <b>fox</b> & hens\nat dawn"
ENABLED = '.choice[aria-disabled="false"]'

# The color in the middle of each picture that is shown.
COLORS = """() => [...document.querySelectorAll('.view img')].map(image => {
  const canvas = new OffscreenCanvas(1, 1), brush = canvas.getContext('2d');
  const [x, y] = [image.naturalWidth / 2, image.naturalHeight / 2];
  brush.drawImage(image, x, y, 1, 1, 0, 0, 1, 1);
  return [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3);
})"""

# Scale and shift of each picture, the shift in shares of the picture's own size.
TRANSFORMS = """() => [...document.querySelectorAll('.view img')].map(image => {
  const m = new DOMMatrix(getComputedStyle(image).transform);
  return [m.a, m.e / image.clientWidth / m.a, m.f / image.clientHeight / m.a];
})"""

# Left, top, right and bottom of what must not overlap.
CONTENTS = """() => ['#progress', '#voting h1', '.tools', '#stage', '#choices'].map(name => {
  const content = document.createRange();
  content.selectNodeContents(document.querySelector(name));
  const box = content.getBoundingClientRect();
  return [box.left, box.top, box.right, box.bottom];
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    troubles: list[str] = []
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text))
    yield page
    page.close()
    # Chromium reports refused connections and answers such as 409 by itself.
    assert [one for one in troubles if "Failed to load resource" not in one] == []


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Six prompts of two contestants, one red and one blue, of different sizes and formats."""
    prompts = []
    for number in range(6):
        prompts.append({"id": f"scene-{number}", "prompt": PROMPT})
        for name, color, size in ((RED, (200, 20, 20), (96, 64)), (BLUE, (20, 20, 200), (48, 64))):
            (tmp_path / name).mkdir(exist_ok=True)
            # A shade of its own for every prompt tells the pairs apart.
            shade = tuple(value + 5 * number for value in color)
            Image.new("RGB", size, shade).save(tmp_path / name / f"scene-{number}.png")
    lines = "\n".join(json.dumps(prompt) for prompt in prompts)
    (tmp_path / "prompts.jsonl").write_text(lines, encoding="utf-8")
    return [tmp_path / RED, tmp_path / BLUE]


class Sitting:
    """A run with the human judge, in the background."""

    def __init__(self, pool: ThreadPoolExecutor, folders: list[Path], out: Path) -> None:
        addresses: SimpleQueue[str] = SimpleQueue()
        judge = HumanJudge(JudgeOptions(open_browser=False), announce=addresses.put)
        self.out = out
        self.result: Future[ArenaRun] = pool.submit(
            arena,
            *folders,
            judge=judge,
            prompts=folders[0].parent / "prompts.jsonl",
            out=out,
            resamples=20,
            options=JudgeOptions(cache=False),
        )
        self.result.add_done_callback(lambda _: addresses.put("ended"))
        self.url = addresses.get(timeout=60)
        if self.url == "ended":
            self.result.result()

    def log(self) -> list[dict[str, Any]]:
        return read_log(self.out)


def read_log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "votes.jsonl").read_text().splitlines()]


@pytest.fixture
def sit(folders: list[Path], tmp_path: Path) -> Iterator[Callable[[], Sitting]]:
    sittings: list[Sitting] = []
    with ThreadPoolExecutor(2) as pool:

        def start() -> Sitting:
            sittings.append(Sitting(pool, folders, tmp_path / "run"))
            return sittings[-1]

        yield start
        for one in sittings:
            if not one.result.done():  # a test that failed half-way must not wait for ever
                with suppress(httpx.HTTPError):
                    httpx.post(f"{one.url}finish", json={}, timeout=5)


def is_red(color: list[int]) -> bool:
    return color[0] > color[2]


def colors(page: Any) -> list[list[int]]:
    """Wait until a pair can be judged; return the colors of its two pictures."""
    expect(page.locator(ENABLED)).to_have_count(3)
    found = page.evaluate(COLORS)
    assert sorted(map(is_red, found)) == [False, True]
    return list(found)


def press_for_red(page: Any) -> None:
    page.keyboard.press("ArrowLeft" if is_red(colors(page)[0]) else "ArrowRight")


def expect_votes(page: Any, n: int, total: int = 6) -> None:
    expect(page.locator("#done")).to_have_text(f"{n} / {total}")


def winner(vote: dict[str, Any]) -> str:
    return "tie" if vote["verdict"] == "tie" else str(vote[vote["verdict"]])


# --- Voting ------------------------------------------------------------------------------------


def test_votes_by_key_land_with_their_winner_though_the_sides_are_random(
    page: Any, sit: Callable[[], Sitting]
) -> None:
    sitting = sit()
    page.goto(sitting.url)
    sides = []
    for number in range(6):
        sides.append(is_red(colors(page)[0]))
        if number == 3:
            page.keyboard.press("ArrowDown")
        else:
            press_for_red(page)
        expect_votes(page, number + 1)
        assert len(sitting.log()) == number + 1  # what the page confirms is on disk
    assert len(set(sides)) == 2
    expect(page.locator("#end-title")).to_have_text("That was the last pair")
    page.keyboard.press("Enter")  # the button to finish has the focus
    expect(page.locator("#end-title")).to_have_text("Thank you")
    run = sitting.result.result(30)
    assert run.manifest["stop_reason"] == "complete"
    votes = sitting.log()
    assert [winner(vote) for vote in votes] == [RED, RED, RED, "tie", RED, RED]
    assert [vote["first"] == RED for vote in votes] == sides
    assert all(0 < vote["seconds"] < 60 for vote in votes)
    best = run.ratings["judges"]["human"]["ratings"][0]
    assert (best["contestant"], best["wins"], best["ties"]) == (RED, 5, 1)
    assert (sitting.out / "ratings.json").is_file()


def test_whose_pictures_they_are_is_nowhere(page: Any, sit: Callable[[], Sitting]) -> None:
    seen: list[bytes] = []

    def keep(response: Any) -> None:
        seen.extend((response.url.encode(), repr(response.headers).encode(), response.body()))

    page.on("response", keep)
    sitting = sit()
    page.goto(sitting.url)
    for number in range(6):
        press_for_red(page)
        expect_votes(page, number + 1)
        seen.append(page.content().encode())
    page.keyboard.press("Enter")
    expect(page.locator("#end-title")).to_have_text("Thank you")
    everything = b"".join(seen)
    assert len(seen) > 60
    assert b"PNG" in everything
    assert b"fox" in everything
    for secret in (RED, BLUE, "zebra", "quokka", "scene", "contestant", str(sitting.out.parent)):
        assert secret.encode() not in everything, secret


def test_markup_in_a_prompt_stays_text(page: Any, sit: Callable[[], Sitting]) -> None:
    page.goto(sit().url)
    colors(page)
    assert page.locator("#prompt-text").evaluate("e => e.textContent") == PROMPT
    assert page.locator("#prompt b, #prompt img").count() == 0


def test_undo_shows_the_pair_again_and_the_vote_does_not_count(
    page: Any, sit: Callable[[], Sitting]
) -> None:
    sitting = sit()
    page.goto(sitting.url)
    first = colors(page)
    page.keyboard.press("Backspace")  # nothing to take back: nothing happens
    page.keyboard.press("ArrowLeft" if not is_red(first[0]) else "ArrowRight")  # blue, by mistake
    expect_votes(page, 1)
    second = colors(page)
    assert second != first
    page.keyboard.press("u")
    expect_votes(page, 0)
    assert colors(page) == first
    press_for_red(page)
    expect_votes(page, 1)
    for number in range(1, 6):
        press_for_red(page)
        expect_votes(page, number + 1)
    page.get_by_role("button", name="Undo the last vote").click()  # of the last pair, too
    expect_votes(page, 5)
    colors(page)
    page.keyboard.press("ArrowDown")
    expect_votes(page, 6)
    page.get_by_role("button", name="Finish", exact=True).click()
    run = sitting.result.result(30)
    log = sitting.log()
    assert [log[1]["retracts"], log[8]["retracts"]] == [log[0]["id"], log[7]["id"]]
    assert sum("retracts" in line for line in log) == 2
    assert winner(log[0]) == BLUE
    best = run.ratings["judges"]["human"]["ratings"][0]
    assert (best["contestant"], best["wins"], best["ties"], best["losses"]) == (RED, 5, 1, 0)


def test_one_press_is_one_vote(page: Any, browser: Any, sit: Callable[[], Sitting]) -> None:
    sitting = sit()
    page.goto(sitting.url)
    colors(page)
    for _ in range(5):  # a key that is held down repeats
        page.keyboard.down("ArrowLeft")
    expect_votes(page, 1)
    page.keyboard.up("ArrowLeft")
    colors(page)
    page.locator('[data-choice="right"]').click()
    expect_votes(page, 2)
    colors(page)
    page.keyboard.press("Space")  # zooms: the button that was clicked has not kept the focus
    expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Alt+ArrowRight")  # the browser's
    other = browser.new_page()
    other.goto(sitting.url)
    colors(other)
    other.keyboard.press("ArrowDown")
    expect_votes(other, 3)
    other.close()
    page.keyboard.press("ArrowLeft")  # on a pair that is judged by now
    expect(page.get_by_role("alert")).to_contain_text("judged already")
    expect_votes(page, 3)
    assert len(sitting.log()) == 3


def test_the_next_pair_is_loaded_before_the_vote(page: Any, sit: Callable[[], Sitting]) -> None:
    page.goto(sit().url)
    colors(page)
    page.wait_for_load_state("networkidle")
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url))
    upcoming = page.evaluate("fetch('state').then(r => r.json())")["pairs"][1]
    page.keyboard.press("ArrowLeft")
    expect_votes(page, 1)
    colors(page)
    shown = page.eval_on_selector_all(".view img", "all => all.map(i => i.getAttribute('src'))")
    assert shown == [upcoming["left"], upcoming["right"]]
    assert [url for url in loaded if url.endswith(tuple(shown))] == []


# --- Zoom --------------------------------------------------------------------------------------


def test_zoom_shows_the_same_point_of_both(page: Any, sit: Callable[[], Sitting]) -> None:
    page.goto(sit().url)
    colors(page)
    whole = [[1, 0, 0]] * 2
    assert page.evaluate(TRANSFORMS) == whole

    def assert_alike(*, above: float = 1.0) -> list[float]:
        (one, two) = page.evaluate(TRANSFORMS)
        assert one[0] == two[0] > above
        assert one[2] == pytest.approx(two[2], abs=1e-3)  # they differ in width alone
        return list(one)

    box = page.locator("#view-b").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.click(middle[0], middle[1] - 0.25 * box["height"])
    clicked = assert_alike()
    assert clicked[2] > 0  # what was clicked on, above the middle, moved down with both
    page.mouse.move(*middle)
    page.mouse.wheel(0, -200)
    page.wait_for_timeout(50)
    wheeled = assert_alike(above=clicked[0])
    page.mouse.down()
    page.mouse.move(middle[0], middle[1] - 60, steps=4)
    page.mouse.up()
    dragged = assert_alike()
    assert dragged[0] == wheeled[0]
    assert dragged[2] < wheeled[2]
    page.mouse.click(*middle)
    assert page.evaluate(TRANSFORMS) == whole
    for key in ("z", "Space"):
        page.keyboard.press(key)
        expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("Escape")
        assert page.evaluate(TRANSFORMS) == whole
    page.keyboard.press("z")
    page.keyboard.press("ArrowLeft")  # votes while zoomed, and the next pair is whole
    expect_votes(page, 1)
    colors(page)
    assert page.evaluate(TRANSFORMS) == whole


def test_a_picture_cannot_be_dragged_out_of_sight(page: Any, sit: Callable[[], Sitting]) -> None:
    page.goto(sit().url)
    colors(page)
    box = page.locator("#view-a").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.click(*middle)
    for _ in range(5):
        page.mouse.move(*middle)
        page.mouse.down()
        page.mouse.move(middle[0] + 300, middle[1] + 300)
        page.mouse.up()
    for view in ("#view-a", "#view-b"):
        outer = page.locator(view).bounding_box()
        inner = page.locator(f"{view} img").bounding_box()
        assert inner["y"] == pytest.approx(outer["y"], abs=1)
        assert inner["x"] <= outer["x"] + max(0, outer["width"] - inner["width"]) / 2 + 1


# --- Going on ----------------------------------------------------------------------------------


def test_a_reload_goes_on_at_the_same_pair(page: Any, sit: Callable[[], Sitting]) -> None:
    sitting = sit()
    page.goto(sitting.url)
    for number in range(2):
        press_for_red(page)
        expect_votes(page, number + 1)
    third = colors(page)
    page.reload()
    assert colors(page) == third
    expect_votes(page, 2)
    page.keyboard.press("Control+z")
    expect_votes(page, 1)
    assert len(sitting.log()) == 3


def test_finish_for_now_ends_the_run_and_another_goes_on(
    page: Any, sit: Callable[[], Sitting]
) -> None:
    sitting = sit()
    page.goto(sitting.url)
    for number in range(4):  # two pairs are left, which the page has loaded
        press_for_red(page)
        expect_votes(page, number + 1)
    page.get_by_role("button", name="Finish for now").click()
    page.get_by_role("button", name="Keep judging").click()
    page.get_by_role("button", name="Finish for now").click()
    page.locator("#stop-yes").click()
    expect(page.locator("#end-text")).to_contain_text("4 votes of this session are saved")
    expect(page.locator("#end-note")).to_contain_text("run the same realbench command again")
    run = sitting.result.result(30)
    assert run.manifest["stop_reason"] == "interrupted"
    assert run.manifest["counts"]["pairs_open"] == 2
    assert run.ratings["judges"]["human"]["n_comparisons"] == 4
    later = sit()
    assert later.url != sitting.url
    page.goto(later.url)
    colors(page)
    expect_votes(page, 4)
    expect(page.locator("#session")).to_have_text("0 this session")
    for number in range(4, 6):
        press_for_red(page)
        expect_votes(page, number + 1)
    page.keyboard.press("Enter")
    run = later.result.result(30)
    assert run.manifest["stop_reason"] == "complete"
    log = later.log()
    assert len({vote["prompt_id"] for vote in log}) == len(log) == 6
    assert {winner(vote) for vote in log} == {RED}


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
def test_ctrl_c_keeps_the_votes_and_the_page_says_that_it_is_over(
    page: Any, folders: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ["--judge", "human", "--no-browser", "--out", out, "--resamples", 20]
    environment = os.environ | {"REALBENCH_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        command("arena", *folders, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stderr is not None
        url = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+", line)))
        page.goto(url)
        for number in range(3):
            press_for_red(page)
            expect_votes(page, number + 1)
        colors(page)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "3 votes are kept" in errors
    assert [winner(vote) for vote in read_log(out)] == [RED] * 3
    ratings = json.loads((out / "ratings.json").read_text())
    assert ratings["judges"]["human"]["n_comparisons"] == 3
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("alert")).to_contain_text("no longer running")
    expect_votes(page, 3)


# --- Looks -------------------------------------------------------------------------------------


def test_everything_fits_the_window(browser: Any, sit: Callable[[], Sitting]) -> None:
    sitting = sit()
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(sitting.url)
        for size in ((390, 844), (320, 568), (844, 390), (768, 1024), (1280, 800)):
            assert_fits(page, *size)
        color = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert color == {"light": "rgb(243, 243, 243)", "dark": "rgb(23, 23, 23)"}[scheme]
        page.close()


def assert_fits(page: Any, width: int, height: int) -> None:
    """All of it is in the window, and the pictures are alike and take most of it."""
    page.set_viewport_size({"width": width, "height": height})
    colors(page)
    size = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    assert page.evaluate(size) == [width, height]
    a, b = (page.locator(view).bounding_box() for view in ("#view-a", "#view-b"))
    assert a["width"] == pytest.approx(b["width"], abs=0.1)
    assert a["height"] == pytest.approx(b["height"], abs=0.1)
    if width < height:
        assert b["y"] >= a["y"] + a["height"]
    else:
        assert b["x"] >= a["x"] + a["width"]
    assert a["width"] * a["height"] > 0.2 * width * height
    for one, other in combinations(page.evaluate(CONTENTS), 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for button in page.locator(".choice").all():
        box = button.bounding_box()
        assert box["height"] >= 44
        assert box["y"] + box["height"] <= height


def test_fingers_vote_and_zoom(browser: Any, sit: Callable[[], Sitting]) -> None:
    sitting = sit()
    page = browser.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.goto(sitting.url)
    red_above = is_red(colors(page)[0])
    page.locator("#view-a").tap()
    expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "true")
    page.locator("#view-b").tap()
    expect(page.locator("#zoom")).to_have_attribute("aria-pressed", "false")
    page.locator('[data-choice="left"]' if red_above else '[data-choice="right"]').tap()
    expect_votes(page, 1)
    colors(page)
    page.get_by_role("button", name="Undo").tap()
    expect_votes(page, 0)
    page.close()
    assert winner(sitting.log()[0]) == RED


def test_the_page_can_be_used_and_heard_without_a_mouse(
    page: Any, sit: Callable[[], Sitting]
) -> None:
    page.goto(sit().url)
    colors(page)
    assert page.locator(".view img").evaluate_all("all => all.map(i => i.alt)") == [
        "Image A",
        "Image B",
    ]
    page.get_by_role("button", name="B looks more real").focus()
    page.keyboard.press("Enter")
    expect_votes(page, 1)
    expect(page.get_by_role("status")).to_have_text("Saved: B.")
    focused = "document.activeElement.dataset.choice"
    assert page.evaluate(focused) == "right"  # who tabs does not start anew for each pair
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    progress = page.get_by_role("progressbar")
    expect(progress).to_have_attribute("aria-valuetext", "1 of 6, 1 in this session")
    page.emulate_media(reduced_motion="reduce")
    colors(page)
    page.keyboard.press("ArrowLeft")
    expect_votes(page, 2)
    colors(page)
    assert page.evaluate("document.getAnimations().length") == 0
