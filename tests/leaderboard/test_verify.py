"""A board's violations: each is found, named in one line, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realbench.errors import RealBenchError, UsageError
from realbench.leaderboard.board import load_board
from realbench.leaderboard.names import slug
from realbench.leaderboard.page import build_board
from realbench.leaderboard.schema import parse_entry
from realbench.leaderboard.verify import check_name, verify_board
from tests.leaderboard.boards import enter, fill_board, make_board, write_score_run

STRENGTHS = {"alpha": 1.5, "beta": 0.2, "gamma": -1.2}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill_board(tmp_path_factory.mktemp("verify"), STRENGTHS)


@pytest.fixture
def board(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def violations(board: Path) -> list[str]:
    found = verify_board(load_board(board)).violations
    assert all("\n" not in line and len(line) < 500 for line in found)
    return found


def edit(board: Path, change: Callable[[dict[str, Any]], object], name: str = "beta") -> None:
    path = board / "results" / f"{name}.json"
    record = json.loads(path.read_bytes())
    change(record)
    path.write_text(json.dumps(record))


def test_a_board_that_add_wrote_has_none(board: Path) -> None:
    assert violations(board) == []


def _scores(record: dict[str, Any]) -> dict[str, Any]:
    return record["detector_scoring"]


TAMPERINGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a mean": (lambda r: _scores(r)["realism"].update(mean=0.99), "realism.mean is 0.99, but"),
    "an interval": (lambda r: _scores(r)["realism"].update(low=0.5), "realism.low is 0.5, but"),
    "a count": (lambda r: _scores(r)["escape_rate"].update(n=900), "escape_rate.n is 900, but"),
    "a detector's mean": (
        lambda r: _scores(r)["per_detector"]["whole"].update(mean=0.9),
        "per_detector.whole.mean",
    ),
    "a category": (
        lambda r: _scores(r)["categories"]["people"].update(mean=0.9),
        "categories.people.mean",
    ),
    "a category left out": (lambda r: _scores(r)["categories"].pop("people"), "'people'"),
    "an image's realism": (
        lambda r: _scores(r)["images"][3].__setitem__(2, 0.999),
        "does not follow from its detectors' scores",
    ),
    "an image twice": (
        lambda r: _scores(r)["images"].append(_scores(r)["images"][0]),
        "comes twice",
    ),
    "an image of two prompts": (
        lambda r: _scores(r)["images"][1].__setitem__(1, _scores(r)["images"][0][1]),
        "one image comes twice, but counts once",
    ),
    "an arena's image of two prompts": (
        lambda r: r["arena_scoring"]["images"].__setitem__(1, r["arena_scoring"]["images"][0]),
        "arena: one image comes for several prompts",
    ),
    "a foreign prompt": (
        lambda r: _scores(r)["images"][0].__setitem__(0, "zz"),
        "not in the suite",
    ),
    "a fingerprint": (
        lambda r: _scores(r)["detectors"][0].update(fingerprint="e" * 64),
        "whole: fingerprint eeeeeeeeeeee…, the board takes aaaaaaaaaaaa…",
    ),
    "a level": (lambda r: _scores(r)["detectors"][0].update(level="feature"), "level feature"),
    "a detector's name": (
        lambda r: _scores(r)["detectors"][0].update(name="other"),
        "detectors other, crops, the board has whole, crops",
    ),
    "a score left out": (lambda r: _scores(r)["images"][0][3].pop(), "not every image has 2"),
    "the suite": (lambda r: r["suite"].update(sha256="f" * 64), "suite 'prompts' with hash"),
    "too few prompts": (
        lambda r: _scores(r).update(images=_scores(r)["images"][:5]),
        "5 of the suite's prompts, the board asks for 8",
    ),
    "no scores": (lambda r: r.update(detector_scoring=None), "no detector_scoring"),
    "wins": (lambda r: r["arena_scoring"].update(wins=900), "wins is 900, but"),
    "the win rate": (
        lambda r: r["arena_scoring"]["win_rate"].update(mean=0.9),
        "arena: win_rate.mean is 0.9, but",
    ),
    "the judge": (lambda r: r["arena_scoring"].update(judge="me"), "judge 'me'"),
    "the judge's settings": (
        lambda r: r["arena_scoring"].update(judge_fingerprint="0" * 64),
        "judge fingerprint",
    ),
    "the template": (
        lambda r: r["arena_scoring"].update(template_sha256="0" * 64),
        "template 000000000000…, the board has none",
    ),
    "a letter": (
        lambda r: r["arena_scoring"]["opponents"].update(alpha="W"),
        "a letter for each prompt",
    ),
    "an opponent left out": (
        lambda r: r["arena_scoring"]["opponents"].pop("Photographs"),
        "differently",
    ),
    "another image in the arena": (
        lambda r: r["arena_scoring"]["images"].__setitem__(0, "0" * 16),
        "not the one that was scored",
    ),
    "itself": (
        lambda r: r["arena_scoring"]["opponents"].update(Beta="W" * 12),
        "meets itself",
    ),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_is_found(board: Path, what: str) -> None:
    change, said = TAMPERINGS[what]
    edit(board, change)
    found = violations(board)
    matching = [line for line in found if said in line]
    assert matching, found
    assert matching[0].startswith(("results/beta.json: ", "anchors/", "results/alpha.json: arena"))
    with pytest.raises(RealBenchError, match="cannot be built"):
        build_board(board)
    assert not (board / "README.md").exists()


def test_results_that_two_entries_tell_differently_are_found(board: Path) -> None:
    def win(record: dict[str, Any]) -> None:
        from realbench.leaderboard.figures import win_rate

        arena = record["arena_scoring"]
        gained = arena["opponents"]["alpha"].count("L")
        arena["opponents"]["alpha"] = "W" * 12
        arena["wins"] += gained
        arena["losses"] -= gained
        arena["win_rate"] = win_rate(arena["opponents"], arena["prompts"], 0).model_dump()

    edit(board, win)
    (line,) = violations(board)
    assert line.startswith("results/alpha.json: arena: it and results/beta.json tell their result")


@pytest.mark.parametrize("name", ["BETA", "be ta", "Bet\N{FULLWIDTH LATIN SMALL LETTER A}"])
def test_a_name_that_reads_like_another_is_a_duplicate(board: Path, name: str) -> None:
    edit(board, lambda record: record["model"].update(name=name), "gamma")
    (board / "results" / "gamma.json").rename(board / "results" / "gamma-2.json")
    assert any(
        line.startswith(f"results/gamma-2.json: duplicate: the name {name!r} reads like that of")
        for line in violations(board)
    )


def test_the_same_images_under_another_name_are_a_duplicate(board: Path, tmp_path: Path) -> None:
    run = write_score_run(tmp_path / "run", {"beta": 0.2})
    enter(board, [run], "Brand new", folder="beta")
    (line,) = violations(board)
    assert line == (
        "results/brand-new.json: duplicate: 12 of its 12 images are those of results/beta.json: "
        "enter a model once"
    )


def test_no_file_name_begins_a_line_of_its_own(board: Path) -> None:
    """A line that begins with ::error:: would be a command to GitHub's runners."""
    results = board / "results"
    (results / "copy\n::error::x\x1b[31m.json").write_bytes((results / "beta.json").read_bytes())
    found = violations(board)
    assert any("duplicate" in line for line in found)
    assert not [line for line in found if "\n" in line or "\x1b" in line]


def test_files_are_confined_to_results(board: Path) -> None:
    results = board / "results"
    (results / "beta.json").rename(results / "delta.json")
    (results / "link.json").symlink_to("/etc/passwd")
    (results / "deep").mkdir()
    (results / "notes.txt").write_text("x")
    os.mkfifo(results / "pipe.json")
    with (results / "huge.json").open("wb") as file:
        file.truncate(9_000_000)
    (results / "\udcff\n.json").write_text("{}")
    found = violations(board)
    for said in (
        "results/delta.json: the model 'beta' belongs into beta.json: rename the file",
        "results/link.json: is no plain file: remove it",
        "results/deep: is no plain file: remove it",
        "results/pipe.json: is no plain file: remove it",
        "results/notes.txt: is no entry (.json): remove it",
        "results/huge.json: larger than 8 MB",
        r"results/\xff\x0a.json: format is no number",
    ):
        assert any(line.startswith(said) for line in found), (said, found)


def test_an_anchor_must_be_there_and_named(board: Path) -> None:
    (board / "anchors" / "photographs.json").rename(board / "anchors" / "strange.json")
    found = violations(board)
    assert any(one.startswith("anchors/photographs.json: missing") for one in found)
    assert any(one.startswith("anchors/strange.json: the model 'Photographs'") for one in found)


def test_another_version_of_the_suite_is_no_board(board: Path) -> None:
    with (board / "prompts.jsonl").open("a") as file:
        file.write('{"id": "new", "prompt": "One more"}\n')
    with pytest.raises(RealBenchError, match=r"suite\.sha256 is"):
        verify_board(load_board(board))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format = 1", "format = 9", "format"),
        ('title = "Test board"', "", "title"),
        ('"realism", ', "", "rank_by is realism"),
        ('"arena"', '"no_such"', "columns"),
        ('file = "prompts.jsonl"', 'file = "../prompts.jsonl"', "suite.file"),
        ("format = 1", "format = ", "no TOML"),
    ],
)
def test_a_board_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    board = make_board(tmp_path / "board")
    text = (board / "board.toml").read_text()
    assert old in text
    (board / "board.toml").write_text(text.replace(old, new))
    with pytest.raises(RealBenchError, match=said) as caught:
        load_board(board)
    assert "board.toml" in str(caught.value)


def test_a_copied_entry_is_blamed_alone(board: Path) -> None:
    record = json.loads((board / "results" / "beta.json").read_bytes())
    record["model"]["name"] = "beta again"
    (board / "results" / "beta-again.json").write_text(json.dumps(record))
    found = violations(board)
    assert len(found) == 2, found
    assert any("duplicate" in line for line in found)
    assert any("are both 'beta' of one arena" in line for line in found)


@pytest.fixture
def two_folds(tmp_path: Path) -> Path:
    board = fill_board(tmp_path, {"alpha": 1.0, "beta": 0.0}, arena=False)
    text = (board / "board.toml").read_text()
    for first, second in (("a", "d"), ("b", "e")):
        text = text.replace(f'["{first * 64}"]', f'["{first * 64}", "{second * 64}"]')
    (board / "board.toml").write_text(text)
    return board


def test_the_detectors_of_one_fold_count(two_folds: Path) -> None:
    def other_fold(record: dict[str, Any]) -> None:
        for one, letter in zip(_scores(record)["detectors"], "de", strict=True):
            one["fingerprint"] = letter * 64

    edit(two_folds, other_fold)
    assert violations(two_folds) == []


def test_detectors_of_two_folds_do_not_mix(two_folds: Path) -> None:
    edit(two_folds, lambda r: _scores(r)["detectors"][0].update(fingerprint="d" * 64))
    (found,) = violations(two_folds)
    assert "different sets" in found


def test_every_detector_has_every_fold(two_folds: Path) -> None:
    text = (two_folds / "board.toml").read_text()
    (two_folds / "board.toml").write_text(text.replace(f', "{"e" * 64}"', ""))
    with pytest.raises(RealBenchError, match="different numbers of fingerprints"):
        load_board(two_folds)


@pytest.fixture
def mixed(two_folds: Path, tmp_path: Path) -> Path:
    """A board whose photographs were scored by two folds, half of them by each."""
    runs = []
    for name, letters, start in (("one", "ab", 0), ("two", "de", 6)):
        run = write_score_run(tmp_path / name, {"Photographs": 3.0})
        about = json.loads((run / "run.json").read_bytes())
        for detector, letter in zip(about["detectors"], letters, strict=True):
            detector["fingerprint"] = letter * 64
        (run / "run.json").write_text(json.dumps(about))
        lines = (run / "scores.csv").read_text().splitlines(keepends=True)
        (run / "scores.csv").write_text("".join([lines[0], *lines[1:][start : start + 6]]))
        runs.append(run)
    with pytest.raises(UsageError, match="is a second score run"):
        enter(two_folds, runs, "Photographs", is_anchor=True)
    with (two_folds / "board.toml").open("a") as file:
        file.write("cross_fit = true\n")
    enter(two_folds, runs[::-1], "Photographs", is_anchor=True)
    with pytest.raises(UsageError, match="the same detectors as a run before it"):
        enter(two_folds, [*runs, runs[0]], "Photographs", is_anchor=True)
    return two_folds


def test_an_anchor_mixes_folds_where_the_board_lets_it(mixed: Path) -> None:
    assert violations(mixed) == []
    anchor = json.loads((mixed / "anchors" / "photographs.json").read_bytes())
    scores = anchor["detector_scoring"]
    assert scores["realism"]["n"] == 12
    assert [image[0] for image in scores["images"]] == [f"{n:03d}" for n in range(12)]
    assert scores["cross_fit"] == {
        "sets": [["d" * 64, "e" * 64], ["a" * 64, "b" * 64]],
        "set_of_image": [1] * 6 + [0] * 6,
    }
    assert build_board(mixed)


def test_nothing_else_mixes_folds(mixed: Path) -> None:
    anchor = json.loads((mixed / "anchors" / "photographs.json").read_bytes())
    cross_fit = anchor["detector_scoring"]["cross_fit"]
    edit(mixed, lambda r: _scores(r).update(cross_fit=cross_fit))
    (found,) = violations(mixed)
    assert found.startswith("results/beta.json: cross_fit: several sets")
    shutil.rmtree(mixed / "results")
    text = (mixed / "board.toml").read_text()
    (mixed / "board.toml").write_text(text.replace("cross_fit = true\n", ""))
    (found,) = violations(mixed)
    assert found.startswith("anchors/photographs.json: cross_fit: several sets")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sets": [["d" * 64, "e" * 64], ["a" * 64, "e" * 64]]}, "is no set of the board's"),
        ({"sets": [["d" * 64, "e" * 64], ["e" * 64, "d" * 64]]}, "is no set of the board's"),
        ({"sets": [["d" * 64, "e" * 64], ["a" * 64]]}, "is no set of the board's"),
        ({"sets": [["d" * 64, "e" * 64]] * 2}, "a set comes twice"),
        ({"sets": [["a" * 64, "b" * 64], ["d" * 64, "e" * 64]]}, "is not that of detectors"),
        ({"set_of_image": [0] * 12}, "each set an image"),
        ({"set_of_image": [1] * 6 + [2] * 6}, "each set an image"),
        ({"set_of_image": [1] * 5 + [0] * 6}, "each image a set"),
    ],
)
def test_a_mixed_anchor_says_rightly_who_scored_what(
    mixed: Path, change: dict[str, Any], said: str
) -> None:
    path = mixed / "anchors" / "photographs.json"
    record = json.loads(path.read_bytes())
    record["detector_scoring"]["cross_fit"].update(change)
    path.write_text(json.dumps(record))
    (found,) = violations(mixed)
    assert found.startswith("anchors/photographs.json: cross_fit: ")
    assert said in found


def test_an_anchors_photograph_is_no_models_image(board: Path) -> None:
    photograph = json.loads((board / "anchors" / "photographs.json").read_bytes())
    image = _scores(photograph)["images"][0][1]
    edit(board, lambda record: _scores(record)["images"][0].__setitem__(1, image))
    assert any(
        "results/beta.json: 1 of its images are also images of the anchor photographs" in line
        for line in violations(board)
    )


def test_a_name_that_looks_like_another_models_is_refused(board: Path) -> None:
    edit(board, lambda record: record["model"].update(name="PP"), "alpha")
    edit(board, lambda record: record["model"].update(name="\u03a1\u03a1"))  # Greek
    assert any("reads like that of results/alpha.json" in line for line in violations(board))


def test_replacing_touches_only_the_entry_of_the_same_name(board: Path) -> None:
    found = load_board(board)
    path = board / "results" / "beta.json"
    entry = parse_entry(path.read_bytes())
    check_name(found, entry, path)
    for name in ("Beta", "beta.", "BETA", "b\u00e9ta", "\u0432eta"):
        other = entry.model_copy(update={"model": entry.model.model_copy(update={"name": name})})
        with pytest.raises(UsageError, match=r"beta\.json is the entry of another model, 'beta'"):
            check_name(found, other, board / "results" / f"{slug(name)}.json")
    plus = entry.model_copy(update={"model": entry.model.model_copy(update={"name": "beta+"})})
    check_name(found, plus, board / "results" / f"{slug('beta+')}.json")
