"""``realbench sets``, and ``set:NAME`` in other commands, as their users run them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import error_line, make_images, realbench
from tests.fakes import make_card
from tests.hub import Hub
from tests.sets.test_sets import as_zip, picture

CARD = """name = "mine"
description = "A stranger's set."
licence = "CC0"
verified = false
[source]
kind = "archive"
[[source.files]]
url = "{url}"
[folders]
photographs = ["real/*"]
generated = ["{{generator}}/*"]
captions = "captions.csv"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: one for name, one in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {
        "REALBENCH_CACHE": str(tmp_path / "cache"),
        "REALBENCH_SETS": str(tmp_path / "cards"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
    }


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A server with a set, and a stranger's card of it."""
    files = {f"{folder}/{n}.png": picture(n + 50 * at) for at, folder in enumerate(("real", "sdxl"))
             for n in range(12)}  # fmt: skip
    files["captions.csv"] = b"id,prompt\n" + b"".join(b"%d,a dog %d\n" % (n, n) for n in range(12))
    with Hub(pages={"/set.zip": as_zip(files)}).serving() as played:
        folder = tmp_path / "cards" / "mine"
        folder.mkdir(parents=True)
        (folder / "set.toml").write_text(CARD.format(url=f"{played.endpoint}/set.zip"))
        yield played


def test_a_strangers_set_is_listed_fetched_and_scored(
    hub: Hub, tmp_path: Path, environment: dict[str, str]
) -> None:
    listed = realbench("sets", "list", environment=environment).stdout
    assert "mine " in listed
    assert "not here: many pictures, address not tried" in listed
    assert max(map(len, listed.splitlines())) <= 80
    detector = make_card(tmp_path, "fake")
    command = ("score", "set:mine", "--reference", "set:mine", "--prompts", "set:mine", "--json")
    result = realbench(*command, "--detector", detector, environment=environment)
    warning = result.stderr.splitlines()[0]
    assert warning.startswith("warning: fetching mine (size not stated) from http://127.0.0.1")
    assert warning.endswith("licence: CC0")
    summary = json.loads(result.stdout)
    assert [(one["folder"], one["n"]) for one in summary["folders"]] == [("sdxl", 12)]
    assert (summary["reference"]["folder"], summary["reference"]["n"]) == ("photographs", 12)
    shown = realbench("sets", "show", "mine", environment=environment).stdout
    assert "# its address was not tried by who wrote this card" in shown
    assert "photographs 12, sdxl 12" in shown
    found = json.loads(realbench("sets", "get", "mine", "--json", environment=environment).stdout)
    assert found[0]["record"]["n"] == 24
    assert len(hub.asked) == 1
    bench = ("detectors", "bench", "--real", "set:mine", "--generated", "set:mine", "--json")
    results = realbench(*bench, "--detector", detector, environment=environment).stdout
    assert [one["folder"] for one in json.loads(results)["generated"]] == ["sdxl"]
    text = realbench("prompts", "show", "set:mine", environment=environment).stdout
    assert "3\ta dog 3" in text


def test_mistakes_end_in_one_line(hub: Hub, tmp_path: Path, environment: dict[str, str]) -> None:
    images = make_images(tmp_path / "images", 2)
    realbench("sets", "get", "mine", environment=environment)
    for arguments, code, message in (
        (("sets", "get", "chameleon"), 1, "chameleon is given by hand alone: ask"),
        (("sets", "get", "mine", "raise", "--from", "x"), 2, "--from is the file of one set"),
        (("sets", "show", "rais"), 2, "did you mean raise?"),
        (("score", images, "--reference", "set:mine/x"), 2, "has no 'x', but photographs, sdxl"),
        (("score", "set:"), 2, "no set ''"),
        (("sets", "verify", "mine"), 2, "there are no reference predictions of semantic-lite"),
    ):
        result = realbench(*arguments, environment=environment, code=code)
        assert message in error_line(result)
    (tmp_path / "cards" / "bad").mkdir()
    (tmp_path / "cards" / "bad" / "set.toml").write_text("x = 1")
    listed = realbench("sets", "list", environment=environment)
    assert "mine" in listed.stdout
    assert "bad" in listed.stderr


@pytest.mark.slow
def test_verify_tells_an_installation_that_computes_something_else(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    result = realbench("sets", "verify", "demo", environment=environment)
    assert "semantic-lite: agrees" in result.stdout
    assert "trace-lite: agrees" in result.stdout


def test_predictions_are_kept_compared_and_of_one_fingerprint(
    hub: Hub, tmp_path: Path, environment: dict[str, str]
) -> None:
    detector = make_card(tmp_path, "fake")
    command = ("sets", "verify", "mine", "--detector", detector)
    realbench(*command, "--write", environment=environment)
    assert "fake: agrees" in realbench(*command, environment=environment).stdout
    file = tmp_path / "cards" / "mine" / "predictions.csv"
    lines = file.read_text().splitlines()
    assert len(lines) == 25
    head, _, logit = lines[7].rpartition(",")
    lines[7] = f"{head},{float(logit) + 0.2:.4f}"
    file.write_text("\n".join(lines) + "\n")
    result = realbench(*command, environment=environment, code=1)
    assert "fake: DIFFERS, by at most 0.200" in result.stdout
    assert "computes other scores" in error_line(result)
    other = make_card(tmp_path / "other", "fake", seed=1)
    result = realbench(*command[:-1], other, environment=environment, code=1)
    assert "are of another fake" in error_line(result)
    file.write_text("detector,fingerprint\na,b\n")
    assert "is damaged" in error_line(realbench(*command, environment=environment, code=1))
