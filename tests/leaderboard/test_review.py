"""Pull requests of strangers, replayed on a clone with the script that CI runs."""

from __future__ import annotations

import html
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realbench.errors import UsageError
from realbench.leaderboard.board import load_board
from realbench.leaderboard.names import slug
from realbench.leaderboard.review import Review, review_markdown, review_request
from realbench.leaderboard.verify import verify_board
from tests.leaderboard.boards import enter, fill_board, write_score_run

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "leaderboard"
RESULTS = Path("leaderboards", "core", "results")

pytestmark = pytest.mark.skipif(
    not SCRIPT.is_file() or shutil.which("git") is None, reason="needs a checkout, and git"
)


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A board of two models, and the same with two more."""
    root = tmp_path_factory.mktemp("boards")
    strengths = {"alpha": 1.2, "beta": -0.6, "New Model": 2.4, "Newer Model": 0.4}
    full = fill_board(root, strengths, arena=False)
    small = Path(shutil.copytree(full, root / "small"))
    for name in ("new-model", "newer-model"):
        (small / "results" / f"{name}.json").unlink()
    return small, full


class Clone:
    """A clone of a project with a board, in which requests are branches."""

    def __init__(self, root: Path, board: Path) -> None:
        self.origin, self.path = root / "origin.git", root / "clone"
        self.environment = os.environ | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_NAME": "tester" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "tester@example.org" for who in ("AUTHOR", "COMMITTER")},
            "OMP_NUM_THREADS": "1",
        }
        self.git("init", "--quiet", "--bare", "-b", "main", str(self.origin), cwd=root)
        self.git("init", "--quiet", "-b", "main", str(self.path), cwd=root)
        shutil.copytree(board, self.path / "leaderboards" / "core")
        (self.path / ".ci").mkdir()
        shutil.copy(SCRIPT, self.path / ".ci" / "leaderboard")
        (self.path / "code.py").write_text("print('ours')\n")
        self.git("remote", "add", "origin", str(self.origin))
        self.commit("a board")
        self.git("push", "--quiet", "origin", "main")

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        command = ["git", *arguments]
        where = self.path if cwd is None else cwd
        done = subprocess.run(
            command, cwd=where, env=self.environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def request(self, change: Callable[[Path], object]) -> str:
        """Commit a change on a branch of its own, from main; return its revision."""
        self.git("checkout", "--quiet", "-B", "request", "main")
        change(self.path)
        revision = self.commit("a request")
        self.git("checkout", "--quiet", "main")
        return revision

    def review(self, change: Callable[[Path], object], **options: Any) -> Review:
        return review_request(self.path, "main", self.request(change), **options)

    def script(self, *arguments: str, code: int = 0, **environment: str) -> str:
        command = self.path / "realbench"
        if not command.exists():
            start = "from realbench.cli import main; main()"
            command.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{start}' \"$@\"\n")
            command.chmod(0o755)
            (self.path / ".git" / "info" / "exclude").write_text("realbench\n")
        done = subprocess.run(
            ["bash", str(SCRIPT), *arguments],
            cwd=self.path,
            env=self.environment | {"REALBENCH": str(command)} | environment,
            text=True,
            capture_output=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.fixture
def clone(tmp_path: Path, boards: tuple[Path, Path]) -> Clone:
    return Clone(tmp_path, boards[0])


def adding(board: Path, *names: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for name in names:
            shutil.copy(board / "results" / f"{name}.json", root / RESULTS)

    return change


def tampering(board: Path, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def tamper(root: Path) -> None:
        record = json.loads((board / "results" / "new-model.json").read_bytes())
        change(record)
        (root / RESULTS / "new-model.json").write_text(json.dumps(record))

    return tamper


# --- The script, as CI runs it -----------------------------------------------------------------


@pytest.mark.slow
def test_a_good_entry_is_verified_and_its_change_told(
    clone: Clone, boards: tuple[Path, Path]
) -> None:
    revision = clone.request(adding(boards[1], "new-model"))
    said = clone.script("review", "main", revision, "out")
    assert "new: New Model: rank 1" in said
    assert "alpha: rank 1 → 2" in said
    comment = clone.script("comment", "out")
    assert comment.startswith("<!-- realbench leaderboard -->\n\n## Leaderboard: verified")
    assert "| new | <code>New Model</code> | 1 |" in comment
    assert not (clone.path / RESULTS / "new-model.json").exists()  # nothing was checked out


@pytest.mark.slow
def test_a_tampered_entry_is_refused_with_a_comment(
    clone: Clone, boards: tuple[Path, Path]
) -> None:
    change = tampering(boards[1], lambda r: r["detector_scoring"]["realism"].update(mean=0.999))
    said = clone.script("review", "main", clone.request(change), "out", code=1)
    line = "leaderboards/core/results/new-model.json: realism.mean is 0.999, but its own data give"
    assert said.startswith(line)
    comment = clone.script("comment", "out")
    assert "## Leaderboard: not yet" in comment
    assert line in html.unescape(comment)


@pytest.mark.slow
def test_tables_are_rebuilt_committed_and_published(
    clone: Clone, boards: tuple[Path, Path], tmp_path: Path
) -> None:
    clone.git("merge", "--quiet", clone.request(adding(boards[1], "new-model")))
    clone.git("push", "--quiet", "origin", "main")
    site = tmp_path / "site"
    assert "pushed the rebuilt tables" in clone.script("publish", str(site))
    table = clone.git("show", "main:leaderboards/core/README.md", cwd=clone.origin)
    assert "**New Model**" in table
    assert "New Model" in (site / "core" / "index.html").read_text()
    head = clone.git("rev-parse", "main", cwd=clone.origin)
    assert "as they should be" in clone.script("publish", str(site))
    assert clone.git("rev-parse", "main", cwd=clone.origin) == head


@pytest.mark.slow
def test_a_push_during_the_rebuild_is_rebuilt_upon(
    clone: Clone, boards: tuple[Path, Path], tmp_path: Path
) -> None:
    """Another entry and other tables are pushed between this build and its push."""
    clone.git("merge", "--quiet", clone.request(adding(boards[1], "new-model")))
    clone.git("push", "--quiet", "origin", "main")
    other = tmp_path / "other"
    clone.git("clone", "--quiet", str(clone.origin), str(other), cwd=tmp_path)
    adding(boards[1], "newer-model")(other)
    (other / "leaderboards/core/README.md").write_text("another table\n")
    clone.git("add", "--all", cwd=other)
    clone.git("commit", "--quiet", "-m", "meanwhile", cwd=other)
    racing = clone.path / "realbench"
    start = "from realbench.cli import main; main()"
    racing.write_text(
        f"#!/bin/sh\n{sys.executable} -c '{start}' \"$@\" || exit\n"
        f"[ -e {tmp_path}/raced ] || git -C {other} push --quiet origin main\n"
        f"touch {tmp_path}/raced\n"
    )
    racing.chmod(0o755)
    (clone.path / ".git" / "info" / "exclude").write_text("realbench\n")
    said = clone.script("publish")
    assert "somebody pushed meanwhile (attempt 1)" in said
    assert "pushed the rebuilt tables" in said
    table = clone.git("show", "main:leaderboards/core/README.md", cwd=clone.origin)
    assert "**New Model**" in table
    assert "**Newer Model**" in table
    files = clone.git("ls-tree", "-r", "--name-only", "main", cwd=clone.origin)
    assert "newer-model.json" in files


# --- What a review judges ----------------------------------------------------------------------


def test_a_wrong_fingerprint_is_refused(clone: Clone, boards: tuple[Path, Path]) -> None:
    def wrong(record: dict[str, Any]) -> None:
        record["detector_scoring"]["detectors"][0]["fingerprint"] = "e" * 64

    (line,) = clone.review(tampering(boards[1], wrong)).violations
    assert "new-model.json: whole: fingerprint eeeeeeeeeeee…, the board takes aaaa" in line


def test_two_entries_at_once_are_both_told(clone: Clone, boards: tuple[Path, Path]) -> None:
    review = clone.review(adding(boards[1], "new-model", "newer-model"))
    assert review.violations == []
    new = [one.model for one in review.boards[0].changes if one.before is None]
    assert new == ["New Model", "Newer Model"]


def test_requests_at_the_same_time_do_not_conflict(clone: Clone, boards: tuple[Path, Path]) -> None:
    first = clone.request(adding(boards[1], "new-model"))
    second = clone.request(adding(boards[1], "newer-model"))
    for revision in (first, second):
        assert review_request(clone.path, "main", revision).violations == []
        clone.git("merge", "--quiet", "-m", "merge", revision)
    assert verify_board(load_board(clone.path / "leaderboards" / "core")).violations == []


def _run_theirs(root: Path) -> None:
    (root / "code.py").write_text("print('theirs')\n")
    (root / "leaderboards/core/board.toml").write_text("title = 'Mine'\n")
    (root / "leaderboards/core/README.md").write_text("I am first\n")
    (root / ".ci/leaderboard").write_text("#!/bin/sh\ntouch /tmp/theirs\n")


def _remove(root: Path) -> None:
    (root / RESULTS / "alpha.json").unlink()


def _alter(root: Path) -> None:
    path = root / RESULTS / "alpha.json"
    path.write_text(path.read_text().replace('"alpha"', '"alphabet"'))


def _link(root: Path) -> None:
    (root / RESULTS / "link.json").symlink_to("/etc/passwd")


def _executable(root: Path) -> None:
    (root / RESULTS / "run.json").write_text("{}")
    (root / RESULTS / "run.json").chmod(0o755)


def _names(root: Path) -> None:
    for name in ("UPPER.json", "a b.json", ".hidden.json", "x.json.exe", "new\nline.json"):
        (root / RESULTS / name).write_text("{}")
    (root / RESULTS / "deep").mkdir()
    (root / RESULTS / "deep" / "x.json").write_text("{}")


def _anchor(root: Path) -> None:
    (root / "leaderboards/core/anchors/photographs.json").write_text("{}")


def _no_board(root: Path) -> None:
    (root / "leaderboards/mine/results").mkdir(parents=True)
    (root / "leaderboards/mine/results/x.json").write_text("{}")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_run_theirs, [".ci/leaderboard: outside", "code.py: outside", "board.toml: outside"]),
        (_remove, ["alpha.json: removed: only maintainers"]),
        (_alter, ["alpha.json: changes an entry that is on the board"]),
        (_link, ["link.json: is no plain file (mode 120000)"]),
        (_executable, ["run.json: is no plain file (mode 100755)"]),
        (
            _names,
            ["UPPER.json: outside", "a b.json: outside", "new\\x0aline.json: outside",
             ".hidden.json: outside", "deep/x.json: outside", "x.json.exe: outside"],
        ),
        (_anchor, ["anchors/photographs.json: outside of"]),
        (_no_board, ["leaderboards/mine: no such board"]),
        (lambda root: None, ["the request changes no file"]),
    ],
)  # fmt: skip
def test_a_request_only_adds_entries(
    clone: Clone, change: Callable[[Path], object], said: list[str]
) -> None:
    violations = clone.review(change).violations
    for one in said:
        assert any(one in line for line in violations), violations
    assert all("\n" not in line for line in violations)


def test_maintainers_may_change_and_remove(clone: Clone) -> None:
    review = clone.review(_remove, allow_changes=True)
    assert review.violations == []
    assert [one.model for one in review.boards[0].changes if one.after is None] == ["alpha"]


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "a | b `c` [x](https://evil.example) @octocat #1",
    "../../../../etc/passwd",
    r"\input{/etc/passwd} $x$ %",
    "</code></script>",
    "{{ 7 * 7 }} ${HOME} $(id)",
]


def test_hostile_names_are_shown_not_obeyed(clone: Clone, tmp_path: Path) -> None:
    def change(root: Path) -> None:
        for n, name in enumerate(HOSTILE):
            run = write_score_run(tmp_path / f"run{n}", {f"folder{n}": n / 2 - 1})
            path = enter(root / "leaderboards/core", [run], name, folder=f"folder{n}")
            assert path.parent == root / RESULTS
            assert path.name == f"{slug(name)}.json"

    review = clone.review(change)
    assert review.violations == []
    comment = review_markdown(Review.model_validate_json(review.model_dump_json()))
    for name in HOSTILE:
        assert f"<code>{name}</code>" in html.unescape(comment)
    plain = comment.replace("<code>", "").replace("</code>", "")
    assert plain.count("<") == 1  # the mark's
    for syntax in ("@", "](", "://", "`", "$"):
        assert syntax not in plain


@pytest.mark.parametrize("name", ["good\u202egnp.exe", "zero\u200bwidth", "FL\u0423X"])
def test_deceptive_names_are_refused(clone: Clone, boards: tuple[Path, Path], name: str) -> None:
    review = clone.review(tampering(boards[1], lambda r: r["model"].update(name=name)))
    assert any("model.name: " in line for line in review.violations)
    assert name not in review_markdown(review)


def test_a_forged_review_is_escaped_too(clone: Clone) -> None:
    evil = "<script>alert(1)</script> @everyone [win](https://evil.example)"
    comment = review_markdown(Review(violations=[evil] * 4000, boards=[]))
    assert "<script" not in comment
    assert "@" not in comment
    assert "](" not in comment
    assert len(comment) < 60_000  # what a forge takes


def test_a_large_request_is_refused_quickly(clone: Clone) -> None:
    def change(root: Path) -> None:
        for n in range(150):
            (root / RESULTS / f"m{n}.json").write_text("{}")
        with (root / RESULTS / "huge.json").open("wb") as file:
            file.truncate(1000)

    assert "changes 151 files" in clone.review(change).violations[0]


def test_a_huge_file_is_not_read(clone: Clone) -> None:
    def change(root: Path) -> None:
        (root / RESULTS / "huge.json").write_bytes(b" " * 8_100_000)

    assert "huge.json: larger than 8 MB" in clone.review(change).violations[0]


def test_unrelated_histories_and_unknown_revisions_are_one_line(clone: Clone) -> None:
    clone.git("checkout", "--quiet", "--orphan", "unrelated")
    clone.commit("another start")
    with pytest.raises(UsageError, match="common history"):
        review_request(clone.path, "main", "unrelated")
    for name in ("nothing", "--output=/tmp/x", "main:code.py"):
        with pytest.raises(UsageError, match="revision"):
            review_request(clone.path, "main", name)
