"""``report.html``: what it says, that it stands alone, and that names cannot break it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from realbench.prompts import Prompt
from realbench.report.page import bibtex
from realbench.scoring.report import render_score_report, write_score_report
from realbench.scoring.run import ScoreRun
from tests.pages import Page
from tests.scoring.runs import make_run

HIGH = [0.9, 0.8, 0.85, 0.95, 0.7, 0.9, 0.88, 0.91, 0.83, 0.79, 0.86, 0.92]
LOW = [0.2, 0.1, 0.15, 0.3, 0.05, 0.22, 0.18, 0.12, 0.09, 0.25, 0.19, 0.14]
HOSTILE = "<script>alert('x')</script>\"'&\u202e"


def render(run: ScoreRun) -> str:
    return render_score_report(run.table, run.summary, run.manifest, run.paths)


def test_the_report_says_what_the_run_found(tmp_path: Path) -> None:
    photos = {"photos": [0.97, 0.9, 0.99] * 4}
    failures = [("flux", "bad.png", "truncated JPEG")]
    run = make_run(
        tmp_path, {**photos, "flux": HIGH, "sdxl": LOW}, reference="photos", failures=failures
    )
    text = Page(render(run)).text
    assert "flux is more photoreal than sdxl" in text
    for entry in [*run.summary["folders"], run.summary["reference"]]:
        realism = entry["realism"]
        assert f"{realism['estimate']:.2f} {realism['low']:.2f}–{realism['high']:.2f}" in text
        assert f"{entry['n']} images, {entry['n_prompts']} prompts" in text
    auc = run.summary["folders"][1]["auc"]
    assert f"{auc['estimate']:.2f} {auc['low']:.2f}–{auc['high']:.2f}" in text
    assert "1 file could not be read" in text
    assert "bad.png truncated JPEG" in text
    assert "realbench score photos flux sdxl --out run" in text
    assert " ".join(bibtex().split()) in text
    assert "fingerprint ffffffffffffffff" in text.replace("  ", " ")


def test_verdicts_have_shares_their_bound_and_the_spread_of_sources(tmp_path: Path) -> None:
    plain = make_run(tmp_path / "plain", {"a": HIGH, "b": LOW})
    assert "Verdicts" not in Page(render(plain)).text
    photos, made = {"street": [0.5, 0.9] * 20, "home": [0.15] * 2 + [0.95] * 38}, {"x": LOW * 4}
    run = make_run(tmp_path / "run", {"a": HIGH, "b": LOW}, held_out=(photos, made))
    text = Page(render(run)).text
    assert "Generated: realism below 0.50. Photograph: realism above 0.30." in text
    assert "At most 5 % of photographs are called generated" in text.replace("\xa0", " ")
    assert "2 sources of photographs" in text
    shares = {entry["folder"]: entry["verdicts"] for entry in run.summary["folders"]}
    assert shares["a"]["photograph"]["estimate"] == 1
    assert shares["b"]["generated"]["estimate"] == 1
    assert "at worst 5 % (home, n = 40)" in text.replace("( ", "(").replace(" ,", ",")


def test_the_prompt_suite_is_named_where_there_is_one(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"a": HIGH, "b": LOW})
    assert "Prompt suite" not in Page(render(run)).text
    run.manifest["suite"] = {"name": "mini <b>", "version": 2, "sha256": "5" * 64, "n_prompts": 48}
    text = Page(render(run)).text
    assert "Prompt suite mini <b> 2 (48 prompts)" in text
    assert "mini <b> 2 (48 prompts) ; SHA-256 5555555555555555" in text


def test_sentences_are_apart_and_a_rate_of_0_is_explained(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"photos": HIGH, "a": HIGH, "b": LOW}, reference="photos")
    text = Page(render(run)).text
    assert not re.findall(r"[a-z)]\.[A-Z]\w+ ", text)
    assert "A rate of 0 or 1 was the same on every prompt" in text  # b's escape rate
    run = make_run(tmp_path / "mixed", {"a": [*HIGH[:6], *LOW[:6]]})
    assert "A rate of 0 or 1" not in Page(render(run)).text


def test_ties_are_said(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"a": HIGH, "b": HIGH[::-1], "c": LOW})
    text = Page(render(run)).text
    assert "a and b share the lead among 3 folders" in text
    assert "Statistically tied: a and b" in text
    assert "1–2" in text


def test_the_report_stands_alone(tmp_path: Path) -> None:
    page = Page(render(make_run(tmp_path, {"a": HIGH, "b": LOW})))
    assert "script" not in [tag for tag, _ in page.tags]
    for tag, attributes in page.tags:
        for key in ("src", "href"):
            value = attributes.get(key) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, value)
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 12 + 12 + 6
    assert all(picture["alt"] for picture in pictures)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        {HOSTILE: HIGH, "b": LOW},
        names={HOSTILE: ["</style><img src=x onerror=alert(1)>.png"]},
        failures=[(HOSTILE, "<svg onload=alert(2)>", "</td><script>alert(3)</script>")],
    )
    html = render(run)
    page = Page(html)
    assert "script" not in [tag for tag, _ in page.tags]
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert "<script>alert('x')</script>\"'&\\u202e" in page.text
    assert "\u202e" not in html
    assert "</td><script>alert(3)</script>" in page.text


def test_many_folders_get_a_matrix_and_every_pair(tmp_path: Path) -> None:
    folders = {f"model-{n}": [max(0, s - 0.08 * n) for s in HIGH] for n in range(6)}
    page = Page(render(make_run(tmp_path, folders)))
    assert "All 15 pairs with intervals" in page.text
    cells = [a["class"] for tag, a in page.tags if tag == "td" and a.get("title")]
    assert len(cells) == 30
    assert cells.count("is-higher") == cells.count("is-lower") > 0


def test_three_detectors_show_three_correlations(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"a": HIGH + LOW}, detectors=["one", "two", "three"])
    text = Page(render(run)).text
    assert len(re.findall(r"rank correlation \d", text)) == 3


def test_one_detector_has_none_to_agree_with(tmp_path: Path) -> None:
    text = Page(render(make_run(tmp_path, {"a": HIGH}, detectors=["one"]))).text
    assert "a has a mean realism of 0.86" in text
    assert "Do they agree" not in text


def test_categories_are_tabulated(tmp_path: Path) -> None:
    suite = {f"{n:04d}": Prompt(f"{n:04d}", "x", "food" if n % 2 else "people") for n in range(12)}
    run = make_run(tmp_path, {"a": HIGH, "b": LOW}, prompts=suite)
    text = Page(render(run)).text
    assert "Folder food people" in text
    assert "n = 6" in text


def test_few_prompts_bring_a_caution_and_many_do_not(tmp_path: Path) -> None:
    few = Page(render(make_run(tmp_path / "few", {"a": HIGH[:3]}))).text
    many = Page(render(make_run(tmp_path / "many", {"a": HIGH}))).text
    assert "a has fewer than 10" in few
    assert "fewer than 10" not in many


def test_a_folder_without_any_readable_image_is_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"good": HIGH}, failures=[("bad", "0.png", "not an image")])
    text = Page(render(run)).text
    assert "good has a mean realism of 0.86" in text
    assert "0 images, 0 prompts, 1 unreadable" in text
    assert "nan" not in text.lower().split()


def test_nothing_scored_is_still_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, {}, failures=[("bad", "0.png", "not an image")])
    page = render(run)
    assert "No image could be scored" in Page(page).text
    assert 'id="problems"' in page
    for empty in ("ranking", "distributions", "pictures", "detectors"):
        assert f'id="{empty}"' not in page
        assert f'"#{empty}"' not in page


def test_a_failed_write_leaves_the_old_report_and_no_remains(tmp_path: Path) -> None:
    run = make_run(tmp_path / "images", {"a": HIGH[:3]})
    out = tmp_path / "run"
    out.mkdir()
    path = write_score_report(run, out)
    assert path == out / "report.html"
    before = path.read_bytes()
    run.manifest.pop("seed")
    with pytest.raises(Exception, match="seed"):
        write_score_report(run, out)
    assert path.read_bytes() == before
    assert list(out.iterdir()) == [path]


def test_a_run_from_python_shows_the_command_that_does_the_same(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"my model": HIGH})
    run.manifest["argv"] = ["study.py"]
    text = Page(render(run)).text
    assert "realbench score '/images/my model' --detector semantic-lite" in text


def test_many_ties_are_counted_beside_the_matrix(tmp_path: Path) -> None:
    folders = {f"model-{n}": HIGH[n:] + HIGH[:n] for n in range(6)}
    text = Page(render(make_run(tmp_path, folders))).text
    assert "No difference is supported" in text
    text = Page(render(make_run(tmp_path / "more", {**folders, "low": LOW}))).text
    assert "15 of 21 pairs are statistically tied (≈)" in text
