"""A board's ``index.html``: one file that needs no network, and sorts and filters by itself."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from realbench.images import EXTENSIONS, thumbnail_jpeg
from realbench.leaderboard.board import SAMPLES
from realbench.leaderboard.standings import Row, Standings
from realbench.leaderboard.tables import (
    agreement_text,
    category_columns,
    count_text,
    ranks_text,
    reading,
    span_text,
    summary_columns,
    title_of,
    value_text,
)
from realbench.report import plots
from realbench.report.wording import THIN, listing
from realbench.text import visible

SAMPLES_SHOWN = 6
_SAMPLE_SIDE = 320  # pixels


def render_board(standings: Standings) -> str:
    """Return the page; what is not markup of ours is escaped, and only our own script may run."""
    css, script = _asset("realbench.report", "report.css"), _asset(__package__, "board.js")
    css += _asset(__package__, "board.css")
    columns, main = summary_columns(standings), standings.board.settings.rank_by
    axis = _axis(standings, main)
    lines = [*standings.anchors, *standings.rows]
    page = (
        _environment()
        .get_template("board.html")
        .render(
            board=standings.board.settings,
            n_prompts=len(standings.board.suite.prompts),
            few_prompts=len(standings.board.suite.prompts) < THIN,
            rows=standings.rows,
            anchors=standings.anchors,
            main=main,
            others=[one for one in columns if one != main],
            categories=category_columns(standings),
            axis=plots.axis_labels(axis),
            drawn={row.slug: _drawing(row, main, axis) for row in lines},
            samples={row.slug: load_samples(standings.board.path, row.slug) for row in lines},
            headline=headline(standings),
            reading=reading(standings),
            agreement=agreement_text(standings),
            css=Markup(css),
            script=Markup(script),
            policy=_policy(css, script),
        )
    )
    return visible(page)


def headline(standings: Standings) -> str:
    """Say who leads, as far as the data do."""
    rows = standings.rows
    if not rows:
        return "No model has been entered yet"
    leaders = [row.name for row in rows if row.rank == 1]
    if len(rows) == 1:
        return f"{leaders[0]} is the first model on this board"
    if len(leaders) == 1:
        return f"{leaders[0]} leads {len(rows)} models"
    if len(leaders) == len(rows):
        return f"The data do not tell which of these {len(rows)} models is best"
    if len(leaders) > len(rows) / 2:
        shared = f"{len(leaders)} of {len(rows)} models share the first rank"
        return f"{shared}: the data hardly tell them apart"
    return f"{listing(leaders, 3)} share the first rank among {len(rows)} models"


def _axis(standings: Standings, main: str) -> plots.Axis:
    rows = [*standings.anchors, *standings.rows]
    values = [
        bound
        for row in rows
        if (value := row.values.get(main))
        for bound in (value.mean, value.low, value.high)
    ]
    if main == "realism":
        return plots.fitted_axis(values)
    known = [one for one in values if one is not None] or [1000.0]
    step = next((s for s in (50, 100, 200, 500) if (max(known) - min(known)) / s <= 5), 1000)
    first, last = int(min(known) // step), int(-(-max(known) // step))
    ticks = tuple(float(n * step) for n in range(first, max(last, first + 1) + 1))
    return plots.Axis(ticks[0], ticks[-1], ticks)


def _drawing(row: Row, main: str, axis: plots.Axis) -> Markup:
    value = row.values.get(main)
    if value is None:
        return Markup("")
    label = f"{row.name}: {value_text(main, value)} ({span_text(main, value) or 'no interval'})"
    class_ = "photo" if row.is_anchor else "model"
    return plots.interval_row(value.mean, value.low, value.high, axis, label=label, class_=class_)


def small_interval(value: Any) -> Markup:
    """Draw an estimate in [0, 1] with its interval, small enough for a cell."""
    if value is None:
        return Markup("")
    at = [
        f"{100 * min(1.0, max(0.0, one)):.1f}%"
        for one in (value.mean, value.low, value.high)
        if one is not None
    ]
    bar = (
        Markup('<line class="bar" x1="{}" y1="5" x2="{}" y2="5"/>').format(at[1], at[2])
        if len(at) == 3
        else Markup("")
    )
    return Markup(
        '<svg class="mini" width="100%" height="10" aria-hidden="true">'
        '<line class="track" x1="0" y1="5" x2="100%" y2="5"/>{}<circle cx="{}" cy="5" r="3"/></svg>'
    ).format(bar, at[0])


def load_samples(board: Path, slug: str) -> list[Mapping[str, Any]]:
    """Return the first images of ``samples/<slug>``, small, as data that a page can hold.

    They are decoded and encoded again, so that nothing of a file but its picture gets into the
    page.

    Raises:
        RealBenchError: an image cannot be read.
    """
    folder = board / SAMPLES / slug
    if not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS)
    return [_sample(path) for path in paths[:SAMPLES_SHOWN]]


def _sample(path: Path) -> Mapping[str, Any]:
    from PIL import Image

    jpeg = thumbnail_jpeg(path, _SAMPLE_SIDE)
    with Image.open(io.BytesIO(jpeg)) as picture:
        width, height = picture.size
    source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    return {"source": source, "width": width, "height": height, "id": path.stem}


def _policy(css: str, script: str) -> str:
    """The page's Content-Security-Policy: nothing from elsewhere, no script or style but these."""
    style, code = (
        base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in (css, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{code}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _asset(package: str, name: str) -> str:
    return (files(package) / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (title_of, value_text, span_text, ranks_text, count_text, small_interval):
        found.globals[function.__name__] = function
    return found
