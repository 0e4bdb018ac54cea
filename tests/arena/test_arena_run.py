"""Arena runs as a whole: resumed, extended, cut short, merged; every vote is kept once."""

from __future__ import annotations

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import realbench
from realbench.arena.judges import JudgeOptions
from realbench.arena.judges.judge import Judge
from realbench.arena.merging import merge
from realbench.arena.results import ArenaRun, rate_run, verify_run
from realbench.arena.run import ArenaInterrupted, Progress, arena
from realbench.arena.vote_log import VOTES_FILE, EditedLogError, accepted_edits, read_log
from realbench.arena.votes import Retraction, Vote
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from tests.arena.judges import ByName

FILES = ("ratings.csv", "ratings.json", "run.json", "report.html", VOTES_FILE)
Start = Callable[..., ArenaRun]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three models' pictures of three prompts, tiny ones that all differ."""
    made = []
    for m, name in enumerate("abc"):
        folder = tmp_path / name
        folder.mkdir()
        for n in range(3):
            Image.new("RGB", (8, 8), (40 * m, 40 * n, 7)).save(folder / f"p{n}.png")
        made.append(folder)
    return made


@pytest.fixture
def start(folders: list[Path], tmp_path: Path) -> Start:
    """Return ``start(judge, **more)``: an arena of the three folders in ``run``."""

    def begin(*judges: Judge, **more: Any) -> ArenaRun:
        arguments = {"out": tmp_path / "run", "resamples": 20} | more
        return arena(*folders, judge=judges, **arguments)

    return begin


def logged(out: Path) -> list[Vote]:
    return read_log(out / VOTES_FILE).votes


def shown(votes: list[Vote]) -> Counter[tuple[str, str, str, str]]:
    return Counter((v.judge, v.prompt_id, v.first, v.second) for v in votes)


def standing_of(run: ArenaRun, judge: str = "by-name") -> dict[str, Any]:
    return run.ratings["judges"][judge]


def test_a_run_judges_every_pair_in_both_orders_and_writes_its_files(
    start: Start, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    run = start(ByName(), progress=seen.append)
    assert sorted(path.name for path in run.out.iterdir() if path.name[0] != ".") == sorted(FILES)
    votes = logged(tmp_path / "run")
    assert len(votes) == 18
    assert set(shown(votes).values()) == {1}
    assert len({vote.id for vote in votes}) == 18
    assert (run.stop_reason, run.pairs_open) == ("complete", 0)
    assert [row["contestant"] for row in standing_of(run)["ratings"]] == ["a", "b", "c"]
    assert json.loads((run.out / "ratings.json").read_text()) == run.ratings
    manifest = json.loads((run.out / "run.json").read_text())
    assert manifest["counts"] == {
        "asked": 18,
        "votes": 18,
        "invalid": 0,
        "pairs": 9,
        "pairs_open": 0,
    }
    assert manifest["judges"]["by-name"]["orders"] == 2
    with (run.out / "ratings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["judge"], row["contestant"]) for row in rows] == [
        ("by-name", name) for name in "abc"
    ]
    assert float(rows[0]["win_rate"]) == 1.0
    assert run.standings["wins"].tolist() == [6, 3, 0]
    assert {one.stage for one in seen} == {"reading", "judging", "rating"}
    last = [one for one in seen if one.stage == "judging"][-1]
    assert (last.done, last.total, last.cost) == (18, 18, 4.5)


def test_a_finished_run_asks_nothing_again(start: Start) -> None:
    first = start(ByName())
    judge = ByName()
    again = start(judge)
    assert judge.asked == []
    assert again.votes == first.votes
    assert again.ratings == first.ratings


def test_without_a_folder_nothing_is_kept(start: Start, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    run = start(ByName(), out=None)
    assert run.out is None
    assert len(run.votes) == 18
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "cache"}


def test_a_judge_of_one_order_is_asked_once_about_each_pair(start: Start) -> None:
    run = start(ByName(orders=1), max_votes=4)
    assert len(run.votes) == 4
    judge = ByName(orders=1)
    run = start(judge, seed=5)  # other orders, but the pairs are judged already
    assert len(judge.asked) == 5
    assert len({(v.prompt_id, *sorted((v.first, v.second))) for v in run.votes}) == 9


def test_max_votes_ends_it_and_the_next_run_goes_on(start: Start) -> None:
    run = start(ByName(), max_votes=7)
    assert (len(run.votes), run.stop_reason, run.pairs_open) == (7, "max-votes", 6)
    run = start(ByName(), max_votes=11)
    assert (len(run.votes), run.stop_reason, run.pairs_open) == (18, "complete", 0)
    assert set(shown(run.votes).values()) == {1}


def test_a_spent_budget_ends_it_cleanly(start: Start) -> None:
    judge = ByName(budget=5)
    run = start(judge)
    assert (len(run.votes), run.stop_reason, run.pairs_open) == (5, "max-cost", 7)
    assert judge.closed
    assert start(ByName()).pairs_open == 0


def test_invalid_answers_are_no_votes_and_are_asked_again(start: Start, tmp_path: Path) -> None:
    run = start(ByName(invalid={("p1", "a", "b"), ("p2", "c", "b")}))
    assert (len(run.votes), run.pairs_open) == (18, 2)
    assert standing_of(run)["n_comparisons"] == 7
    assert run.manifest["counts"]["invalid"] == 2
    raws = {vote.raw for vote in logged(tmp_path / "run") if vote.verdict == "invalid"}
    assert raws == {"I'd rather not ? say"}  # half a character is no UTF-8
    judge = ByName()
    run = start(judge)
    assert {(s.prompt_id, s.first.contestant) for s in judge.asked} == {("p1", "a"), ("p2", "c")}
    assert (run.pairs_open, run.manifest["counts"]["invalid"]) == (0, 0)


def test_a_changed_picture_is_judged_again_and_its_old_votes_do_not_count(
    start: Start, folders: list[Path], tmp_path: Path
) -> None:
    start(ByName())
    Image.new("RGB", (8, 8), "white").save(folders[1] / "p1.png")
    judge = ByName()
    run = start(judge)
    assert len(judge.asked) == 4
    assert {showing.prompt_id for showing in judge.asked} == {"p1"}
    assert len(run.votes) == 18
    assert len(logged(tmp_path / "run")) == 22
    assert standing_of(run)["n_comparisons"] == 9
    assert rate_run(tmp_path / "run").ratings == run.ratings


def test_other_settings_of_a_judge_are_another_judge(start: Start) -> None:
    start(ByName())
    judge = ByName(setting="stricter")
    run = start(judge)
    assert len(judge.asked) == 18
    assert len(run.votes) == 18
    assert {vote.judge_fingerprint for vote in run.votes} == {judge.fingerprint}


def test_folders_and_judges_may_be_added_later(
    start: Start, folders: list[Path], tmp_path: Path
) -> None:
    start(ByName())
    shutil.copytree(folders[0], tmp_path / "d")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "d" / "p0.png")
    second = ByName("other")
    run = arena(*folders, tmp_path / "d", judge=second, out=tmp_path / "run", resamples=20)
    assert len(second.asked) == 36
    assert set(run.ratings["judges"]) == {"by-name", "other"}
    assert standing_of(run)["n_comparisons"] == 9
    assert run.ratings["agreement"]["pairs"][0]["n"] == 9
    assert run.pairs_open == 9  # those of d that the first judge was not asked about
    assert rate_run(tmp_path / "run").ratings == run.ratings


def test_a_folder_that_leaves_does_not_count(start: Start, folders: list[Path]) -> None:
    first = start(ByName())
    with pytest.warns(RealBenchWarning, match="held a run with c, too"):
        run = arena(*folders[:2], judge=ByName(), out=first.out, resamples=20)
    assert run.contestants == ["a", "b"]
    assert standing_of(run)["n_comparisons"] == 3
    assert len(start(ByName()).votes) == 18


def test_a_vote_that_is_taken_back_is_replaced(start: Start, tmp_path: Path) -> None:
    run = start(ByName(undoes=True))
    entries = read_log(tmp_path / "run" / VOTES_FILE).entries
    assert [type(entry) for entry in entries[:3]] == [Vote, Retraction, Vote]
    assert len(run.votes) == 18
    assert set(shown(run.votes).values()) == {1}


@pytest.mark.slow
def test_a_judge_that_fails_does_not_cost_the_others_their_votes(
    start: Start, tmp_path: Path
) -> None:
    with pytest.raises(RealBenchError, match="second fell over"):
        start(ByName(), ByName("second", breaks_after=3), ByName("third"))
    assert Counter(vote.judge for vote in logged(tmp_path / "run")) == {"by-name": 18, "second": 3}
    ratings = json.loads((tmp_path / "run" / "ratings.json").read_text())
    assert ratings["judges"]["by-name"]["n_comparisons"] == 9
    assert json.loads((tmp_path / "run" / "run.json").read_text())["stop_reason"] == "failed"
    run = start(ByName(), ByName("second"), ByName("third"))
    assert run.pairs_open == 0
    assert set(shown(run.votes).values()) == {1}


def test_ctrl_c_keeps_the_votes_and_rates_them(start: Start) -> None:
    judge = ByName(interrupts_after=10)
    with pytest.raises(ArenaInterrupted) as caught:
        start(judge)
    run = caught.value.run
    assert (len(run.votes), run.stop_reason, run.pairs_open) == (10, "interrupted", 4)
    assert standing_of(run)["n_comparisons"] == 5
    assert (run.out / "report.html").exists()
    assert judge.closed
    assert start(ByName()).pairs_open == 0


def test_a_torn_line_is_cut_off_and_said(start: Start, tmp_path: Path) -> None:
    start(ByName())
    path = tmp_path / "run" / VOTES_FILE
    path.write_bytes(path.read_bytes()[:-40])
    judge = ByName()
    run = start(judge)
    assert len(judge.asked) == 1
    assert len(run.votes) == 18
    assert any("half a line" in note for note in run.manifest["notes"])


def test_the_active_schedule_stops_when_neighbors_are_apart_and_goes_on_when_resumed(
    tmp_path: Path,
) -> None:
    folders = []
    for m, name in enumerate("abcd"):
        folder = tmp_path / name
        folder.mkdir()
        for n in range(40):
            Image.new("RGB", (4, 4), (40 * m, 5 * n, 0)).save(folder / f"{n}.png")
        folders.append(folder)
    more: dict[str, Any] = {"schedule": "active", "out": tmp_path / "run", "resamples": 100}
    begun = arena(*folders, judge=ByName(), max_votes=15, **more)
    assert (len(begun.votes), begun.stop_reason) == (15, "max-votes")
    run = arena(*folders, judge=ByName(invalid={("3", "a", "b"), ("3", "b", "a")}), **more)
    assert run.stop_reason == "separated"
    assert len(run.votes) < 240  # of 480
    assert set(shown(run.votes).values()) == {1}
    assert [row["contestant"] for row in standing_of(run)["ratings"]] == list("abcd")
    judge = ByName()
    assert arena(*folders, judge=judge, **more).stop_reason == "separated"
    assert judge.asked == []


def test_the_active_schedule_ends_when_no_pair_is_left(start: Start) -> None:
    run = start(ByName(invalid={("p0", "a", "b")}), schedule="active")
    assert (run.stop_reason, len(run.votes), run.pairs_open) == ("complete", 18, 1)
    judge = ByName()
    assert start(judge, schedule="active").pairs_open == 0
    assert len(judge.asked) == 1


def test_what_cannot_be_run_is_a_usage_error(start: Start) -> None:
    for judges, more, message in (
        ([], {}, "no judge"),
        ([ByName(), ByName()], {}, "given twice"),
        (["nobody"], {}, "no judge 'nobody'"),
        ([ByName()], {"schedule": "some"}, "no schedule"),
        ([ByName()], {"max_votes": 0}, "max_votes"),
        ([ByName()], {"max_cost": 0}, "max_cost"),
        ([ByName()], {"seed": -1}, "seed"),
        ([ByName()], {"resamples": 0}, "resamples"),
    ):
        with pytest.raises(UsageError, match=message):
            start(*judges, **more)


# --- Rating again, and merging -----------------------------------------------------------------


def test_rating_again_needs_no_pictures_and_asks_nobody(
    start: Start, folders: list[Path], tmp_path: Path
) -> None:
    run = start(ByName())
    for folder in folders:
        shutil.rmtree(folder)
    for name in ("ratings.json", "ratings.csv", "report.html"):
        (tmp_path / "run" / name).unlink()
    manifest, votes = ((tmp_path / "run" / n).read_bytes() for n in ("run.json", VOTES_FILE))
    again = rate_run(tmp_path / "run")
    assert again.ratings == run.ratings
    assert (tmp_path / "run" / "report.html").exists()
    assert manifest == (tmp_path / "run" / "run.json").read_bytes()
    assert votes == (tmp_path / "run" / VOTES_FILE).read_bytes()
    assert rate_run(tmp_path / "run", resamples=5).ratings["resamples"] == 5


def test_what_is_no_run_is_one_line(start: Start, tmp_path: Path) -> None:
    run = start(ByName()).out
    assert run is not None
    manifest = json.loads((run / "run.json").read_text())
    (tmp_path / "empty").mkdir()
    for folder, text, message in (
        (tmp_path / "missing", None, "no such folder"),
        (tmp_path / "empty", None, "has no run.json"),
        (run, "{", "is damaged"),
        (run, "[1]", "is damaged"),
        (run, json.dumps(manifest | {"judges": 3}), "is damaged"),
        (run, json.dumps({k: v for k, v in manifest.items() if k != "prompts"}), "is damaged"),
    ):
        if text is not None:
            (run / "run.json").write_text(text)
        with pytest.raises(RealBenchError, match=message):
            rate_run(folder)


@pytest.mark.slow
def test_merged_runs_have_every_vote_once(
    start: Start, folders: list[Path], tmp_path: Path
) -> None:
    start(ByName(), out=tmp_path / "one", max_votes=8)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    arena(*folders, judge=ByName(), out=tmp_path / "two", resamples=20)
    arena(*folders[:2], judge=ByName("other"), out=tmp_path / "three", resamples=20)
    merged = merge([tmp_path / n for n in ("one", "two", "three")], tmp_path / "all")
    assert (merged.n_votes, merged.n_duplicates, merged.n_again) == (24, 8, 0)
    assert merged.run.contestants == ["a", "b", "c"]
    assert standing_of(merged.run)["n_comparisons"] == 9
    assert standing_of(merged.run, "other")["n_comparisons"] == 3
    assert sorted(v.id for v in logged(tmp_path / "all")) == sorted(
        {v.id for name in ("one", "two", "three") for v in logged(tmp_path / name)}
    )
    assert (tmp_path / "all" / "report.html").exists()
    # It can be gone on with, as any other run.
    judge = ByName()
    assert arena(*folders, judge=judge, out=tmp_path / "all", resamples=20).out
    assert judge.asked == []


def test_an_edited_log_is_neither_rated_nor_merged_unless_it_is_said_to_be(
    start: Start, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        start(ByName(), out=tmp_path / name)
    before = verify_run(tmp_path / "one").seal
    assert (before.lines, before.whole) == (18, True)
    path = tmp_path / "one" / VOTES_FILE
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    for use in (
        lambda: verify_run(tmp_path / "one"),
        lambda: rate_run(tmp_path / "one"),
        lambda: merge([tmp_path / "one", tmp_path / "two"], tmp_path / "all"),
    ):
        with pytest.raises(EditedLogError, match="ends before the end of its line 18"):
            use()
    rated = rate_run(tmp_path / "one", edited=True)
    assert len(rated.votes) == 17
    assert "accepted with --accept-edits" in rated.manifest["notes"][-1]
    assert verify_run(tmp_path / "one").seal.lines == 17
    assert "accepted with --accept-edits" in rate_run(tmp_path / "one").manifest["notes"][-1]
    assert len(accepted_edits(tmp_path / "one")) == 1
    assert accepted_edits(tmp_path / "two") == []
    merged = merge([tmp_path / "one", tmp_path / "two"], tmp_path / "all")
    assert verify_run(tmp_path / "all").seal.lines == merged.n_votes == 35


def test_a_run_of_the_first_version_is_rated_with_a_note(start: Start, tmp_path: Path) -> None:
    run = start(ByName())
    path = tmp_path / "run" / VOTES_FILE
    chained = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line.partition(b',"chain"')[0] + b"}\n" for line in chained))
    with pytest.raises(EditedLogError):
        rate_run(tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    del manifest["votes_log"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))
    plain = path.read_bytes()
    path.write_bytes(b"".join(chained[:-2]))  # no run of that version: its end could be cut off
    with pytest.raises(EditedLogError, match="has digests, of which the manifest no longer tells"):
        rate_run(tmp_path / "run")
    path.write_bytes(plain)
    rated = rate_run(tmp_path / "run")
    assert rated.ratings == run.ratings
    assert "18 lines of votes.jsonl are of version 0.1.0" in rated.manifest["notes"][-1]
    judge = ByName()
    assert len(start(judge).votes) == 18
    assert judge.asked == []


def test_judging_twice_is_said_when_runs_are_merged(start: Start, tmp_path: Path) -> None:
    start(ByName(), out=tmp_path / "one")
    start(ByName(), out=tmp_path / "two", max_votes=4)
    merged = merge([tmp_path / "one", tmp_path / "two"], tmp_path / "all")
    assert (merged.n_votes, merged.n_duplicates, merged.n_again) == (22, 0, 4)
    assert standing_of(merged.run)["n_comparisons"] == 9


def test_runs_that_do_not_fit_are_not_merged(
    start: Start, folders: list[Path], tmp_path: Path
) -> None:
    start(ByName(), out=tmp_path / "one")
    start(ByName(setting="stricter"), out=tmp_path / "stricter")
    arena(folders[0], reference=folders[1], judge=ByName(), out=tmp_path / "ref", resamples=5)
    arena(folders[0], reference=folders[2], judge=ByName(), out=tmp_path / "ref2", resamples=5)
    Image.new("RGB", (8, 8), "white").save(folders[1] / "p1.png")
    start(ByName(), out=tmp_path / "changed")
    shutil.copytree(tmp_path / "one", tmp_path / "forged")
    forged = (tmp_path / "forged" / VOTES_FILE).read_text().replace('"tie"', '"first"')
    (tmp_path / "forged" / VOTES_FILE).write_text(
        forged.replace('"verdict":"first"', '"verdict":"tie"', 1)
    )
    rate_run(tmp_path / "forged", edited=True)
    for names, message in (
        (["one"], "two runs"),
        (["one", "one"], "given twice"),
        (["one", "missing"], "no such folder"),
        (["one", "stricter"], "other settings in .*one than in .*stricter"),
        (["one", "changed"], "b's picture of prompt p1 is another one"),
        (["one", "ref"], "b is the reference in one run"),
        (["ref", "ref2"], r"different references \(b, c\)"),
        (["one", "forged"], "different votes with the id"),
    ):
        with pytest.raises(RealBenchError, match=message):
            merge([tmp_path / name for name in names], tmp_path / "all")
        assert not (tmp_path / "all").exists()
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    with pytest.raises(RealBenchError, match="exists already"):
        merge([tmp_path / "one", tmp_path / "copy"], tmp_path / "one")


# --- Killed ------------------------------------------------------------------------------------

CODE = """
import sys
from tests.arena.judges import ByName
from realbench.arena.run import arena
arena(*sys.argv[2:], judge=ByName(seconds=0.01), out=sys.argv[1], resamples=2)
"""


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(
    tmp_path: Path,
) -> None:
    folders = []
    for m in range(5):
        folder = tmp_path / f"m{m}"
        folder.mkdir()
        for n in range(8):
            Image.new("RGB", (4, 4), (40 * m, 10 * n, 0)).save(folder / f"{n}.png")
        folders.append(str(folder))
    out = tmp_path / "run"
    draw = random.Random(1)
    grown, killed = [0], 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, str(out), *folders], stderr=subprocess.PIPE, text=True
        )
        # Some are killed at any moment, most after they have written something.
        if draw.random() < 0.8:
            deadline = time.monotonic() + 60
            path = out / VOTES_FILE
            while process.poll() is None and time.monotonic() < deadline:
                if path.exists() and path.stat().st_size > grown[-1] + draw.randrange(8_000):
                    break
                time.sleep(0.001)
            time.sleep(draw.random() * 0.02)
        else:
            time.sleep(draw.random())
        if process.poll() is None and killed < 8:
            process.send_signal(signal.SIGKILL)
        _, stderr = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, stderr
        killed += 1
        grown.append((out / VOTES_FILE).stat().st_size if (out / VOTES_FILE).exists() else 0)
    assert killed >= 3
    assert sorted(grown) == grown
    whole = arena(*folders, judge=ByName(), out=tmp_path / "whole", resamples=2)
    votes = logged(out)
    assert set(shown(votes).values()) == {1}
    assert shown(votes) == shown(whole.votes)
    assert {(*key, v.verdict) for v in votes for key in shown([v])} == {
        (*key, v.verdict) for v in whole.votes for key in shown([v])
    }
    assert json.loads((out / "ratings.json").read_text()) == whole.ratings


def test_options_take_the_seed_of_the_run(start: Start) -> None:
    run = start(ByName(), options=JudgeOptions(cache=False), seed=4)
    assert (run.manifest["seed"], run.ratings["seed"]) == (4, 4)


def test_the_package_can_be_called(tmp_path: Path) -> None:
    """What it is given reaches the function, whose errors are its own."""
    for run in (realbench.arena, realbench.arena.arena):
        with pytest.raises(UsageError, match="no such folder"):
            run(tmp_path / "a", tmp_path / "b", judge=ByName(), resamples=2)


def test_the_package_is_at_hand_and_light() -> None:
    code = (
        "import sys, realbench; names = dir(realbench.arena)\n"
        "assert {'arena', 'merge', 'rate_run', 'JudgeOptions', 'make_judge'} <= set(names)\n"
        "assert not {'numpy', 'pydantic', 'torch'} & set(sys.modules), 'heavy'\n"
        "assert callable(realbench.arena)\n"
        "import realbench.arena\n"
        "from realbench import arena\n"
        "assert callable(arena) and arena is realbench.arena\n"
        "assert realbench.arena.arena.__name__ == 'arena'\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
