"""A board's ``index.html``: one file that needs no network, and sorts and filters by itself."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape
from PIL import Image

from realbench.images import EXTENSIONS, thumbnail_jpeg
from realbench.leaderboard.board import SAMPLES, Board, load_board
from realbench.leaderboard.standings import Row, Standings, rank_board
from realbench.leaderboard.tables import (
    agreement_text,
    category_columns,
    count_text,
    lower_first,
    own_rank,
    ranks_text,
    reading,
    readme,
    span_text,
    summary_columns,
    table_csv,
    table_tex,
    title_of,
    value_text,
)
from realbench.leaderboard.verify import require_valid, verify_board
from realbench.report import plots
from realbench.report.page import render_page
from realbench.report.wording import THIN, listing
from realbench.runs.files import make_folder, write_atomically

SAMPLES_SHOWN = 6
_SAMPLE_SIDE = 320  # pixels


def render_board(standings: Standings) -> str:
    """Return the page; what is not markup of ours is escaped, and only our own script may run."""
    css, script = _asset("realbench.report", "report.css"), _asset(__package__, "board.js")
    css += _asset(__package__, "board.css")
    columns, main = summary_columns(standings), standings.board.settings.rank_by
    axis = _axis(standings, main)
    lines = [*standings.anchors, *standings.rows]
    return render_page(
        "leaderboard/templates/board.html",
        dict(
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
            **{f.__name__: f for f in _SHOWN},
        ),
    )


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
    values = [
        bound
        for row in (*standings.anchors, *standings.rows)
        if (value := row.values.get(main))
        for bound in (value.mean, value.low, value.high)
    ]
    if main == "realism":
        return plots.fitted_axis(values)
    return plots.round_axis(values)


def _drawing(row: Row, main: str, axis: plots.Axis) -> Markup:
    value = row.values.get(main)
    if value is None:
        return Markup("")
    label = f"{row.name}: {value_text(main, value)} ({span_text(main, value) or 'no interval'})"
    class_ = "photo" if row.is_anchor else "model"
    return plots.interval_row(
        value.model_dump() | {"estimate": value.mean}, axis, label=label, class_=class_
    )


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


def load_samples(board: Path, slug: str) -> list[dict[str, Any]]:
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
    samples = []
    for path in paths[:SAMPLES_SHOWN]:
        with Image.open(io.BytesIO(jpeg := thumbnail_jpeg(path, _SAMPLE_SIDE))) as picture:
            width, height = picture.size
        source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        samples.append({"source": source, "width": width, "height": height, "id": path.stem})
    return samples


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


_SHOWN = (
    title_of,
    value_text,
    span_text,
    own_rank,
    lower_first,
    ranks_text,
    count_text,
    small_interval,
)
PAGE = "index.html"


def build_board(folder: str | Path) -> list[Path]:
    """Write a board's ``README.md``, ``leaderboard.csv``, ``leaderboard.tex`` and ``index.html``.

    Files that are already as they should be are left alone.

    Returns:
        The files that changed.

    Raises:
        UsageError: there is no board.
        RealBenchError: the board has violations, and nothing was written; or a file cannot be.
    """
    board = load_board(folder)
    verified = verify_board(board)
    require_valid(verified)
    standings = rank_board(verified)
    built = {
        "README.md": readme(standings).encode(),
        "leaderboard.csv": table_csv(standings),
        "leaderboard.tex": table_tex(standings).encode(),
        PAGE: render_board(standings).encode(),
    }
    return [path for name, data in built.items() if _write(path := board.path / name, data)]


def build_site(folders: Sequence[str | Path], out: Path) -> list[Path]:
    """Collect built boards for publishing: a folder each, and a page that lists them.

    Raises:
        UsageError: a folder is no board.
        RealBenchError: a board is not built, or a file cannot be read or written.
    """
    boards = [load_board(folder) for folder in folders]
    written = []
    for board in boards:
        place = out / board.path.resolve().name
        make_folder(place)
        for name in (PAGE, "leaderboard.csv", "leaderboard.tex"):
            write_atomically(place / name, (board.path / name).read_bytes())
        make_folder(place / "results")
        for path in sorted((board.path / "results").glob("*.json")):
            write_atomically(place / "results" / path.name, path.read_bytes())
        written.append(place)
    write_atomically(out / PAGE, _list_page(boards).encode())
    return written


def _list_page(boards: Sequence[Board]) -> str:
    links = [(escape(board.path.resolve().name), escape(board.settings.title)) for board in boards]
    items = "\n".join(f'<li><a href="{name}/">{title}</a></li>' for name, title in links)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>RealBench leaderboards</title>\n<h1>RealBench leaderboards</h1>\n<ul>\n{items}\n"
        "</ul>\n</html>\n"
    )


def _write(path: Path, data: bytes) -> bool:
    if path.is_file() and not path.is_symlink() and path.read_bytes() == data:
        return False
    write_atomically(path, data)
    return True
