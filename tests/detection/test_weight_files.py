"""Weights that are not in the package: found, fetched from the hub's cache, or refused clearly."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import realbench as package
from realbench.detection.cards import read_card
from realbench.detection.ensembles import choose_cards
from realbench.detection.specs import WeightsSpec
from realbench.detection.weight_files import digest, find_weights, parse_weights
from realbench.detection.weights import read_checkpoint
from realbench.errors import RealBenchError, UsageError
from realbench.text import byte_count
from tests.cli.commands import command, error_line, make_images, realbench
from tests.fakes import make_card
from tests.hub import COMMIT, Hub

PINNED = "fedcba9876543210fedcba9876543210fedcba98"


def change(card: Path, old: str, new: str) -> None:
    text = (card / "card.toml").read_text()
    assert old in text
    (card / "card.toml").write_text(text.replace(old, new))


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A card whose weights lie elsewhere, at ``elsewhere.safetensors``."""
    folder = make_card(tmp_path / "cards", "mine")
    (folder / "weights.safetensors").rename(tmp_path / "elsewhere.safetensors")
    change(folder, "[weights]\n", '[weights]\nsource = "file"\nobtain = "ask the authors"\n')
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "REALBENCH_CACHE": str(tmp_path / "cache"),
        "REALBENCH_WEIGHTS": str(tmp_path / "weights"),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
    }


def to_hub(tmp_path: Path, name: str, file: Path) -> Path:
    """Put a file into a hub cache, as a download would, and return its path there."""
    place = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    (place / "snapshots" / COMMIT).mkdir(parents=True)
    return Path(shutil.copy(file, place / "snapshots" / COMMIT / file.name))


def test_a_given_file_is_used_and_only_its_content_counts(tmp_path: Path, card: Path) -> None:
    file = tmp_path / "elsewhere.safetensors"
    given = read_card(card).with_weights({"weights": file})
    bundled = read_card(make_card(tmp_path / "others", "mine"))
    assert given.fingerprint == bundled.fingerprint
    assert package.load_detector(card, weights=file).fingerprint == given.fingerprint


def test_what_is_missing_is_said_with_file_hash_place_and_way(
    tmp_path: Path, card: Path, environment: dict[str, str]
) -> None:
    images = make_images(tmp_path / "images", 2)
    result = realbench("score", images, "--detector", card, environment=environment, code=1)
    line = error_line(result)
    for part in ("weights.safetensors", "sha256 ", str(tmp_path / "weights" / "mine"), "ask the"):
        assert part in line
    assert "--weights mine=FILE" in line


@pytest.mark.slow
def test_given_weights_and_weights_in_their_folder_score_alike(
    tmp_path: Path, card: Path, environment: dict[str, str]
) -> None:
    images = make_images(tmp_path / "images", 2)
    command = ("score", images, "--detector", card, "--no-cache", "--json")
    file = tmp_path / "elsewhere.safetensors"
    first = realbench(*command, "--weights", f"mine={file}", environment=environment).stdout
    place = tmp_path / "weights" / "mine"
    place.mkdir(parents=True)
    shutil.copy(file, place / "weights.safetensors")
    assert realbench(*command, environment=environment).stdout == first


@pytest.mark.slow
def test_a_users_own_card_finds_a_model_folder_beside_it(tmp_path: Path) -> None:
    """And says where it looked, when there is none."""
    spec = WeightsSpec(source="file", file="vit")
    with pytest.raises(RealBenchError, match=r"put vit beside .*card\.toml or at ") as caught:
        find_weights("mine", "weights", spec, tmp_path)
    assert "--weights mine=PATH" in str(caught.value)
    (tmp_path / "vit").mkdir()
    with pytest.raises(RealBenchError, match="not on this machine"):  # an empty one is no model
        find_weights("mine", "weights", spec, tmp_path)
    (tmp_path / "vit" / "config.json").write_text("{}")
    assert find_weights("mine", "weights", spec, tmp_path) == tmp_path / "vit"


@pytest.mark.slow
def test_weights_come_from_the_hubs_cache_without_a_network(
    tmp_path: Path, card: Path, environment: dict[str, str]
) -> None:
    change(card, 'source = "file"', 'source = "hub"\nrepo = "someone/detector"')
    change(card, 'obtain = "ask the authors"\n', "")
    images = make_images(tmp_path / "images", 1)
    command = ("score", images, "--detector", card)
    line = error_line(realbench(*command, environment=environment, code=1, process=True))
    assert "get it: hf download someone/detector weights.safetensors" in line
    shown = realbench("detectors", "show", card, environment=environment, process=True).stdout
    assert "not usable here yet" in shown
    file = tmp_path / "elsewhere.safetensors"
    to_hub(tmp_path, "someone/detector", file.rename(file.with_name("weights.safetensors")))
    realbench(*command, environment=environment, process=True)
    assert (
        "fingerprint"
        in realbench("detectors", "show", card, environment=environment, process=True).stdout
    )


def test_another_file_than_the_cards_is_refused(tmp_path: Path, card: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes((tmp_path / "elsewhere.safetensors").read_bytes() + b"\0")
    with pytest.raises(RealBenchError, match=r"wrong\.safetensors has sha256"):
        package.load_detector(card, weights=wrong)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("npr", "give NAME=FILE"),
        ("=x", "give NAME=FILE"),
        ("npr=", "give NAME=FILE"),
        ("npr=/no/such/file", "there is no /no/such/file"),
    ],
)
def test_a_wrong_weights_option_is_refused(option: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_weights([option])


def test_weights_options_name_detectors_and_parts(tmp_path: Path) -> None:
    file = tmp_path / "a=b:c.pth"
    file.touch()
    given = parse_weights([f"univfd={file}", f"univfd:backbone={file}", f"npr={file}"])
    assert given == {"univfd": {"weights": file, "backbone": file}, "npr": {"weights": file}}
    with pytest.raises(UsageError, match="twice"):
        parse_weights([f"npr={file}", f"npr={file}"])


def test_weights_of_a_detector_outside_the_run_are_refused(
    tmp_path: Path, card: Path, environment: dict[str, str]
) -> None:
    file = tmp_path / "elsewhere.safetensors"
    images = make_images(tmp_path / "images", 1)
    result = realbench(
        *("score", images, "--detector", card, "--weights", f"npr={file}"),
        environment=environment,
        code=2,
    )
    assert "'npr', which is no detector of this run (mine)" in error_line(result)


def test_the_list_tells_what_is_here(environment: dict[str, str]) -> None:
    wide = environment | {"COLUMNS": "200"}  # each detector on one line
    lines = realbench("detectors", "list", environment=wide).stdout.splitlines()
    state = {line.split()[0]: line for line in lines if line.strip()}
    assert "bundled, default" in state["trace-lite"]
    assert "needs them" in state["npr"]
    assert "needs them" in state["univfd"]


def test_every_card_of_the_project_can_be_read() -> None:
    from realbench.content import content_path
    from realbench.detection.specs import FAMILIES

    for name in package.list_detectors():
        card = read_card(content_path("detectors") / name)
        assert card.name == name
        assert card.family in FAMILIES
        assert card.citation
        assert (card.path / "README.md").is_file(), name


# --- checkpoints ---


def test_tensors_are_found_in_entries_under_their_names(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    weight = torch.arange(6.0).view(2, 3)
    torch.save({"net": {"model": {"module.fc.weight": weight, "note": "x"}}, "epoch": 3}, path)
    state = read_checkpoint(path, key="net.model", strip_prefix="module.")
    assert list(state) == ["fc.weight"]
    assert torch.equal(state["fc.weight"], weight)
    with pytest.raises(RealBenchError, match=r"has no entry 'ema'"):
        read_checkpoint(path, key="ema")
    with pytest.raises(RealBenchError, match=r"holds no tensors \(its entries: net, epoch\)"):
        read_checkpoint(path)


def test_a_training_scripts_arguments_are_let_in(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1)}, path)
    assert list(read_checkpoint(path, key="model")) == ["a"]


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, plain: bool) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "owned"
    content = {"model": {"a": torch.ones(1)}, "extra": Evil(trace)}
    if plain:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(RealBenchError, match=r"evil\.pth is refused") as caught:
        read_checkpoint(path, key="model")
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken"])
def test_a_damaged_checkpoint_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(RealBenchError, match=r"damaged\.pth") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_identified_by_its_files_or_its_commit(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(RealBenchError, match="holds no model"):
        digest(folder)
    (folder / "config.json").write_text("{}")
    first = digest(folder)
    (folder / "README.md").write_text("not part of the model")
    assert digest(folder) == first
    (folder / "model.safetensors").write_bytes(b"\0")
    assert digest(folder) != first
    snapshot = tmp_path / "models--a--b" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    assert digest(snapshot) == COMMIT


def test_a_torch_file_scores_as_the_same_safetensors_do(tmp_path: Path, card: Path) -> None:
    state = load_file(tmp_path / "elsewhere.safetensors")
    path = tmp_path / "elsewhere.pth"
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, path)
    old = read_card(card).weights.sha256
    assert old is not None
    image = torch.randint(0, 256, (80, 90, 3), dtype=torch.uint8).numpy()
    first = package.load_detector(card, weights=tmp_path / "elsewhere.safetensors")
    change(card, old, hashlib.sha256(path.read_bytes()).hexdigest())
    change(card, "[weights]\n", '[weights]\nkey = "model"\nstrip_prefix = "module."\n')
    second = package.load_detector(card, weights=path)
    prepared = first.prepare(image)[None]
    assert torch.equal(first.logits(prepared), second.logits(prepared))


# --- the hub ---


@pytest.fixture
def hub_card(tmp_path: Path, card: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The card with a hub for a source, and an empty cache of the hub."""
    from huggingface_hub import constants

    change(card, 'source = "file"', 'source = "hub"\nrepo = "someone/detector"')
    change(card, 'obtain = "ask the authors"\n', "")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return card


def closed_port() -> str:
    """Return an address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_hub_out_of_reach_is_given_up_at_once(
    hub_card: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    endpoint = closed_port()
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(RealBenchError, match=f"{endpoint} is not reached") as caught:
        package.load_detector(hub_card)
    assert "hf download someone/detector weights.safetensors" in str(caught.value)


def test_an_incomplete_model_in_the_cache_is_not_taken(tmp_path: Path) -> None:
    from realbench.detection.weight_files import _is_whole

    (tmp_path / "config.json").write_text("{}")
    assert not _is_whole(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    assert _is_whole(tmp_path)


@pytest.fixture
def hub(tmp_path: Path, card: Path) -> Iterator[Hub]:
    """A hub with the card's weights."""
    content = (tmp_path / "elsewhere.safetensors").read_bytes()
    with Hub({"someone/detector": {"weights.safetensors": content}}).serving() as played:
        yield played


@pytest.fixture
def online(hub: Hub, environment: dict[str, str]) -> dict[str, str]:
    return hub.environment(environment)


def locate(card: Path, environment: dict[str, str]) -> str:
    """Return where a card's weights are, or the error, in a process of its own."""
    code = (
        "import sys; from realbench.detection.registry import find_card\n"
        "from realbench.errors import RealBenchError\n"
        "try: print(find_card(sys.argv[1]).weights_path)\n"
        "except RealBenchError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(card)]
    return subprocess.run(
        command, env=environment, text=True, capture_output=True, check=True
    ).stdout.strip()


@pytest.mark.slow
def test_weights_are_fetched_from_the_hub_once(
    tmp_path: Path, hub_card: Path, hub: Hub, online: dict[str, str]
) -> None:
    path = Path(locate(hub_card, online))
    assert path.is_relative_to(tmp_path / "hub")
    assert path.read_bytes() == hub.files["someone/detector"]["weights.safetensors"]
    assert any(line.startswith("GET") for line in hub.asked)
    hub.asked.clear()
    assert Path(locate(hub_card, online)) == path
    assert not any("someone" in line for line in hub.asked)  # nor is what is here asked for
    assert Path(locate(hub_card, online | {"HF_HUB_OFFLINE": "1"})) == path


@pytest.mark.slow
def test_a_file_and_a_repository_that_the_hub_lacks_are_said(
    hub_card: Path, online: dict[str, str]
) -> None:
    change(hub_card, 'file = "weights.safetensors"', 'file = "other.safetensors"')
    assert "someone/detector has no file 'other.safetensors'" in locate(hub_card, online)
    change(hub_card, "someone/detector", "nobody/nothing")
    assert "no repository nobody/nothing on the Hugging Face hub" in locate(hub_card, online)


@pytest.fixture
def two(tmp_path: Path, hub: Hub) -> list[Path]:
    """Two detectors of the hub, pinned by commit; the first by its hash, too."""
    cards = []
    for name in ("first", "second"):
        folder = make_card(tmp_path / "two", name, seed=len(cards))
        file = folder / "weights.safetensors"
        hub.files[f"someone/{name}"] = {file.name: file.read_bytes()}
        file.unlink()
        source = f'source = "hub"\nrepo = "someone/{name}"\nrevision = "{PINNED}"\n'
        change(folder, "[weights]\n", f"[weights]\n{source}")
        cards.append(folder)
    lines = (cards[1] / "card.toml").read_text().splitlines(keepends=True)
    kept = "".join(line for line in lines if not line.startswith("sha256"))
    (cards[1] / "card.toml").write_text(kept)
    return cards


@pytest.fixture
def here(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Has this process, too, reach the hub; returns what can change that."""
    from huggingface_hub import constants

    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for name, value in {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    return monkeypatch


def score_both(tmp_path: Path, two: list[Path], environment: dict[str, str], **options: Any) -> Any:
    images = make_images(tmp_path / "images", 2)
    each = [word for card in two for word in ("--detector", card)]
    return realbench("score", images, *each, "--json", environment=environment, **options)


def test_an_ensemble_is_fetched_at_its_first_use_and_then_needs_no_network(
    tmp_path: Path, two: list[Path], hub: Hub, online: dict[str, str], here: pytest.MonkeyPatch
) -> None:
    first = score_both(tmp_path, two, online)
    told = first.stderr.splitlines()
    size = byte_count(len(hub.files["someone/first"]["weights.safetensors"]))
    assert told[0] == (
        f"warning: fetching weights.safetensors of someone/first ({size}) for 'first', "
        "licence: Apache-2.0"
    )
    assert "fetching weights.safetensors of someone/second (" in told[1]
    assert all(PINNED in line for line in hub.asked if "someone/" in line)
    hub.asked.clear()
    here.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = score_both(tmp_path, two, online)
    assert json.loads(again.stdout)["folders"] == json.loads(first.stdout)["folders"]
    assert not hub.asked
    assert "fetching" not in again.stderr


@pytest.mark.parametrize(
    ("name", "value"), [("HF_HUB_OFFLINE", True), ("ENDPOINT", "nobody")], ids=["offline", "far"]
)
def test_without_a_hub_one_line_names_every_file(
    tmp_path: Path,
    two: list[Path],
    hub: Hub,
    online: dict[str, str],
    here: pytest.MonkeyPatch,
    name: str,
    value: Any,
) -> None:
    value = closed_port() if value == "nobody" else value
    here.setattr(f"huggingface_hub.constants.{name}", value)
    line = error_line(score_both(tmp_path, two, online, code=1))
    assert line.endswith("(no hub is reached)")
    for one in ("first", "second"):
        assert f"hf download someone/{one} weights.safetensors --revision {PINNED}" in line
        assert str(tmp_path / "weights" / one / "weights.safetensors") in line
    assert not hub.asked


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(
    two: list[Path], hub: Hub, online: dict[str, str], here: pytest.MonkeyPatch
) -> None:
    content = os.urandom(15_000_000)
    hub.files["someone/second"]["weights.safetensors"] = content
    hub.cut = (12_000_000, 1)
    got = realbench("detectors", "get", *two, environment=online).stdout
    assert re.search(r"first: \S+weights\.safetensors \(as its card says: [0-9a-f]{16}\)", got)
    found = re.search(r"second: (\S+) \(its card pins none: ", got)
    assert found is not None
    assert Path(found[1]).read_bytes() == content
    assert int(hub.asked[-1].split()[-1]) > 1_000_000  # not from the beginning


@pytest.mark.slow
def test_a_download_that_is_killed_leaves_nothing_wrong_behind(
    tmp_path: Path, two: list[Path], hub: Hub, online: dict[str, str], here: pytest.MonkeyPatch
) -> None:
    content = os.urandom(60_000_000)
    hub.files["someone/second"]["weights.safetensors"] = content
    hub.slow = 0.05
    arguments = command("detectors", "get", two[1])
    running = subprocess.Popen(arguments, env=online, stderr=subprocess.PIPE, text=True)
    place = tmp_path / "hub" / "models--someone--second" / "blobs"
    while not any(file.stat().st_size > 100_000 for file in place.glob("*.incomplete")):
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.02)
    running.kill()
    running.communicate()
    assert not list(place.glob("[0-9a-f]" * 64))
    hub.slow = 0.0
    realbench("detectors", "get", two[1], environment=online)
    assert next(iter(place.glob("[0-9a-f]" * 64))).read_bytes() == content
    assert not list(place.glob("*.incomplete"))


@pytest.mark.parametrize("which", ["first", "second"])  # by the card's hash, and by the hub's
def test_other_bytes_than_the_hash_says_are_deleted_and_refused(
    tmp_path: Path,
    two: list[Path],
    hub: Hub,
    online: dict[str, str],
    here: pytest.MonkeyPatch,
    which: str,
) -> None:
    card = two[which == "second"]
    right = hub.files[f"someone/{which}"]["weights.safetensors"]
    wrong = right[:-1] + bytes([right[-1] ^ 1])
    if which == "first":  # the hub has another file than the card wants
        hub.files["someone/first"]["weights.safetensors"] = wrong
    else:
        hub.sent["weights.safetensors"] = wrong
    result = realbench("detectors", "get", card, environment=online, code=1)
    line = result.stderr.splitlines()[-1]
    assert f"weights.safetensors of someone/{which} came with sha256 " in line
    assert f"but should have {hashlib.sha256(right).hexdigest()}: it was deleted" in line
    assert not list((tmp_path / "hub").rglob("blobs/*"))
    hub.sent.clear()
    hub.files[f"someone/{which}"]["weights.safetensors"] = right
    realbench("detectors", "get", card, environment=online)


def test_weights_that_are_on_no_hub_are_not_got(
    tmp_path: Path, card: Path, environment: dict[str, str]
) -> None:
    result = realbench("detectors", "get", card, environment=environment, code=1)
    assert "get it: ask the authors" in error_line(result)


def test_the_published_ensemble_is_pinned_and_free_to_use() -> None:
    cards = choose_cards(["ensemble:published"])
    assert [card.name for card in cards] == ["community-forensics", "dda"]
    for card in cards:
        assert card.licence in ("MIT", "Apache-2.0")
        assert re.fullmatch("[0-9a-f]{40}", card.weights.revision)
        assert card.weights.sha256
