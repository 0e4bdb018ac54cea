"""An arena's ``report.html``: what it says, that it stands alone, that no text can break it."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from realbench.arena.report.report import render_arena_report, write_arena_report
from realbench.arena.results import ArenaRun
from realbench.report.page import bibtex
from tests.arena.arenas import TestJudge, make_arena
from tests.pages import Page

HOSTILE = "<script>alert('x')</script>\"'&\u202e"
LADDER = {"photos": 9.0, "flux": 6.0, "sdxl": 3.0, "kandinsky": 0.0}
DETECTORS = TestJudge("detectors", is_vlm=False, reason=None, probabilities=True)
HUMAN = TestJudge("human", orders=1, is_vlm=False, reason=None, noise=2.0)
EXAMPLE_KAPPA = {"estimate": 0.58, "low": 0.5, "high": 0.66, "n": 120}


def read(run: ArenaRun) -> Page:
    return Page(render_arena_report(run))


def whole(value: float | None) -> str:
    return f"{value:.0f}".replace("-", "−")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ArenaRun:
    return make_arena(tmp_path_factory.mktemp("arena"), LADDER, reference="photos")


def test_the_report_says_what_the_run_found(run: ArenaRun) -> None:
    text = read(run).text
    assert "flux is judged the most real of 3 models; the photographs stay on top" in text
    standing = run.ratings["judges"]["openai:gpt-x"]
    assert f"{standing['n_comparisons']} comparisons on 20 prompts" in text
    for row in standing["ratings"]:
        rating = row["bradley_terry"]
        low, high = whole(rating["low"]), whole(rating["high"])
        separator = " to " if "−" in low + high else "–"
        assert f"{whole(rating['estimate'])} {low}{separator}{high}" in text
        assert f"{row['wins']} – {row['ties']} – {row['losses']}" in text
    bias = standing["position_bias"]["first_share"]
    shares = [f"{100 * bias[key]:.0f}" for key in ("estimate", "low", "high")]
    assert f"{shares[0]} % {shares[1]}–{shares[2]} % n = {bias['n']}" in text
    assert " ".join(bibtex().split()) in text
    assert "photorealism (SHA-256 bbbbbbbbbbbbbbbb)" in text
    assert "realbench arena /images/flux /images/sdxl /images/kandinsky --out run" in text
    assert "The run ended because every pair of the schedule was judged." in text
    assert "not a vision-language model" not in text


def test_the_photographs_stand_first_and_keep_their_rank(run: ArenaRun) -> None:
    page = read(run)
    rows = [a["class"] for _, a in page.tags if (a.get("class") or "").split()[:1] == ["row"]]
    assert rows[:4] == ["row is-reference", "row", "row", "row"]
    assert "photos photographs" in page.text


def test_photographs_below_a_model_still_stand_first(tmp_path: Path) -> None:
    found = read(make_arena(tmp_path, {"photos": 0.0, "a": 4.0, "b": -4.0}, reference="photos"))
    assert "a is judged more real than b; a is judged more real than the photographs" in found.text
    assert "1 model lies to the right of it" in found.text


def test_a_shared_lead_is_said(tmp_path: Path) -> None:
    judge = TestJudge(noise=2.0)
    run = make_arena(tmp_path, {"a": 3.0, "b": 3.0, "c": -3.0}, judges=[judge])
    text = read(run).text
    assert re.search("(a and b|b and a) share the lead among 3 models", text)
    assert "1 of 2 pairs of neighbours on the ladder is not separated" in text
    assert "Wins: the share of all its comparisons" in text


def test_one_pair_and_one_prompt_bring_no_interval_and_a_caution(tmp_path: Path) -> None:
    text = read(make_arena(tmp_path, {"a": 3.0, "b": 0.0}, n_prompts=1)).text
    assert "The comparisons do not separate" in text
    assert "no interval" in text
    assert "Few prompts: 1, fewer than 10" in text
    assert not {"nan", "none", "inf"} & set(text.lower().replace(",", " ").split())


def test_no_comparison_at_all_is_still_a_report(tmp_path: Path) -> None:
    judge = TestJudge(invalid_every=1)
    run = make_arena(tmp_path, {"a": 3.0, "b": 0.0}, judges=[judge], n_prompts=2)
    text = read(run).text
    assert "No pair has been compared" in text
    assert "No answer was usable" in text
    assert "I cannot compare <b>people</b>." in text
    assert "the answer is no JSON" in text
    run = replace(run, votes=[], ratings={**run.ratings, "judges": {}})
    assert "No judge has answered" in read(run).text


def test_several_judges_are_compared(tmp_path: Path) -> None:
    judges = [DETECTORS, TestJudge(bias=1.0), HUMAN]
    run = make_arena(tmp_path, LADDER, reference="photos", judges=judges)
    run.ratings["agreement"] = {
        "krippendorff_alpha": {"estimate": 0.61, "low": 0.52, "high": 0.69, "n": 120},
        "pairs": [
            {
                "a": "detectors",
                "b": "openai:gpt-x",
                "cohen_kappa": EXAMPLE_KAPPA,
                "agreement": {"estimate": 0.78, "low": 0.72, "high": 0.83, "n": 120},
                "n": 120,
            },
            {"a": "detectors", "b": "human", "cohen_kappa": None, "agreement": None, "n": 0},
        ],
        "with_human": {"detectors": {"estimate": 0.75, "low": 0.6, "high": 0.9, "n": 80}},
    }
    text = read(run).text
    assert "3 judges say" in text
    assert "The judge “ detectors ” is not a vision-language model" in text
    assert "“ human ” is not" not in text
    assert "Under each judge" in text
    assert "alpha over all judges: 0.61 0.52–0.69, n = 120" in text
    assert "detectors and openai:gpt-x 0.58 0.50–0.66" in text
    assert "detectors and human – no interval" in text
    assert "the same result as people in 75 % of 80 comparisons 60–90 %" in text
    assert "one order asked" in text
    assert "human was asked in one random order" in text
    cost = run.ratings["judges"]["openai:gpt-x"]["usage"]["cost"]
    assert f"{cost:.2f}" in text


def test_the_default_judge_is_named_for_what_it_is(tmp_path: Path) -> None:
    run = make_arena(tmp_path, LADDER, judges=[DETECTORS])
    text = read(run).text
    assert "take the ladder as a first look" in text
    assert "scores each alone" in text  # there is no position bias to show
    assert "No judge reported tokens or cost" in text
    assert "Do the judges agree" not in text
    assert "P(left) =" in text


def test_hostile_texts_stay_text(tmp_path: Path) -> None:
    judge = TestJudge("openai:" + HOSTILE, reason="</q><img src=x onerror=alert(1)>", bias=1.0)
    run = make_arena(
        tmp_path,
        {HOSTILE: 1.0, "</style><svg onload=alert(2)>": 0.5, "c": 0.0},
        reference=HOSTILE,
        judges=[judge],
        prompt="</p><iframe src=//evil.test>" + HOSTILE,
        manifest={
            "notes": [f"note {HOSTILE}"],
            "prompts": {"dropped": {HOSTILE: [HOSTILE]}, "missing": {}},
            "schedule": HOSTILE,
            "argv": ["realbench", "arena", HOSTILE],
            "versions": {HOSTILE: HOSTILE},
        },
    )
    html = render_arena_report(run)
    page = Page(html)
    assert not {"script", "svg onload", "iframe"} & {tag for tag, _ in page.tags}
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert "\u202e" not in html
    assert "<script>alert('x')</script>\"'&\\u202e" in page.text
    assert "</q><img src=x onerror=alert(1)>" in page.text
    assert "</p><iframe src=//evil.test>" in page.text
    assert html.count("</style>") == 1


def test_the_report_stands_alone(run: ArenaRun) -> None:
    page = read(run)
    assert "script" not in [tag for tag, _ in page.tags]
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "poster", "action"):
            value = attributes.get(key) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, value)
    assert "url(" not in render_arena_report(run)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) >= 8
    assert all(picture["alt"] for picture in pictures)
    anchors = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert anchors <= {a.get("id") for _, a in page.tags}


def test_missing_figures_are_dashes(run: ArenaRun) -> None:
    """Every figure may be null, as in ``ratings.json`` of few votes."""
    gaps = copy.deepcopy(run.ratings)
    standing = gaps["judges"]["openai:gpt-x"]
    for row in standing["ratings"][1:]:
        for key in ("elo", "trueskill", "win_rate", "win_rate_vs_reference"):
            row[key] = None
        row["rank"] = row["rank_low"] = row["rank_high"] = None
        row["bradley_terry"] = {"estimate": None, "low": None, "high": None, "n": 0}
    standing["win_matrix"]["win_rate"] = [[None] * 4] * 4
    standing["win_matrix"]["n"] = [[0] * 4] * 4
    for pair in standing["pairs"]:
        pair["difference"] = {"estimate": None, "low": None, "high": None, "n": 0}
        pair["p"], pair["tied"], pair["comparisons_needed"] = None, True, None
    standing["position_bias"] = {"first_share": None, "inconsistent_share": None}
    standing["usage"] = {"input_tokens": None, "output_tokens": None, "cost": None}
    standing["intransitive"] = {"triples": 0, "cyclic": 0, "share": None}
    text = read(replace(run, ratings=gaps)).text
    assert "No pair has been compared" in text
    assert not {"nan", "None"} & set(text.split())


def test_a_picture_that_has_gone_leaves_a_report(run: ArenaRun) -> None:
    gone = {key: Path("/nowhere") / key[1] for key in run.pictures}
    assert "file not available" in read(replace(run, pictures=gone)).text
    assert "file not available" in read(replace(run, pictures={})).text


def test_a_run_that_stopped_early_says_so(run: ArenaRun) -> None:
    def text(**changes: object) -> str:
        return read(replace(run, manifest={**run.manifest, **changes})).text

    stopped = text(stop_reason="max-cost", counts={"pairs_open": 7})
    assert "Not every pair is judged. The run ended because the cost set with --max-cost" in stopped
    assert "7 pairs are open" in stopped
    separated = text(stop_reason="separated", schedule="active", counts={"pairs_open": 7})
    assert "are open" not in separated
    assert "every neighbouring pair was separated" in separated


def test_stand_ins_and_absent_prompts_are_told(run: ArenaRun) -> None:
    manifest = copy.deepcopy(run.manifest)
    manifest["contestants"][0]["stands_in"] = {"000": "a.jpg"}
    manifest["prompts"] = {"dropped": {"flux": ["x1", "x2"]}, "missing": {"sdxl": ["y"]}}
    manifest["notes"] = ["sdxl lacks 1 of the 20 shared prompts"]
    text = read(replace(run, manifest=manifest)).text
    assert "judges saw these pairs without the prompt" in text
    assert "flux 2 x1 and x2 0" in text
    assert "sdxl 0 1 y" in text
    assert "sdxl lacks 1 of the 20 shared prompts" in text


def test_a_run_from_python_shows_the_command_that_does_the_same(run: ArenaRun) -> None:
    manifest = {**run.manifest, "argv": ["study.py"]}
    text = read(replace(run, manifest=manifest)).text
    command = "realbench arena /images/flux /images/sdxl /images/kandinsky --reference photos"
    assert f"{command} --judge openai:gpt-x --schedule all --seed 0" in text


def test_the_report_follows_from_what_is_on_disk(run: ArenaRun) -> None:
    """``ratings.json`` and ``run.json`` carry all that the page needs besides the votes."""
    stored = replace(
        run,
        ratings=json.loads(json.dumps(run.ratings)),
        manifest=json.loads(json.dumps(run.manifest)),
    )
    assert render_arena_report(stored) == render_arena_report(run)


def test_many_contestants_get_a_compact_ladder_and_colours(tmp_path: Path) -> None:
    strengths = {f"model-{n:02d}": n / 4 for n in range(20)}
    page = Page(render_arena_report(make_arena(tmp_path, strengths, n_prompts=3)))
    classes = [a.get("class") or "" for _, a in page.tags]
    assert "rows ranking ladder compact" in classes
    assert "matrix heat dense" in classes
    assert "n = 57" in page.text
    assert "for each contestant on 3 prompts" in page.text


def test_a_failed_write_leaves_the_old_report_and_no_remains(run: ArenaRun, tmp_path: Path) -> None:
    path = write_arena_report(run, tmp_path)
    assert path == tmp_path / "report.html"
    before = path.read_bytes()
    broken = {key: value for key, value in run.ratings.items() if key != "resamples"}
    with pytest.raises(KeyError, match="resamples"):
        write_arena_report(replace(run, ratings=broken), tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
