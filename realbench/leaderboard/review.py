"""Reviews a pull request to boards: reads it from git as data, and runs nothing of it.

What is judged is the base's board with the request's result files in it. Nothing is checked
out: files are read as git objects, so that links, attributes, hooks and paths of the request
have no effect.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field

from realbench.errors import RealBenchError, UsageError
from realbench.leaderboard.board import ANCHORS, BOARD_FILE, RESULTS, load_board
from realbench.leaderboard.diff import BoardDiff, diff_boards, diff_markdown
from realbench.leaderboard.figures import code
from realbench.leaderboard.schema import Strict
from realbench.leaderboard.standings import rank_board
from realbench.leaderboard.verify import LARGEST, verify_board
from realbench.text import printable

ROOT = "leaderboards"
_ENTRY_PATH = re.compile(
    rf"{ROOT}/(?P<board>[a-z0-9][a-z0-9._-]*)/{RESULTS}/[a-z0-9][a-z0-9.-]*\.json"
)
# Of a board's folder, what its tables are made of.
_SOURCE_PATH = re.compile(
    rf"{ROOT}/(?P<board>[a-z0-9][a-z0-9._-]*)/(?:(?:{RESULTS}|{ANCHORS})/)?[A-Za-z0-9_][^/]*"
)
_PLAIN_FILE = "100644"
_GONE = "000000"
_SHOWN = 30
_MOST_FILES = 100
MARK = "<!-- realbench leaderboard -->"


class Review(Strict):
    """What a review found; plain data, whose texts are escaped where they are shown."""

    violations: list[str] = Field(max_length=5000)
    boards: list[BoardDiff] = Field(max_length=100)


@dataclass(frozen=True)
class _Changed:
    """A file that a request adds (A), changes (M), removes (D) or otherwise touches."""

    status: str
    mode: str
    blob: str
    path: str


def review_request(
    repository: Path, base: str, head: str, *, allow_changes: bool = False
) -> Review:
    """Review what a request changes from where it left ``base``.

    Args:
        repository: a git repository that has both revisions.
        base: the revision that the request is to be merged into.
        head: the request's.
        allow_changes: whether anything may be changed and removed, as maintainers do; else a
            request only adds entries.

    Raises:
        UsageError: there is no such repository or revision.
        RealBenchError: a board of the base cannot be used.
    """
    base, head = (_revision(repository, one) for one in (base, head))
    strangers = (
        f"{printable(repository)} does not have the common history of the two revisions: fetch it "
        "whole, and start the request from the base"
    )
    start = _found(repository, strangers, "merge-base", base, head)
    changed = _changes(repository, start, head)
    violations = [] if allow_changes else [line for one in changed if (line := _confined(one))]
    if not changed:
        violations.append("the request changes no file: add an entry under results/")
    if len(changed) > _MOST_FILES and not allow_changes:
        return Review(
            violations=[
                f"the request changes {len(changed)} files: enter at most {_MOST_FILES} models",
                *violations[:_MOST_FILES],
            ],
            boards=[],
        )
    wanted = _SOURCE_PATH if allow_changes else _ENTRY_PATH
    by_board: dict[str, list[_Changed]] = defaultdict(list)
    for one in changed:
        match = wanted.fullmatch(one.path)
        if match and one.mode in (_PLAIN_FILE, _GONE):
            by_board[match["board"]].append(one)
    boards = []
    for name, files in sorted(by_board.items()):
        found, diff = _review_board(repository, base, name, files)
        violations += found
        boards += [diff] if diff is not None else []
    return Review(violations=violations[:1000], boards=boards)


def review_markdown(review: Review) -> str:
    """Return a review as Markdown for a pull request's comment."""
    parts = [MARK]
    if review.violations:
        parts += ["## Leaderboard: not yet", "Each line says what is wrong and what to do:"]
        lines = [f"- {code(_cut(line))}" for line in review.violations[:_SHOWN]]
        if len(review.violations) > _SHOWN:
            lines.append(f"- and {len(review.violations) - _SHOWN} more")
        parts.append("\n".join(lines))
    else:
        parts.append("## Leaderboard: verified")
        parts.append("Every figure follows from the entry's own data. This is what would change:")
        parts += [_limited(diff_markdown(diff)) for diff in review.boards]
    return "\n\n".join(parts) + "\n"


def _cut(text: str, limit: int = 400) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _limited(text: str, lines: int = 120) -> str:
    """Keep a comment within what forges accept."""
    kept = text.split("\n")
    return text if len(kept) <= lines else "\n".join([*kept[:lines], "", "…"])


# --- The request's files -----------------------------------------------------------------------


def _confined(change: _Changed) -> str | None:
    """Return what is wrong with touching this path, None if nothing is."""
    path = printable(change.path)
    if not _ENTRY_PATH.fullmatch(change.path):
        return (
            f"{path}: outside of {ROOT}/BOARD/{RESULTS}/NAME.json: a request with results changes "
            "nothing else; tables are rebuilt after the merge"
        )
    if change.status == "D":
        return f"{path}: removed: only maintainers remove entries"
    if change.mode != _PLAIN_FILE:
        return f"{path}: is no plain file (mode {change.mode}): add it as one"
    if change.status != "A":
        return (
            f"{path}: changes an entry that is on the board: give the model's new version a name "
            "of its own, or ask a maintainer"
        )
    return None


def _review_board(
    repository: Path, base: str, name: str, files: Sequence[_Changed]
) -> tuple[list[str], BoardDiff | None]:
    """Verify a board of the base with the request's files in it; tell what changes."""
    with tempfile.TemporaryDirectory(prefix="realbench-review-") as temporary:
        old, new = Path(temporary, "before"), Path(temporary, "after")
        for folder in (old, new):
            _export(repository, base, f"{ROOT}/{name}", folder)
        large = _apply(repository, files, f"{ROOT}/{name}", new)
        if large:
            return large, None
        if not (new / BOARD_FILE).is_file():
            return [f"{ROOT}/{name}: no such board: add the entry to one that there is"], None
        after = verify_board(load_board(new))
        before = verify_board(load_board(old)) if (old / BOARD_FILE).is_file() else None
        if after.violations:
            # What is wrong with the base's own entries is not this request's to mend.
            known = before.violations if before else []
            lines = [line for line in after.violations if line not in known]
            return [f"{ROOT}/{name}/{line}" for line in lines], None
        was = None if before is None or before.violations else rank_board(before)
        return [], diff_boards(was, rank_board(after))


def _apply(repository: Path, files: Sequence[_Changed], folder: str, board: Path) -> list[str]:
    problems = []
    for one in files:
        path = board / PurePosixPath(one.path).relative_to(folder)
        if one.status == "D":
            path.unlink(missing_ok=True)
            continue
        if int(_git(repository, "cat-file", "-s", one.blob)) > LARGEST:
            problems.append(f"{one.path}: larger than {LARGEST // 1_000_000} MB: write it anew")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_git(repository, "cat-file", "blob", one.blob))
    return problems


def _export(repository: Path, revision: str, folder: str, out: Path) -> None:
    """Write a board of a revision to ``out``: its settings, prompts, results and anchors."""
    listed = _git(repository, "ls-tree", "-r", "-z", revision, "--", folder)
    for line in filter(None, listed.split(b"\0")):
        about, _, name = line.partition(b"\t")
        mode, kind, blob = about.decode().split()
        path = PurePosixPath(name.decode("utf-8", "surrogateescape")).relative_to(folder)
        parts = path.parts
        wanted = len(parts) == 1 or (len(parts) == 2 and parts[0] in (RESULTS, ANCHORS))
        if kind == "blob" and mode.startswith("100") and wanted:
            place = out.joinpath(*parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(_git(repository, "cat-file", "blob", blob))


# --- git ---------------------------------------------------------------------------------------


def _changes(repository: Path, start: str, head: str) -> list[_Changed]:
    how = ["-r", "-z", "--raw", "--no-renames", "--no-ext-diff", "--no-textconv", "--full-index"]
    raw = _git(repository, "diff-tree", *how, start, head)
    parts = raw.split(b"\0")
    found = []
    for about, name in zip(parts[::2], parts[1::2], strict=False):
        _, mode, _, blob, status = about.decode().split()
        found.append(_Changed(status[0], mode, blob, name.decode("utf-8", "surrogateescape")))
    return found


def _revision(repository: Path, name: str) -> str:
    missing = (
        f"{printable(repository)} has no revision {printable(name)}: name a branch or commit of "
        "that repository"
    )
    if name.startswith("-"):
        raise UsageError(missing)
    return _found(repository, missing, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")


def _found(repository: Path, missing: str, *arguments: str) -> str:
    try:
        return _git(repository, *arguments).decode().strip()
    except RealBenchError as error:
        raise UsageError(missing) from error


def _git(repository: Path, *arguments: str) -> bytes:
    """Run git; of the repository's settings none that runs a program plays a part."""
    command = ["git", "-C", str(repository), "--no-pager", *arguments]
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, check=False, env=os.environ | quiet)
    except FileNotFoundError as error:
        raise RealBenchError("git is missing: install it") from error
    if done.returncode:
        said = printable(done.stderr.decode("utf-8", "replace").strip().split("\n")[0])
        raise RealBenchError(f"git {arguments[0]} failed in {printable(repository)}: {said}")
    return done.stdout
