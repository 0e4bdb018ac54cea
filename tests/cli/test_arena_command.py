"""``realbench arena`` as its users run it: real files, what it prints, its exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.commands import command, error_line, make_images, realbench
from tests.cli.conftest import SlowDetector

Options = list[str]


@pytest.fixture
def options(cards: list[str]) -> Options:
    # Random weights hardly tell pictures apart, and few resamples are enough here.
    return [*cards, "--margin", "0.0001", "--resamples", "20"]


def votes(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "votes.jsonl").read_text().splitlines()]


def test_folders_and_photographs_fill_a_run_folder(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    a, b = make_images(tmp_path / "a", 4), make_images(tmp_path / "b", 3, seed=1)
    photos = make_images(tmp_path / "photos", 3, seed=2)
    (b / "0002.png").write_bytes(b"")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "0000", "prompt": "a fox"}\n')
    arguments = ("arena", a, b, "--reference", photos, "--prompts", prompts, "--out")
    shown = realbench(*arguments, tmp_path / "run", *options, environment=environment, process=True)
    assert shown.stderr == ""
    text = " ".join(shown.stdout.split())
    for expected in (
        "Bradley",
        "photographs",
        "not a vision-language model",
        "unreadable: b/0002.png: the file is empty",
        "the prompts file does not name",
        "Report:",
    ):
        assert expected in text
    assert "position bias" not in text  # which detectors cannot have
    for name in ("votes.jsonl", "ratings.csv", "ratings.json", "run.json", "report.html"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert len(votes(tmp_path / "run")) == 2 * (3 + 3 + 1)
    before = (tmp_path / "run" / "ratings.csv").read_bytes()
    again = realbench("arena", "rate", tmp_path / "run", environment=environment, process=True)
    assert (tmp_path / "run" / "ratings.csv").read_bytes() == before
    assert "photographs" in again.stdout


def test_json_is_all_of_stdout_and_quiet_is_silent(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    a, b = make_images(tmp_path / "a", 2), make_images(tmp_path / "b", 2, seed=1)
    result = realbench("arena", a, b, "--json", *options, environment=environment)
    assert json.loads(result.stdout)["contestants"] == ["a", "b"]
    assert result.stderr == ""
    result = realbench("arena", a, b, "--quiet", *options, environment=environment)
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "whose"),
    [
        (("--template", "nosuch"), "--template is for the judge openai or hf, not for detectors"),
        (("--max-cost", "5"), "--max-cost is for the judge openai, not"),
        (("--no-browser",), "--no-browser is for the judge human, not"),
        (("--precision", "float16"), "--precision is for the judge hf, not"),
    ],
)
def test_an_option_that_no_judge_reads_is_misuse(
    option: Options, whose: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    folders = [make_images(tmp_path / name, 1, seed=n) for n, name in enumerate("ab")]
    told = error_line(realbench("arena", *folders, *option, environment=environment, code=2))
    assert whose in told


def test_folders_called_like_the_commands_are_given_with_a_dot(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    make_images(tmp_path / "merge", 1)
    make_images(tmp_path / "rate", 1, seed=1)
    for folders in (("./merge", "rate"), ("--json", "merge", "rate")):
        result = realbench(
            "arena", *folders, "--json", *options, environment=environment, cwd=tmp_path
        )
        assert json.loads(result.stdout)["contestants"] == ["merge", "rate"]


@pytest.mark.slow
def test_max_votes_says_how_much_is_open_and_a_rerun_finishes(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    a, b = make_images(tmp_path / "a", 4), make_images(tmp_path / "b", 4, seed=1)
    arguments = ("arena", a, b, "--out", tmp_path / "run", *options)
    result = realbench(*arguments, "--max-votes", 4, environment=environment)
    assert "2 pairs are open, since --max-votes is reached: run the same command again" in (
        " ".join(result.stdout.split())
    )
    result = realbench(*arguments, environment=environment)
    assert "pairs are open" not in result.stdout
    assert len(votes(tmp_path / "run")) == 8
    shutil.move(tmp_path / "run", tmp_path / "one")
    realbench(*arguments, "--max-votes", 2, environment=environment)
    merged = realbench(
        *("arena", "merge", tmp_path / "one", tmp_path / "run", "--out", tmp_path / "all"),
        environment=environment,
        process=True,
    )
    assert "10 votes of 2 runs" in merged.stdout
    assert "2 more votes on what the same judge had judged" in " ".join(merged.stdout.split())


def test_misuse_is_one_line_with_exit_code_2(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    a, b, empty = make_images(tmp_path / "a", 1), make_images(tmp_path / "b", 1), tmp_path / "none"
    other = make_images(tmp_path / "other", 1)
    (other / "0000.png").rename(other / "x.png")
    empty.mkdir()
    for arguments, expected in (
        ([a], "two contestants"),
        ([a, a], "given twice"),
        ([a, empty], "no images"),
        ([a, "missing"], "no such folder"),
        ([a, other], "no two folders share a prompt id"),
        ([a, b, "--judge", "oracle"], "choose among detectors, openai:MODEL, hf:MODEL, human"),
        ([a, b, "--judge", "detectors", "--judge", "detectors"], "given twice"),
        ([a, b, "--schedule", "some"], "--schedule"),
        ([a, b, "--max-votes", "0"], "--max-votes"),
        ([a, b, "--margin", "nan"], "margin"),
        ([a, b, "--out", a / "0000.png"], "is a file"),
        ([a, b, "--prompts", tmp_path / "none.jsonl"], "none.jsonl"),
        ([a, b, "--what"], "No such option"),
        (["merge"], "Missing argument"),
        (["merge", a, b], "--out"),
        (["merge", a, b, "--out", tmp_path / "m"], "has no run.json"),
        (["rate", a], "has no run.json"),
    ):
        own = [] if arguments[0] in ("merge", "rate") else options[:4]
        result = realbench("arena", *arguments, *own, environment=environment, code=2, cwd=tmp_path)
        assert expected in error_line(result)


def test_a_run_of_another_command_is_not_replaced(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    a, b = make_images(tmp_path / "a", 2), make_images(tmp_path / "b", 2, seed=1)
    cards = options[:4]
    runs = {
        "score": ("score", a, b, *cards),
        "arena": ("arena", a, b, *options),
        "bench": ("detectors", "bench", "--reference", a, "--generated", b, *cards),
    }
    for name, run in runs.items():
        realbench(*run, "--out", tmp_path / name, environment=environment)
    kept = {path: path.read_bytes() for path in tmp_path.glob("*/report.html")}
    for name, run in runs.items():
        for other in runs.keys() - {name}:
            refused = realbench(*run, "--out", tmp_path / other, environment=environment, code=2)
            assert f"{tmp_path / other} holds a run of realbench" in error_line(refused)
    assert kept == {path: path.read_bytes() for path in tmp_path.glob("*/report.html")}
    for run, name in ((runs["score"], "score"), (runs["arena"], "arena")):
        realbench(*run, "--out", tmp_path / name, environment=environment)


def test_trouble_is_one_line_with_exit_code_1(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    a, b = make_images(tmp_path / "a", 2), make_images(tmp_path / "b", 2, seed=1)
    out = tmp_path / "run"
    arguments = ("arena", a, b, "--out", out, *options)
    result = realbench(*arguments, "--max-votes", 1, environment=environment, code=1)
    assert "no pair has a result" in result.stderr.splitlines()[-1]
    whole = (out / "votes.jsonl").read_text()
    (out / "votes.jsonl").write_text("nonsense\n" + whole)
    result = realbench(*arguments, environment=environment, code=1)
    assert "votes.jsonl, line 1 is no vote" in error_line(result)
    (out / "votes.jsonl").write_text(whole)

    from realbench.arena.vote_log import VoteLog

    with VoteLog(out):
        result = realbench(*arguments, environment=environment, code=2)
        assert "another run is writing to" in error_line(result)
    realbench(*arguments, environment=environment)
    assert len(votes(out)) == 4


def test_what_an_address_carries_is_not_written_down(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    a, b = make_images(tmp_path / "a", 1), make_images(tmp_path / "b", 1, seed=1)
    url = "http://me:hunter2@localhost:1/v1?key=hunter3"
    keyed = environment | {"OPENAI_API_KEY": "hunter4"}
    out = tmp_path / "run"
    judges = ("--judge", "detectors", "--judge", "openai:nobody", "--base-url", url)
    realbench("arena", a, b, "--out", out, *judges, *options, environment=keyed, code=1)
    for path in out.iterdir():
        assert b"hunter" not in path.read_bytes(), path
    assert "localhost:1/v1" in (out / "run.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on_where_it_was(
    tmp_path: Path, slow_detector: SlowDetector, how: signal.Signals
) -> None:
    folders = [make_images(tmp_path / name, 40, seed=n, size=40) for n, name in enumerate("abc")]
    out = tmp_path / "run"
    arguments = ("arena", *folders, "--out", out, "--resamples", 20, *slow_detector.options)
    process = subprocess.Popen(
        command(*arguments), env=slow_detector.environment, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    log, deadline = out / "votes.jsonl", time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b"\n") >= 60):
        assert process.poll() is None, "finished before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=60)
    n = len(log.read_bytes().splitlines())
    assert 60 <= n < 240
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert len(stderr.splitlines()) == 1
        found = re.fullmatch(
            r"error: interrupted: (\d+) votes are kept, (\d+) pairs are open; run the same command "
            r"again to go on\n",
            stderr,
        )
        assert found, stderr
        assert int(found[1]) == n
        assert 0 <= 120 - n // 2 - int(found[2]) <= 1
        assert json.loads((out / "run.json").read_text())["stop_reason"] == "interrupted"
        assert (out / "report.html").exists()
    else:
        assert process.returncode == -signal.SIGKILL
    realbench(*arguments, environment=slow_detector.environment, process=True)
    shown = Counter((v["prompt_id"], v["first"], v["second"]) for v in votes(out))
    assert len(shown) == 240
    assert set(shown.values()) == {1}
    assert json.loads((out / "run.json").read_text())["counts"]["pairs_open"] == 0


def test_a_changed_picture_is_judged_again(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    a, b = make_images(tmp_path / "a", 3), make_images(tmp_path / "b", 3, seed=1)
    arguments = ("arena", a, b, "--out", tmp_path / "run", *options)
    realbench(*arguments, environment=environment)
    Image.new("RGB", (80, 80), "white").save(a / "0001.png")
    realbench(*arguments, environment=environment)
    written = votes(tmp_path / "run")
    assert len(written) == 8
    assert {vote["prompt_id"] for vote in written[6:]} == {"0001"}


@pytest.mark.slow
def test_a_bar_shows_on_a_terminal_alone(
    tmp_path: Path, options: Options, environment: dict[str, str]
) -> None:
    a, b = make_images(tmp_path / "a", 6), make_images(tmp_path / "b", 6, seed=1)
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        command("arena", a, b, *options), env=environment | {"TERM": "xterm"}, stderr=end,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(end)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    assert process.wait(timeout=120) == 0
    assert b"judging detectors" in shown
    assert b"/12" in shown


def test_help_imports_nothing_heavy_and_shows_the_options(environment: dict[str, str]) -> None:
    code = (
        "import sys, atexit\n"
        "heavy = {'torch', 'pandas', 'numpy', 'transformers', 'openai', 'fastapi'}\n"
        "atexit.register(lambda: print('heavy:', sorted(heavy & set(sys.modules))))\n"
        "from realbench.cli import main; main()"
    )
    for arguments in (["arena", "--help"], ["arena"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, text=True,
            capture_output=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "--judge" in result.stdout
        assert "arena merge RUN" in result.stdout
        assert result.stdout.rstrip().endswith("heavy: []")
