"""``realbench score`` where things are wrong: the machine, the files, the terminal."""

from __future__ import annotations

import csv
import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.commands import command, error_line, make_images, realbench
from tests.cli.conftest import SlowDetector


def manifest_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KiB."""
    place = tmp_path / "tiny-disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_for_results_is_one_line_and_nothing_is_scored_again(
    tmp_path: Path, cards: list[str], environment: dict[str, str], tiny_disk: Path
) -> None:
    folder, out = make_images(tmp_path / "a", 2), tiny_disk / "run"
    (tiny_disk / "filler").write_bytes(b"x" * 56 * 1024)
    arguments = ("score", folder, "--out", out, *cards)
    line = error_line(realbench(*arguments, environment=environment, code=1))
    assert str(tiny_disk) in line
    assert "No space left on device" in line
    assert "free some space" in line
    assert not [path for path in out.iterdir() if path.name.endswith(".part")]
    elsewhere = tmp_path / "run"
    realbench("score", folder, "--out", elsewhere, *cards, environment=environment)
    assert manifest_of(elsewhere)["n_cached"] == 2


def test_a_full_disk_for_the_cache_does_not_end_the_run(
    tmp_path: Path, cards: list[str], environment: dict[str, str], tiny_disk: Path
) -> None:
    folder, out = make_images(tmp_path / "a", 3), tmp_path / "run"
    (tiny_disk / "filler").write_bytes(b"x" * 40 * 1024)
    environment |= {"REALBENCH_CACHE": str(tiny_disk)}
    result = realbench("score", folder, "--out", out, *cards, environment=environment)
    assert result.stderr.startswith("warning: score cache")
    assert len(result.stderr.splitlines()) == 1
    assert manifest_of(out)["n_scored"] == 3


def test_without_the_usual_cache_a_run_resumes_from_its_own_folder(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder, out = make_images(tmp_path / "a", 3), tmp_path / "run"
    environment |= {"REALBENCH_CACHE": str(folder / "0000.png" / "below")}
    arguments = ("score", folder, "--out", out, *cards)
    result = realbench(*arguments, environment=environment)
    assert "using" in result.stderr
    assert manifest_of(out)["n_cached"] == 0
    realbench(*arguments, "--quiet", environment=environment)
    assert manifest_of(out)["n_cached"] == 3
    realbench(*arguments, "--no-cache", environment=environment)
    assert manifest_of(out)["n_cached"] == 0


def test_new_prompts_reference_and_folders_score_only_what_is_new(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    a, out = make_images(tmp_path / "a", 3), tmp_path / "run"
    realbench("score", a, "--out", out, *cards, environment=environment)
    photos, b = make_images(tmp_path / "photos", 2, seed=5), make_images(tmp_path / "b", 2, seed=6)
    (b / "0003.png").write_bytes((a / "0002.png").read_bytes())  # a copy under another name
    suite = tmp_path / "suite.jsonl"
    suite.write_text('{"id": "0000", "prompt": "x", "category": "c"}\n')
    more = ["--reference", photos, "--prompts", suite, "--out", out]
    shown = realbench("score", a, b, *more, *cards, environment=environment)
    manifest = manifest_of(out)
    assert (manifest["n_scored"], manifest["n_cached"]) == (8, 4)
    assert "prompt ids not in the prompts file" in shown.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["folders"][0]["categories"]["c"]["n"] == 1
    names = {(row["folder"], row["image"]): row["sha256"] for row in rows_of(out)}
    assert names["b", "0003.png"] == names["a", "0002.png"]


def test_awkward_files_are_rows_with_a_reason_of_one_line(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder, out = make_images(tmp_path / "a", 1), tmp_path / "a" / "run"
    good = (folder / "0000.png").read_bytes()
    (folder / "half.png").write_bytes(good[: len(good) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.webp").write_bytes(b"<!DOCTYPE html><html></html>")
    (folder / "dangling.png").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    (folder / "notes.txt").write_text("ignored")
    os.mkfifo(folder / "pipe.png")
    Image.new("RGB", (300, 300)).save(folder / "large.png")
    rng = np.random.default_rng(0)
    tiny = Image.fromarray(rng.integers(0, 256, (8, 8, 4), np.uint8), "RGBA")
    tiny.save(folder / 'tiny, with "quotes" and é.gif', save_all=True)
    odd = os.fsencode(folder) + b"/caf\xe9\n.png"
    with open(odd, "wb") as file:
        tiny.rotate(90).save(file, "PNG")  # other pixels: a copy would not count
    result = realbench(
        *("score", folder, "--out", out, "--max-pixels", 50_000, *cards), environment=environment
    )
    rows = {row["image"]: row for row in rows_of(out)}
    assert set(rows) == {
        *("0000.png", "half.png", "empty.jpg", "page.webp", "dangling.png", "pipe.png"),
        *("large.png", 'tiny, with "quotes" and é.gif', "caf\\xe9\\x0a.png"),
    }
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {
        *("0000.png", 'tiny, with "quotes" and é.gif', "caf\\xe9\\x0a.png"),
    }
    for name, row in rows.items():
        assert "\n" not in row["reason"]
        assert bool(row["reason"]) == (row["status"] == "unreadable") == (row["realism"] == "")
        assert row["reason"] == "" or name in result.stdout
    assert "--max-pixels" in rows["large.png"]["reason"]
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "half.png" in report
    assert result.stderr == ""


def test_a_reader_that_goes_away_is_no_trouble(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder = make_images(tmp_path / "a", 1)
    realbench("score", folder, "--quiet", *cards, environment=environment)  # fills the cache
    process = subprocess.Popen(
        command("score", folder, *cards),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 1


@pytest.mark.slow
def test_a_terminal_without_unicode_gets_its_table(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder = make_images(tmp_path / "a", 3)
    plain = environment | {"PYTHONIOENCODING": "ascii"}
    result = realbench("score", folder, *cards, environment=plain, process=True)
    assert "realism" in result.stdout


@pytest.mark.slow
def test_progress_is_drawn_on_a_terminal_alone(
    tmp_path: Path, slow_detector: SlowDetector, cards: list[str], environment: dict[str, str]
) -> None:
    folder = make_images(tmp_path / "a", 20)
    for quiet in (False, True):
        ours, theirs = pty.openpty()
        chosen = ["--no-cache", *slow_detector.options, *(["--quiet"] if quiet else [])]
        process = subprocess.Popen(
            command("score", folder, *chosen),
            env=slow_detector.environment | {"TERM": "xterm-256color"},
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        )
        shown = read_terminal(ours, process)
        os.close(theirs)
        os.close(ours)
        assert process.returncode == 0, shown
        assert ("scoring" in shown) == (not quiet)
        assert ("images/s" in shown) == (not quiet)
        if not quiet:
            assert "/20" in shown
    piped = realbench("score", folder, *cards, environment=environment)
    assert piped.stderr == ""


def read_terminal(descriptor: int, process: subprocess.Popen[bytes]) -> str:
    """Read what a process writes to a terminal until it ends."""
    shown, deadline = b"", time.monotonic() + 200
    while time.monotonic() < deadline:
        ready, _, _ = select.select([descriptor], [], [], 0.1)
        if ready:
            shown += os.read(descriptor, 65536)
        elif process.poll() is not None:
            return shown.decode(errors="replace")
    process.kill()
    raise AssertionError(f"still running: {shown!r}")


def test_numbers_that_make_no_sense_are_misuse(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder = make_images(tmp_path / "a", 1)
    for option in ("--batch-size", "--workers", "--max-pixels"):
        for value in ("0", "-3", "many"):
            result = realbench("score", folder, option, value, environment=environment, code=2)
            assert option in error_line(result)
    result = realbench("score", environment=environment, code=2)
    assert "FOLDER" in error_line(result)
    result = realbench("score", folder, "--refrence", folder, environment=environment, code=2)
    assert "--reference" in error_line(result)
    result = realbench("scor", environment=environment, code=2)
    assert "'score'" in error_line(result)
    for arguments in ([], ["detectors"]):
        assert "Usage: realbench" in realbench(*arguments, environment=environment).stdout


def bound_by_permissions() -> list[str]:
    """Return what to put before a command so that permissions bind it, for root too."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to change that")
    powers = "-dac_override,-dac_read_search"
    return ["setpriv", "--bounding-set", powers, "--inh-caps", powers]


@pytest.mark.slow
def test_what_permissions_forbid_is_named(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    folder, out = make_images(tmp_path / "a", 2), tmp_path / "run"
    (folder / "0001.png").chmod(0)
    locked = [folder / "sub", tmp_path / "cache"]
    for place in locked:
        place.mkdir(mode=0o000)
    arguments = command("score", folder, "--out", out, *cards)
    result = subprocess.run(
        [*bound_by_permissions(), *arguments],
        env=environment,
        text=True,
        capture_output=True,
        timeout=240,
        check=False,
    )
    for place in locked:
        place.chmod(0o700)  # for whoever cleans up
    assert result.returncode == 0, result.stderr
    assert "0001.png: permission denied" in " ".join(result.stdout.split())
    assert "cannot list this folder" in " ".join(result.stdout.split())
    assert result.stderr.startswith(f"warning: score cache {tmp_path / 'cache'}")
    assert len(result.stderr.splitlines()) == 1
    assert manifest_of(out)["n_failed"] == 1


MEASURE = """
import resource, sys, realbench
realbench.score(sys.argv[1], detectors=sys.argv[2:], cache=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(
    tmp_path: Path, cards: list[str], environment: dict[str, str]
) -> None:
    peaks = []
    for count in (40, 400):
        folder = make_images(tmp_path / str(count), count, size=500)
        result = subprocess.run(
            [sys.executable, "-c", MEASURE, str(folder), *cards[1::2]],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(result.stdout))
    decoded = 400 * 500 * 500 * 3 / 2**20  # MiB, were all of them kept
    assert peaks[1] - peaks[0] < decoded / 5


def test_a_demo_that_would_go_into_a_file_is_misuse(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "file").write_text("")
    told = error_line(
        realbench("demo", "--out", tmp_path / "file", environment=environment, code=2)
    )
    assert "is a file" in told
