"""What the browser tests of the reports share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# The lowest contrast between a text and the page, over all elements with text of their own.
LOWEST_CONTRAST = """() => {
  const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!color.endsWith(', 0)') && color !== 'transparent') return color;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  let lowest = [99, ''];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || element.closest('title')) continue;
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < lowest[0]) lowest = [contrast, element.outerHTML.slice(0, 120)];
  }
  return lowest;
}"""


@contextmanager
def readable_page(
    browser: Any, report: Path, width: int, scheme: str, *, unfold: bool = False
) -> Iterator[Any]:
    """Open a page, check that it fits and can be read, and yield it.

    No text is below the contrast of WCAG AA, all images load, nothing scrolls sideways, there is
    no script, and the page neither speaks up nor asks anything of the world outside.

    Args:
        unfold: open what is folded before the page is measured.
    """
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    heard: list[str] = []
    page.on("dialog", lambda dialog: heard.append(f"dialog: {dialog.message}"))
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("request", lambda request: heard.append(f"request: {request.url[:500]}"))
    page.goto(report.as_uri())
    page.wait_for_load_state("load")
    if unfold:
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrast, element = page.evaluate(LOWEST_CONTRAST)
    assert contrast >= 4.5, element
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    page.wait_for_function(f"{broken} === 0", timeout=10_000)
    assert page.evaluate("document.scripts.length") == 0
    yield page
    outside = [one for one in heard if "data:" not in one and report.as_uri() not in one]
    assert outside == []
    page.close()


def assert_outlined(browser: Any, report: Path) -> None:
    """Check that a page's headings form an outline, and that its links reach their sections."""
    page = browser.new_page()
    page.goto(report.as_uri())
    headings = "[...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))"
    levels = page.evaluate(headings)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    missing = "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.hash))"
    assert page.evaluate(f"{missing}.length") == 0
    page.close()
