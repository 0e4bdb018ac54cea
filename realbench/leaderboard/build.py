"""Builds a board's tables and page from its entries: the same files from the same data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import escape

from realbench.leaderboard.board import Board, load_board
from realbench.leaderboard.page import render_board
from realbench.leaderboard.standings import rank_board
from realbench.leaderboard.tables import readme, table_csv, table_tex
from realbench.leaderboard.verify import require_valid, verify_board
from realbench.runs.files import make_folder, write_atomically

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
