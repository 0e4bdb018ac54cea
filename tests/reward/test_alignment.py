"""Text alignment: the cosine of a CLIP model as a reward, with random weights in a file."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.reward.components import AlignmentComponent
from realbench.reward.reward import AlignmentConfig, RewardConfig, WeightedReward, build_reward

TINY = "test-clip-of-realbench"
SIZE = 32


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a small architecture known to open_clip; return a file of random weights for it."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{TINY}.json").write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, '
        '"patch_size": 16, "head_width": 32}, "text_cfg": {"context_length": 77, '
        '"vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}'
    )
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model(TINY, load_weights=False)
    torch.nn.init.normal_(model.token_embedding.weight, std=1.0)  # so that texts differ
    torch.nn.init.normal_(model.positional_embedding, std=0.5)
    file = folder / "clip.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    return file


def component(weights: Path, **options: object) -> AlignmentComponent:
    config = AlignmentConfig.model_validate({"model": TINY, "weights": str(weights), **options})
    return AlignmentComponent(config, "cpu")


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (40, 48 + n, 3), np.uint8) for n in range(count)]


def cosines(weights: Path, images: list[np.ndarray], prompts: list[str]) -> np.ndarray:
    """Compute them plainly, one at a time, by open_clip's own loading."""
    model, _, prepare = open_clip.create_model_and_transforms(TINY, pretrained=str(weights))
    tokenize = open_clip.get_tokenizer(TINY)
    model.eval()
    found = []
    with torch.no_grad():
        for image, prompt in zip(images, prompts, strict=True):
            x = model.encode_image(prepare(Image.fromarray(image))[None])[0]
            y = model.encode_text(tokenize([prompt]))[0]
            found.append(float(torch.nn.functional.cosine_similarity(x, y, dim=0)))
    return np.array(found)


@pytest.mark.parametrize("where", ["tokenizer", "text model"])
def test_code_that_comes_with_a_model_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Not even where its own settings, or somebody at the terminal, say that it may."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    marker = tmp_path / "it ran"
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    if where == "tokenizer":
        text |= {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    else:
        text |= {"hf_model_name": str(tmp_path), "hf_proj_type": "linear"}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16, "head_width": 32}
    model = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    (tmp_path / "mine.py").write_text(f"open({str(marker)!r}, 'w')")
    own = {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
    own |= {"AutoTokenizer": ["mine.Tokenizer", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mine", "auto_map": own}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": own}))
    if where == "tokenizer":
        architecture = tmp_path / "architecture"
        architecture.mkdir()
        plain = {key: value for key, value in text.items() if "tokenizer" not in key}
        name = "test-clip-of-realbench-2"
        (architecture / f"{name}.json").write_text(json.dumps(model | {"text_cfg": plain}))
        open_clip.add_model_config(architecture)
        network = open_clip.create_model(name, load_weights=False)
        save_file(network.state_dict(), tmp_path / "open_clip_model.safetensors")
    config = AlignmentConfig.model_validate({"model": f"local-dir:{tmp_path}"})
    with pytest.raises(RealBenchError, match="needs Python code of its own, which is never run"):
        AlignmentComponent(config, "cpu")
    assert not marker.exists()


def test_it_is_clipscore_cut_to_0_and_1(tiny: Path) -> None:
    images = pictures(7)
    prompts = ["a fox", "a red barn in the snow", "a fox", "x", "", "two boats", "a fox"]
    expected = cosines(tiny, images, prompts)
    assert expected.max() > 0.3
    assert np.ptp(expected) > 0.1
    for scale, batch_size in ((1.0, 32), (2.5, 3), (50.0, 1)):
        values = component(tiny, scale=scale, batch_size=batch_size)(images, prompts)
        np.testing.assert_allclose(values, np.clip(scale * expected, 0, 1), atol=1e-5)
        assert values.dtype == np.float32


def test_a_negative_cosine_is_0(tiny: Path, tmp_path: Path) -> None:
    state = load_file(tiny)
    file = tmp_path / "against.safetensors"
    save_file({**state, "text_projection": -state["text_projection"]}, file)
    assert (cosines(file, pictures(2), ["a fox", "x"]) < -0.1).all()
    assert component(file)(pictures(2), ["a fox", "x"]).tolist() == [0.0, 0.0]


def test_it_is_part_of_a_reward(tiny: Path) -> None:
    table = {"kind": "alignment", "model": TINY, "weights": str(tiny)}
    reward = build_reward(RewardConfig.model_validate({"components": [table]}), device="cpu")
    assert isinstance(reward, WeightedReward)
    assert len(reward(pictures(2), ["a", "b"])) == 2
    described = reward.describe()["components"][0]
    assert len(described["sha256"]) == 64
    assert described["context_length"] == 77


def test_a_long_prompt_is_cut_with_one_warning(tiny: Path) -> None:
    one = component(tiny)
    with pytest.warns(RealBenchWarning, match=r"reads 77 tokens .*\(1 of 2 here\)"):
        one(pictures(2), ["a fox", "a " * 200])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one(pictures(2), ["a fox", "a " * 200])


def test_a_file_of_long_clip_reads_248_tokens(tiny: Path, tmp_path: Path) -> None:
    """Its two tables of positions are one: 20 of the first, the others of the second."""
    model = open_clip.create_model(TINY, pretrained=str(tiny))
    state = model.state_dict()
    width = state["positional_embedding"].shape[1]
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(248, width, generator=generator) for _ in range(2))
    long_file = tmp_path / "longclip.pt"  # as published: a torch file, in half precision
    halves = {k: v.half() for k, v in state.items()}
    torch.save(
        {**halves, "positional_embedding": first, "positional_embedding_res": second}, long_file
    )
    one = component(long_file)
    assert one.context_length == 248
    table = one.model.positional_embedding.detach()
    assert table.shape == (248, width)
    torch.testing.assert_close(table[:20], first[:20])
    torch.testing.assert_close(table[20:], second[20:])
    start = "a street at night " * 30  # 120 tokens
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fox, hen = one(pictures(1) * 2, [start + "with a fox", start + "with a hen"])
    assert fox != hen
    short = component(tiny)
    with pytest.warns(RealBenchWarning):
        fox, hen = short(pictures(1) * 2, [start + "with a fox", start + "with a hen"])
    assert fox == hen


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_of_another_network_is_one_line(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"other{suffix}"
    state = {"visual.conv1.weight": torch.zeros(3)}
    if suffix == ".pt":
        torch.save(state, file)
    else:
        save_file(state, file)
    with pytest.raises(RealBenchError, match="does not fit") as raised:
        component(file)
    assert "\n" not in str(raised.value)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    file = tmp_path / "evil.pt"
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RealBenchError):
        component(file)
    assert not (tmp_path / "ran").exists()


def test_unknown_names_are_said(tiny: Path) -> None:
    with pytest.raises(UsageError, match="no model 'ViT-Z'"):
        AlignmentComponent(AlignmentConfig(model="ViT-Z"), "cpu")
    with pytest.raises(UsageError, match="needs weights"):
        AlignmentComponent(AlignmentConfig(model=TINY, weights=None), "cpu")
    with pytest.raises(RealBenchError, match="cannot load") as raised:
        AlignmentComponent(AlignmentConfig(model=TINY, weights="no-such-tag"), "cpu")
    assert "\n" not in str(raised.value)
