"""Co-training: detectors learn when the generator passes them, and a run can be resumed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from realbench.detection.families.views import ViewsDetector
from realbench.detection.registry import load_detector
from realbench.errors import UsageError
from realbench.reward.reward import FunctionConfig, RewardConfig, WeightedReward, build_reward
from realbench.train.config import CotrainingConfig
from realbench.train.cotrain import Cotraining, PastPairs, build_cotraining
from realbench.train.trainable_detector import TrainableDetector, export_detector
from tests.detection.families.test_dino_experts import checkpoint, tiny_dino
from tests.train.tiny_detectors import save_tiny_detector

PROMPTS = [f"caption {n}" for n in range(8)]
SIZE = 40


def rough(seed: int) -> np.ndarray:
    """Make a "photograph": fine noise, of a tint of its own."""
    rng = np.random.default_rng(seed)
    tint = rng.integers(60, 190, 3)
    return np.clip(rng.normal(tint, 40, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)


def smooth(seed: int) -> np.ndarray:
    """Make a "generated" image: the same without the fine part."""
    small = Image.fromarray(rough(seed)).resize((SIZE // 8, SIZE // 8), Image.Resampling.BOX)
    return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def batch(seed: int, make: Callable[[int], np.ndarray] = smooth) -> torch.Tensor:
    images = [make(1000 * seed + n) for n in range(len(PROMPTS))]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    records = []
    for n, caption in enumerate(PROMPTS):
        Image.fromarray(rough(n)).save(tmp_path / f"{n}.png")
        records.append(json.dumps({"image": f"{n}.png", "caption": caption}) + "\n")
    (tmp_path / "photographs.jsonl").write_text("".join(records))
    return tmp_path / "photographs.jsonl"


def start(
    tmp_path: Path, photographs: Path, kind: str = "statistics", **settings: Any
) -> tuple[Cotraining, WeightedReward]:
    folder = tmp_path / f"tiny-{kind}"
    if not folder.exists():
        save_tiny_detector(folder, kind)
    reward = build_reward(
        RewardConfig.model_validate(
            {"components": [{"kind": "detectors", "detectors": [str(folder)]}]}
        ),
        device="cpu",
    )
    given: dict[str, Any] = {"paired": str(photographs), "learning_rate": 3e-3, "buffer": 10}
    return build_cotraining(CotrainingConfig(**given | settings), reward=reward, seed=3), reward


def rewards(value: float) -> dict[str, np.ndarray]:
    """The component's values of an iteration's images."""
    return {"detectors": np.full(8, value, np.float32)}


def realism(reward: WeightedReward, images: torch.Tensor) -> np.ndarray:
    return reward(images, [""] * len(images))


def test_detectors_are_trained_at_the_start_and_then_once_they_are_passed(
    tmp_path: Path, photographs: Path
) -> None:
    """The first iteration is RealGen's warm-up, whatever the reward is."""
    cotraining, reward = start(tmp_path, photographs)
    (detector,) = reward.components[0].scorer.detectors.values()
    network = detector.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    print_before = detector.fingerprint
    generated, fresh = batch(1), batch(2)

    figures = cotraining.after_iteration(1, generated, PROMPTS, rewards(0.1))
    name = "tiny-statistics"
    assert figures["updates"] == 1
    assert figures["images"] == 16  # 8 of this iteration, and photographs
    assert figures[f"{name}/accuracy_before"] < 0.8
    assert figures[f"{name}/accuracy"] >= 0.9
    assert 1 <= figures[f"{name}/epochs"] <= 20
    changed = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert changed == {"real.weight", "real.bias"}  # the guards and the transformer stay
    assert detector.fingerprint != print_before
    warm = {name: value.clone() for name, value in network.state_dict().items()}
    assert cotraining.after_iteration(2, generated, PROMPTS, rewards(0.59)) == {}
    assert all(torch.equal(value, warm[name]) for name, value in network.state_dict().items())
    again = cotraining.after_iteration(3, generated, PROMPTS, rewards(0.61))
    assert again["updates"] == 2
    assert again["images"] == 32  # the pairs of the first update, too
    gap = realism(reward, batch(3, rough)).mean() - realism(reward, fresh).mean()
    assert gap > 0.1  # images that it did not learn from
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_an_update_ends_where_the_detector_is_good_enough(
    tmp_path: Path, photographs: Path
) -> None:
    cotraining, _ = start(tmp_path, photographs, jpeg=0.0)
    high = rewards(1)
    updates = []
    while not updates or updates[-1]["tiny-statistics/epochs"]:
        updates.append(cotraining.after_iteration(len(updates), batch(1), PROMPTS, high))
        assert len(updates) < 20
    before = [figures["tiny-statistics/accuracy_before"] for figures in updates]
    assert before[-1] >= 0.9
    assert all(accuracy < 0.9 for accuracy in before[:-1])
    assert len(before) > 1
    assert updates[-1]["tiny-statistics/accuracy"] == before[-1]
    slow, _ = start(tmp_path, photographs, learning_rate=1e-9, epochs=3)
    assert slow.after_iteration(1, batch(1), PROMPTS, high)["tiny-statistics/epochs"] == 3


def test_scores_come_from_the_running_mean_of_the_weights(
    tmp_path: Path, photographs: Path
) -> None:
    """With one step the mean is 0.9 of the old weights and 0.1 of the new ones."""
    cotraining, reward = start(
        tmp_path, photographs, epochs=1, batch_size=64, ema=0.9, accuracy=1.0
    )
    (detector,) = reward.components[0].scorer.detectors.values()
    old = detector.network.real.weight.detach().clone()
    cotraining.after_iteration(1, batch(1), PROMPTS, rewards(1))
    state = cotraining.state_dict()["detectors"]["tiny-statistics"]
    latest, mean = state["latest.real.weight"], state["mean.real.weight"]
    assert not torch.equal(latest, old)
    torch.testing.assert_close(mean, 0.9 * old + 0.1 * latest)
    assert torch.equal(detector.network.real.weight, mean)


@pytest.mark.parametrize("kind", ["statistics", "convolutions"])
def test_whole_networks_are_trained_too(tmp_path: Path, photographs: Path, kind: str) -> None:
    """Of the embedded kinds; batch norms are folded into convolutions, and those learn."""
    cotraining, reward = start(tmp_path, photographs, kind, part="all", learning_rate=3e-4)
    (detector,) = reward.components[0].scorer.detectors.values()
    network = detector.network
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    figures = cotraining.after_iteration(1, batch(1), PROMPTS, rewards(1))
    assert figures[f"tiny-{kind}/accuracy"] > figures[f"tiny-{kind}/accuracy_before"]
    changed = [not torch.equal(p, before[name]) for name, p in network.named_parameters()]
    assert sum(changed) > 0.8 * len(changed)
    if kind == "statistics":
        assert torch.equal(network.taken.weight, before["taken.weight"])
        assert torch.equal(network.usual.bias, before["usual.bias"])
    scores = realism(reward, batch(2))
    assert np.isfinite(scores).all()


def test_a_published_detectors_experts_are_trained(tmp_path: Path) -> None:
    """OmniAID on DINOv3, tiny: its experts and its head change, its router does not."""
    model = tiny_dino()
    torch.save({"model": checkpoint(model), "epoch": 0}, tmp_path / "checkpoint.pth")
    detector: Any = load_detector("omniaid-dino", weights=tmp_path / "checkpoint.pth")
    before = {name: p.detach().clone() for name, p in detector.network.named_parameters()}
    config = CotrainingConfig(part="experts", learning_rate=1e-3, epochs=2, accuracy=1.0)
    trainable = TrainableDetector(detector, config)
    real, generated = [[make(n) for n in range(3)] for make in (rough, smooth)]
    trainable.fit(real, generated, np.random.default_rng(0))
    changed = {n for n, p in detector.network.named_parameters() if not torch.equal(p, before[n])}
    experts = {name for name in before if name.endswith(("experts.u", "experts.s", "experts.v"))}
    assert len(experts) == 2 * 4 * 3
    assert changed == experts | {"network.head.weight", "network.head.bias"}
    assert all(bool(torch.isfinite(p).all()) for p in detector.network.parameters())


def test_a_resumed_run_goes_on_to_the_same_weights(tmp_path: Path, photographs: Path) -> None:
    means = [0.9, 0.2, 0.7, 0.8]

    def go_on(cotraining: Cotraining, iterations: range) -> None:
        for n in iterations:
            images = batch(n)
            cotraining.after_iteration(n, images, PROMPTS, rewards(means[n]))

    whole, reward = start(tmp_path, photographs, learning_rate=1e-4)
    go_on(whole, range(4))
    first, _ = start(tmp_path, photographs, learning_rate=1e-4)
    go_on(first, range(2))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second, resumed = start(tmp_path, photographs, learning_rate=1e-4)
    second.load_state_dict(torch.load(file, weights_only=True))
    go_on(second, range(2, 4))
    assert second.updates == whole.updates == 3
    np.testing.assert_array_equal(second.past.pairs, whole.past.pairs)
    (ours, theirs) = (one.state_dict()["detectors"]["tiny-statistics"] for one in (second, whole))
    steps = [state["optimizer"]["state"][0]["step"].item() for state in (ours, theirs)]
    assert steps[0] == steps[1] > 1  # the moments go on, too
    np.testing.assert_array_equal(realism(resumed, batch(9)), realism(reward, batch(9)))
    assert resumed.describe() == reward.describe()


def test_the_optimiser_goes_on_from_one_update_to_the_next(
    tmp_path: Path, photographs: Path
) -> None:
    """Two updates of one step each: AdamW has counted two, and its first moment is of both."""
    cotraining, _ = start(tmp_path, photographs, epochs=1, batch_size=64, accuracy=1.0, jpeg=0.0)
    moments = []
    for n in (1, 2):
        cotraining.after_iteration(n, batch(n), PROMPTS, rewards(1))
        state = cotraining.state_dict()["detectors"]["tiny-statistics"]["optimizer"]["state"][0]
        assert state["step"].item() == n
        moments.append(state["exp_avg"].clone())
    assert not torch.equal(moments[0], moments[1])


def test_each_detector_is_trained_by_its_own_mean(tmp_path: Path, photographs: Path) -> None:
    """Of three, that whose mean P(real) is above the threshold; the reward's total is not asked.

    Two are alone in a component; of the third the mean is computed, being one of an ensemble.
    """
    for name in "abcd":
        save_tiny_detector(tmp_path / name, "statistics")
    components = [
        {"kind": "detectors", "name": "one", "detectors": [str(tmp_path / "a")]},
        {"kind": "detectors", "name": "two", "detectors": [str(tmp_path / "b")], "weight": 9},
        {
            "kind": "detectors",
            "name": "three",
            "detectors": [str(tmp_path / "c"), str(tmp_path / "d")],
        },
    ]
    reward = build_reward(RewardConfig.model_validate({"components": components}), device="cpu")
    config = CotrainingConfig(paired=str(photographs), detectors=("a", "b", "c"), epochs=1)
    cotraining = build_cotraining(config, reward=reward, seed=3)

    def trained(n: int, one: float, two: float) -> set[str]:
        given = {name: np.full(8, v, np.float32) for name, v in (("one", one), ("two", two))}
        found = cotraining.after_iteration(n, batch(n), PROMPTS, given)
        return {key.partition("/")[0] for key in found if "/" in key}

    assert trained(1, 0.0, 0.0) == {"a", "b", "c"}  # the warm-up
    scorer = reward.components[2].scorer
    images = [one.permute(1, 2, 0).numpy() for one in batch(2)]
    own = float(np.mean(scorer(images).detectors["c"]))
    assert cotraining.detectors["c"].realism(images) == pytest.approx(own, abs=1e-4)
    third = {"c"} if own > 0.6 else set()
    assert trained(2, 0.7, 0.1) == {"a"} | third
    assert trained(3, 0.1, 0.7) - {"c"} == {"b"}
    assert trained(4, 0.1, 0.1) - {"c"} == set()


def test_past_pairs_are_a_uniform_sample_of_all() -> None:
    """2,000 streams of 20 pairs into 5 places: each stays 500 times in the mean, ±97 (5 sigma)."""
    kept = np.zeros(20)
    for seed in range(2000):
        past = PastPairs(5)
        rng = np.random.default_rng(seed)
        for n in range(0, 20, 4):  # in parts, as iterations bring them
            past.add([(np.array(-i), np.array(i)) for i in range(n, n + 4)], rng)
        kept[[int(image) for _, image in past.pairs]] += 1
        assert all(real == -image for real, image in past.pairs)
    assert np.abs(kept - 500).max() < 97
    drawn = past.draw(9, np.random.default_rng(0))
    assert sorted(int(image) for _, image in drawn) == sorted(int(i) for _, i in past.pairs)


def test_a_co_trained_detector_is_saved_and_loaded(tmp_path: Path, photographs: Path) -> None:
    cotraining, reward = start(tmp_path, photographs)
    cotraining.after_iteration(1, batch(1), PROMPTS, rewards(1))
    (folder,) = cotraining.save_detectors(tmp_path / "detectors")
    assert folder.name == "tiny-statistics-cotrained"
    loaded = load_detector(folder)
    images = [image.permute(1, 2, 0).numpy() for image in batch(5)]
    logits = loaded.logits(torch.stack([loaded.prepare(image) for image in images]))
    expected = realism(reward, batch(5))
    np.testing.assert_allclose(torch.sigmoid(logits), expected, rtol=1e-5, atol=1e-6)


def test_a_detector_that_shares_its_transformer_is_saved_whole(tmp_path: Path) -> None:
    detector = load_detector("trace-lite")
    assert isinstance(detector, ViewsDetector)
    pictures = torch.stack([detector.prepare(rough(n)) for n in range(2)])
    before = detector.logits(pictures)
    trained = TrainableDetector(detector, CotrainingConfig(paired="none"))
    assert {value.dtype for value in trained.network.state_dict().values()} == {torch.float32}
    loaded = load_detector(export_detector(detector, tmp_path))
    assert isinstance(loaded, ViewsDetector)
    assert loaded.card.backbone is None
    torch.testing.assert_close(loaded.logits(pictures), before, rtol=0, atol=0.02)


def test_what_is_wrong_is_one_line(tmp_path: Path, photographs: Path) -> None:
    _, reward = start(tmp_path, photographs)
    plain = build_reward(
        RewardConfig(components=[FunctionConfig(function="tests.fakes:make_card")])
    )
    for config, of, says in (
        (CotrainingConfig(), reward, "give them with --paired"),
        (CotrainingConfig(paired="x", detectors=("other",)), reward, "'other' takes no part"),
        (CotrainingConfig(paired="x"), plain, "needs a detector with weights"),
    ):
        with pytest.raises(UsageError, match=says):
            build_cotraining(config, reward=of)
    cotraining, _ = start(tmp_path, photographs)
    large = torch.zeros(8, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(UsageError, match="as large as the generated images, 64 x 64"):
        cotraining.after_iteration(0, large, PROMPTS, rewards(0))
