"""A judge as a reward: an image against the reference image of its prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realbench.arena.judges import JudgeOptions, make_judge
from realbench.arena.judges.judge import Picture, Showing
from realbench.errors import RealBenchWarning, UsageError
from realbench.files import file_sha256
from realbench.reward.judge import judge_component
from realbench.reward.reward import JudgeConfig, RewardConfig, build_reward
from tests.arena import openai_server
from tests.fakes import make_card

OPENAI = {"judge": "openai:test", "api_key_env": "KEY_OF_A_TEST"}
PROMPTS = {"0001": "a fox", "0002": "a hen & chicks", "0003": "a boat"}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    lines = [{"id": i, "prompt": p, "prompt_long": f"{p} in the snow"} for i, p in PROMPTS.items()]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n, name in enumerate(PROMPTS):
        pixels = rng.integers(0, 256, (90, 80 + n, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def table(photos: Path, suite: Path, **options: Any) -> dict[str, Any]:
    return {"kind": "judge", "references": str(photos), "prompts": str(suite), **options}


def test_the_detectors_answer_as_they_do_in_the_arena(
    tmp_path: Path, photos: Path, suite: Path
) -> None:
    levels = {"a": "semantic", "b": "feature", "c": "feature"}
    cards = [
        str(make_card(tmp_path / "cards", name, level=level, seed=seed))
        for seed, (name, level) in enumerate(levels.items())
    ]
    config = RewardConfig.model_validate({"components": [table(photos, suite, detectors=cards)]})
    reward = build_reward(config, device="cpu")
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (85, 80, 3), np.uint8) for _ in range(6)]
    ids = ["0001", "0002", "0003", "0001", "0002", "0002"]
    texts = [PROMPTS[one] for one in ids]
    texts[3] += "  in the  snow"  # the long form, spaced otherwise
    values = reward(images, texts)
    assert np.ptp(values) > 0.01

    judge = make_judge("detectors", JudgeOptions(detectors=tuple(cards), device="cpu", cache=False))
    showings = []
    for n, (image, name) in enumerate(zip(images, ids, strict=True)):
        path = tmp_path / f"{n}.png"
        Image.fromarray(image).save(path)
        reference = photos / f"{name}.png"
        showings.append(
            Showing(
                str(n),
                None,
                Picture("generated", path, file_sha256(path)),
                Picture("reference", reference, file_sha256(reference)),
            )
        )
    expected = [judgment.probability for _, judgment in judge.judge(showings) if judgment]
    np.testing.assert_allclose(values, np.array(expected, float), atol=1e-5)
    np.testing.assert_array_equal(reward(images, texts), values)  # references from memory


def red(amount: int) -> np.ndarray:
    return np.stack([np.full((40, 40), v, np.uint8) for v in (amount, 0, amount // 3)], axis=-1)


def test_a_model_is_asked_in_both_orders(
    photos: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_A_TEST", "sk-secret-of-a-test")
    for name in PROMPTS:
        Image.fromarray(red(120)).save(photos / f"{name}.png")
    with openai_server.serve() as server:
        config = JudgeConfig.model_validate(
            table(
                photos, suite, judge="openai:test", base_url=server.url, api_key_env="KEY_OF_A_TEST"
            )
        )
        component = judge_component(config)
        values = component([red(200), red(20), red(120)], list(PROMPTS.values()))
        assert values.tolist() == [1.0, 0.0, 0.5]
        assert len(server.requests) == 6
        assert "sk-secret" not in json.dumps(component.describe())
        # the same prompt and images twice in a batch are two rewards
        again = component([red(200), red(200), red(10)], ["a fox"] * 3)
        assert again.tolist() == [1.0, 1.0, 0.0]


def test_an_answer_of_no_use_is_a_tie_and_counted(
    photos: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_A_TEST", "sk-secret-of-a-test")
    Image.fromarray(red(120)).save(photos / "0001.png")

    def fault(request: openai_server.Request) -> openai_server.Fault | None:
        shown = [np.asarray(picture)[0, 0, 0] for picture in request.pictures]
        return openai_server.refusal if shown[0] > shown[1] else None

    with openai_server.serve(fault) as server:
        config = JudgeConfig.model_validate(
            table(
                photos, suite, judge="openai:test", base_url=server.url, api_key_env="KEY_OF_A_TEST"
            )
        )
        component = judge_component(config)
        with pytest.warns(RealBenchWarning, match="counts as a tie"):
            values = component([red(200)], ["a fox"])
    assert values.tolist() == [0.75]  # a win in one order, no answer in the other
    assert (component.asked, component.invalid) == (2, 1)  # type: ignore[union-attr]


def test_a_prompt_without_a_reference_is_named(photos: Path, suite: Path) -> None:
    (photos / "0003.png").unlink()
    component = judge_component(JudgeConfig.model_validate(table(photos, suite)), "cpu")
    with pytest.raises(UsageError, match="for the prompt 'a boat'"):
        component([red(1)], ["a boat"])


def test_references_that_cannot_be_used(photos: Path, suite: Path) -> None:
    for file in photos.iterdir():
        file.rename(file.with_name(f"x{file.name}"))
    with pytest.raises(UsageError, match=r"no image in .* is named by a prompt id"):
        judge_component(JudgeConfig.model_validate(table(photos, suite)), "cpu")
    for judge, says in (("human", "a person"), ("human:ann", "a person"), ("chance", "no judge")):
        with pytest.raises(UsageError, match=says):
            judge_component(JudgeConfig.model_validate(table(photos, suite, judge=judge)), "cpu")


def test_two_references_of_one_text_are_refused(photos: Path, suite: Path) -> None:
    with suite.open("a") as file:
        file.write("\n" + json.dumps({"id": "0004", "prompt": "a  fox"}))
    Image.fromarray(red(1)).save(photos / "0004.png")
    with pytest.raises(UsageError, match=r"0001 and 0004 .* have one text"):
        judge_component(JudgeConfig.model_validate(table(photos, suite)), "cpu")
