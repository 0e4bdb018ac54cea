"""``realbench score`` as its users run it: real files, what it prints, its exit codes."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.commands import command, error_line, make_images, realbench
from tests.cli.conftest import SlowDetector


def test_two_folders_and_photographs_fill_a_run_folder(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    a, b = make_images(tmp_path / "a", 4), make_images(tmp_path / "b", 4, seed=1)
    photos = make_images(tmp_path / "photos", 3, seed=2)
    (a / "0002.png").write_bytes((a / "0002.png").read_bytes()[:200])
    out = tmp_path / "run"
    shown = realbench(
        *("score", a, b, "--reference", photos, "--out", out, *cards),
        environment=environment,
        process=True,
    )
    assert "photographs" in shown.stdout
    assert "0002.png" in shown.stdout

    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("folder", "image", "prompt_id", "sha256", "status", "reason", "realism"),
        *("whole", "crops", "disagreement", "verdict"),
    ]
    assert [row["folder"] for row in rows] == ["a"] * 4 + ["b"] * 4 + ["photos"] * 3
    broken = next(row for row in rows if row["status"] == "unreadable")
    assert (broken["image"], broken["realism"]) == ("0002.png", "")
    assert "truncated" in broken["reason"]
    for row in rows:
        if row["status"] == "ok":
            low, high = sorted((float(row["whole"]), float(row["crops"])))
            assert low - 1e-5 <= float(row["realism"]) <= high + 1e-5
            assert float(row["disagreement"]) == pytest.approx(high - low, abs=2e-6)

    summary = json.loads((out / "summary.json").read_text())
    assert [entry["folder"] for entry in summary["folders"]] == ["a", "b"]
    assert (summary["folders"][0]["n"], summary["folders"][0]["n_failed"]) == (3, 1)
    assert summary["reference"]["folder"] == "photos"
    assert 0 <= summary["folders"][1]["auc"]["estimate"] <= 1
    (pair,) = summary["pairs"]
    assert pair["n_shared"] == 3
    assert any("prompt ids" in note for note in summary["notes"])
    manifest = json.loads((out / "run.json").read_text())
    assert {one["name"] for one in manifest["detectors"]} == {"whole", "crops"}
    assert manifest["n_failed"] == 1
    assert "<html" in (out / "report.html").read_text()


def test_json_is_all_of_stdout_and_quiet_is_silent(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder = make_images(tmp_path / "a", 2)
    result = realbench("score", folder, "--json", *cards, environment=environment)
    assert json.loads(result.stdout)["folders"][0]["n"] == 2
    assert result.stderr == ""
    result = realbench("score", folder, "--quiet", *cards, environment=environment)
    assert (result.stdout, result.stderr) == ("", "")


def test_a_cached_rerun_scores_nothing_and_does_not_load_torch(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder = make_images(tmp_path / "a", 3)
    out = tmp_path / "run"
    realbench("score", folder, "--out", out, *cards, environment=environment)
    before = (out / "scores.csv").read_bytes()
    moved = folder.rename(tmp_path / "moved")
    (moved / "0001.png").rename(moved / "renamed.png")
    code = (
        "import sys; from realbench.scoring import score; "
        f"run = score({str(moved)!r}, detectors={cards[1::2]!r}); "
        "assert 'torch' not in sys.modules; print(run.manifest['n_cached'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, text=True, capture_output=True, timeout=120
    )
    assert result.stdout.strip() == "3", result.stderr
    moved.rename(folder)
    (folder / "renamed.png").rename(folder / "0001.png")
    realbench("score", folder, "--out", out, *cards, environment=environment)
    assert (out / "scores.csv").read_bytes() == before
    assert json.loads((out / "run.json").read_text())["n_cached"] == 3

    make_images(folder, 1, seed=9)  # another 0000.png
    realbench("score", folder, "--out", out, *cards, environment=environment)
    assert json.loads((out / "run.json").read_text())["n_cached"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, slow_detector: SlowDetector, how: signal.Signals
) -> None:
    folder = make_images(tmp_path / "many", 40)
    arguments = ("score", folder, "--out", tmp_path / "run", *slow_detector.options)
    process = subprocess.Popen(
        command(*arguments), env=slow_detector.environment, text=True, stderr=subprocess.PIPE
    )
    database = tmp_path / "cache" / "scores.sqlite-wal"
    deadline = time.monotonic() + 120
    while not (database.exists() and database.stat().st_size > 40_000):
        assert process.poll() is None, "finished before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert stderr.startswith("error: interrupted")
        assert len(stderr.splitlines()) == 1
    realbench(*arguments, environment=slow_detector.environment, process=True)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert 0 < manifest["n_cached"] < 40
    assert manifest["n_scored"] == 40
    with (tmp_path / "run" / "scores.csv").open() as file:
        assert len({row["image"] for row in csv.DictReader(file)}) == 40


def test_misuse_is_one_line_with_exit_code_2(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder, empty = make_images(tmp_path / "a", 1), tmp_path / "empty"
    empty.mkdir()
    bad_prompts = tmp_path / "prompts.jsonl"
    bad_prompts.write_text('{"id": "x", "prompt": "y"}\nnot json\n')
    for arguments, expected in (
        (["missing", *cards], "missing"),
        ([empty, *cards], "no images"),
        ([folder / "0000.png", *cards], "not a folder"),
        ([folder, folder, *cards], "given twice"),
        ([folder, "--reference", folder, *cards], "given twice"),
        ([folder, "--prompts", bad_prompts, *cards], "line 2"),
        ([folder, "--prompts", tmp_path / "none.jsonl", *cards], "none.jsonl"),
        ([folder, *cards, *cards[:2]], "'whole' is given twice"),
        ([folder, "--detector", empty], "no card.toml"),
        ([folder, "--detector", "trace-light"], "did you mean trace-lite?"),
        ([folder, "--out", folder / "0000.png", *cards], "is a file"),
        ([folder, "--device", "quantum", *cards], "quantum"),
    ):
        result = realbench("score", *arguments, environment=environment, code=2, cwd=tmp_path)
        assert expected in error_line(result)


def test_only_unreadable_images_and_strict_fail_with_exit_code_1(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "x.png").write_bytes(b"")
    result = realbench("score", folder, *cards, environment=environment, code=1)
    assert "x.png" in error_line(result)
    make_images(folder, 1)
    realbench("score", folder, *cards, environment=environment)
    result = realbench("score", folder, "--strict", *cards, environment=environment, code=1)
    assert "x.png" in error_line(result)


@pytest.mark.slow
def test_a_full_disk_is_one_line_that_names_the_file(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder = make_images(tmp_path / "a", 2)
    realbench("score", folder, *cards, environment=environment)  # fills the cache
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
        "from realbench.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", limited, "score", str(folder), "--out", str(tmp_path / "r"), *cards],
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "scores.csv" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "r" / "scores.csv").exists()


def test_a_damaged_or_unwritable_cache_does_not_stop_a_run(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder, cache = make_images(tmp_path / "a", 1), tmp_path / "cache"
    cache.mkdir()
    (cache / "scores.sqlite").write_bytes(b"not a database, but long enough to look at" * 50)
    result = realbench("score", folder, *cards, environment=environment)
    assert "damaged" in result.stderr
    assert list(cache.glob("scores.sqlite.damaged-*"))
    blocked = environment | {"REALBENCH_CACHE": str(folder / "0000.png" / "x")}
    result = realbench("score", folder, *cards, environment=blocked)
    assert result.stderr.startswith("warning: score cache")


def test_help_and_version_import_nothing_heavy(environment: dict[str, str]) -> None:
    for argument in ("--help", "--version"):
        code = (
            "import sys, atexit\n"
            "heavy = {'torch', 'pandas', 'timm', 'scipy', 'sklearn', 'matplotlib', 'numpy'}\n"
            "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
            f"sys.argv = ['realbench', {argument!r}]\n"
            "from realbench.cli import main; main()"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], env=environment, text=True, capture_output=True
        )
        assert result.returncode == 0
        assert result.stdout.rstrip().endswith("heavy: []")
