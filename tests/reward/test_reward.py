"""The reward: what its components see, how they are put together, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from realbench.errors import RealBenchError, UsageError
from realbench.reward.reward import Component, RewardConfig, WeightedReward, build_reward
from realbench.scoring.scorer import Scorer
from tests.fakes import make_card


class Constant:
    """A component that gives what it was made with, and remembers what it saw."""

    def __init__(self, name: str, values: Any, weight: float = 1.0) -> None:
        self.name, self.weight, self.values = name, weight, values
        self.seen: list[tuple[Sequence[np.ndarray], Sequence[str]]] = []

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> Any:
        self.seen.append((images, prompts))
        return self.values

    def describe(self) -> dict[str, Any]:
        return {"kind": "constant"}


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (70 + n, 80, 3), np.uint8) for n in range(count)]


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return make_card(tmp_path / "cards", "tiny")


# --- Putting together --------------------------------------------------------------------------


def test_the_reward_is_the_weighted_mean() -> None:
    one, two = Constant("one", [0.0, 1.0], 3.0), Constant("two", np.array([1.0, 1.0]), 1.0)
    reward = WeightedReward([one, two])
    assert isinstance(one, Component)
    assert reward.weights == {"one": 0.75, "two": 0.25}
    values = reward(pictures(2), ["a", "b"])
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [0.25, 1.0])
    each = reward.each(pictures(2), ["a", "b"])
    np.testing.assert_array_equal(each["one"], np.float32([0, 1]))
    np.testing.assert_array_equal(reward.total(each), values)
    total, components = reward.with_components(pictures(2), ["a", "b"])
    np.testing.assert_array_equal(total, values)
    assert components.keys() == each.keys()


def test_of_weight_0_a_component_is_measured_only() -> None:
    reward = WeightedReward([Constant("one", [0.5]), Constant("watched", [1.0], 0.0)])
    assert reward(pictures(1), ["a"]).tolist() == [0.5]
    assert reward.each(pictures(1), ["a"])["watched"].tolist() == [1.0]


def test_every_kind_of_images_reaches_the_components_as_arrays() -> None:
    array = pictures(1)[0]
    tensor = torch.from_numpy(array).permute(2, 0, 1)[None]
    for images in ([array], [Image.fromarray(array)], tensor):
        one = Constant("one", torch.tensor([0.5], dtype=torch.bfloat16))
        assert WeightedReward([one])(images, ["a fox"]).tolist() == [0.5]
        ((seen, prompts),) = one.seen
        assert prompts == ["a fox"]
        assert isinstance(seen[0], np.ndarray)
        np.testing.assert_array_equal(seen[0], array)


def test_no_images_ask_nobody() -> None:
    one = Constant("one", [0.5])
    values = WeightedReward([one])([], [])
    assert values.shape == (0,)
    assert values.dtype == np.float32
    assert not one.seen


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.5, np.nan], "gave nan for image 1 "),
        ([0.5, np.inf], "gave inf for image 1 "),
        ([1.5, 2.0], r"gave 1.5 for image 0 \(2 of 2"),
        ([-0.5, 0.2], "gave -0.5"),
        ([0.5], r"gave values of shape \(1,\), not \(2,\)"),
        ([[0.5, 0.5]], "gave values of shape"),
        (["good", "bad"], "gave no numbers"),
        (None, "shape|numbers"),
        ([[0.1], [0.1, 0.2]], "gave no numbers"),
    ],
)
def test_what_is_no_reward_is_refused_by_name(values: Any, says: str) -> None:
    reward = WeightedReward([Constant("good", [0.1, 0.2]), Constant("odd", values)])
    with pytest.raises(RealBenchError, match=says) as raised:
        reward(pictures(2), ["a", "b"])
    assert "'odd'" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rounding_is_cut_off() -> None:
    values = WeightedReward([Constant("half", np.float16([1.0001, -0.00005]))])(
        pictures(2), ["a", "b"]
    )
    assert values.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("images", "prompts", "says"),
    [
        ([np.zeros((4, 4, 3), np.uint8)], ["a", "b"], "images: 1, prompts: 2"),
        ([np.full((4, 4, 3), 9, np.float32)], ["a"], "image 0"),
        (np.zeros((4, 4, 3), np.uint8), ["a"], "list of images"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), ["a"], "shape"),
    ],
)
def test_other_input_is_refused(images: Any, prompts: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        WeightedReward([Constant("one", [0.5])])(images, prompts)


@pytest.mark.parametrize(
    "components",
    [
        [],
        [Constant("a", []), Constant("a", [])],
        [Constant("a", [], 0.0)],
        [Constant("a", [], -1.0), Constant("b", [], 2.0)],
    ],
)
def test_components_that_make_no_reward_are_refused(components: list[Constant]) -> None:
    with pytest.raises(UsageError):
        WeightedReward(components)


# --- From a configuration ----------------------------------------------------------------------


def test_detectors_are_the_scorers(card: Path) -> None:
    config = RewardConfig.model_validate(
        {"components": [{"kind": "detectors", "detectors": [card.as_posix()]}]}
    )
    reward = build_reward(config, device="cpu")
    images = pictures(5)
    expected = Scorer([card], device="cpu").reward(images)
    values = reward(images, [""] * 5)
    np.testing.assert_array_equal(values, expected)
    assert np.ptp(values) > 0.01
    described = reward.describe()["components"][0]
    assert described["detectors"][0]["name"] == "tiny"
    assert len(described["detectors"][0]["fingerprint"]) == 64
    json.dumps(reward.describe())


def test_the_default_is_the_embedded_pair() -> None:
    reward = build_reward(RewardConfig(), device="cpu")
    names = [one["name"] for one in reward.describe()["components"][0]["detectors"]]
    assert sorted(names) == ["semantic-lite", "trace-lite"]
    values = reward(pictures(2), ["a", "b"])
    np.testing.assert_array_equal(values, Scorer(device="cpu").reward(pictures(2)))


def test_a_function_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_reward_of_a_test.py").write_text(
        "class Bright:\n"
        "    @staticmethod\n"
        "    def mean(images, prompts):\n"
        "        return [image.mean() / 255 for image in images]\n"
        "def broken(images, prompts):\n"
        "    raise KeyError('no lamp')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)

    def built(function: str) -> WeightedReward:
        table = {
            "components": [{"kind": "function", "function": f"my_reward_of_a_test:{function}"}]
        }
        return build_reward(RewardConfig.model_validate(table))

    white = np.full((8, 8, 3), 255, np.uint8)
    values = built("Bright.mean")([white, white // 3], ["", ""])
    np.testing.assert_allclose(values, [1, 1 / 3], rtol=1e-6)
    with pytest.raises(RealBenchError, match=r"my_reward_of_a_test:broken failed: KeyError: 'no l"):
        built("broken")([white], [""])
    for missing in ("number", "nothing", "Bright.nothing"):
        with pytest.raises(UsageError, match="has no function"):
            built(missing)


def test_a_module_that_is_not_there_is_one_line() -> None:
    table = {"components": [{"kind": "function", "function": "no_such_module_here:f"}]}
    with pytest.raises(UsageError, match="no_such_module_here cannot be imported"):
        build_reward(RewardConfig.model_validate(table))


def test_names_default_to_the_kind_and_must_differ() -> None:
    one = {"kind": "function", "function": "a:b"}
    config = RewardConfig.model_validate({"components": [one, {**one, "name": "other"}]})
    assert [c.name for c in config.components] == ["function", "other"]
    assert RewardConfig.model_validate(config.model_dump()) == config
    with pytest.raises(ValidationError, match="two components are called 'function'"):
        RewardConfig.model_validate({"components": [one, one]})


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"kind": "detector"}, "detectors"),
        ({"kind": "detectors", "detectors": ["a"], "scale": 2}, "scale"),
        ({"kind": "detectors", "weight": -1}, "weight"),
        ({"kind": "detectors", "weight": float("nan")}, "weight"),
        ({"kind": "detectors", "weight": 0}, "above 0"),
        ({"kind": "function", "function": "os.system"}, "function"),
        ({"kind": "judge", "references": "x"}, "prompts"),
        ({"kind": "http", "url": "ftp://x"}, "url"),
        ({"weight": 1}, "kind"),
    ],
)
def test_a_table_with_a_mistake_names_it(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        RewardConfig.model_validate({"components": [table]})


def test_an_unknown_detector_is_a_usage_error() -> None:
    table = {"components": [{"kind": "detectors", "detectors": ["trace-lit"]}]}
    with pytest.raises(UsageError, match="did you mean trace-lite"):
        build_reward(RewardConfig.model_validate(table), device="cpu")
