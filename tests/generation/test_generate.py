"""Image folders from a tiny diffusers pipeline: seeds, going on, settings, LoRA, rewriting."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.generation import GenerateOptions, Generation, Progress, generate, image_seed
from realbench.generation.pipeline import Lora, PipelineOptions
from realbench.generation.rewriting import RewriterOptions, clean_answer
from realbench.generation.run import LOCK_FILE
from realbench.images import find_images
from realbench.prompts import Prompt, Suite
from realbench.runs.folder import locked
from tests.generation.tiny_models import save_tiny_writer

pytestmark = pytest.mark.slow

SUITE = Suite(
    "four",
    {
        name: Prompt(name, f"a {thing}", "things", f"A {thing} on a table, by a window.")
        for name, thing in (("a", "red fox"), ("b", "blue cup"), ("c", "cat"), ("d", "dog"))
    },
)


@pytest.fixture
def options(tiny_pipeline: Path) -> GenerateOptions:
    small = PipelineOptions(str(tiny_pipeline), steps=2, width=32, height=32, device="cpu")
    return GenerateOptions(small)


def changed(options: GenerateOptions, **values: Any) -> GenerateOptions:
    return replace(options, pipeline=replace(options.pipeline, **values))


def pixels(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path), int) for path in sorted(folder.glob("*.png"))}


def manifest_of(run: Generation) -> dict[str, Any]:
    return json.loads((run.folder / "generation.json").read_text(encoding="utf-8"))


def test_each_prompt_gets_an_image_whose_making_is_written_down(
    tmp_path: Path, options: GenerateOptions, tiny_pipeline: Path
) -> None:
    seen: list[Progress] = []
    run = generate(SUITE, tmp_path / "tiny", options, progress=seen.append)
    assert (run.made, run.kept) == (4, 0)
    assert [file.prompt_id for file in find_images(run.folder)] == list("abcd")
    manifest = manifest_of(run)
    assert manifest == run.manifest
    assert manifest["suite"] == SUITE.describe()
    assert manifest["stop_reason"] == "complete"
    assert manifest["settings"]["model"] == str(tiny_pipeline)
    assert manifest["settings"]["pipeline"] == "StableDiffusionPipeline"
    assert manifest["settings"]["dtype"] == "float32"
    arguments = {"num_inference_steps": 2, "width": 32, "height": 32}
    assert manifest["settings"]["arguments"] == arguments
    for name, record in manifest["images"].items():
        data = (run.folder / record["file"]).read_bytes()
        assert record["sha256"] == hashlib.sha256(data).hexdigest()
        assert record["prompt"] == SUITE.prompts[name].prompt
        assert record["seed"] == image_seed(0, name)
        assert (record["width"], record["height"]) == (32, 32)
        assert (record["flagged"], record["truncated"]) == (False, False)
    assert seen[0].stage == "loading"
    assert seen[-1] == Progress("generating", 4, 4)


def test_the_seed_is_of_the_prompt_and_not_of_the_batch(
    tmp_path: Path, options: GenerateOptions
) -> None:
    one = generate(SUITE, tmp_path / "one", options).folder
    batch = generate(SUITE, tmp_path / "batch", replace(options, batch_size=3)).folder
    other = generate(SUITE, tmp_path / "other", replace(options, seed=1)).folder
    reversed_ = Suite("two", {name: SUITE.prompts[name] for name in ("d", "a")})
    two = generate(reversed_, tmp_path / "two", options).folder
    for name, image in pixels(one).items():
        assert np.abs(image - pixels(batch)[name]).max() <= 1
        assert np.abs(image - pixels(other)[name]).max() > 10
    assert all((image == pixels(one)[name]).all() for name, image in pixels(two).items())
    assert len({image.tobytes() for image in pixels(one).values()}) == 4
    assert len({image_seed(seed, name) for seed in range(3) for name in "abcd"}) == 12


def test_a_run_goes_on_where_it_was(tmp_path: Path, options: GenerateOptions) -> None:
    whole = generate(SUITE, tmp_path / "whole", options).folder
    out = tmp_path / "parts"
    assert generate(SUITE, out, replace(options, limit=2)).made == 2
    (out / ".c.png.4711.part").write_bytes(b"half")  # what a killed run leaves
    manifest = json.loads((out / "generation.json").read_text(encoding="utf-8"))
    del manifest["images"]["b"]["sha256"], manifest["images"]["b"]["width"]  # not yet written then
    (out / "generation.json").write_text(json.dumps(manifest), encoding="utf-8")
    stamp = (out / "a.png").stat().st_mtime_ns
    run = generate(SUITE, out, options)
    assert (run.made, run.kept) == (2, 2)
    assert (out / "a.png").stat().st_mtime_ns == stamp
    assert not list(out.glob(".*.part"))
    assert all((out / f"{n}.png").read_bytes() == (whole / f"{n}.png").read_bytes() for n in "abcd")
    assert [one["sha256"] for one in run.manifest["images"].values()] == [
        hashlib.sha256((whole / f"{n}.png").read_bytes()).hexdigest() for n in "abcd"
    ]
    (out / "c.png").unlink()
    again = generate(SUITE, out, options)
    assert (again.made, again.kept) == (1, 3)
    assert (out / "c.png").read_bytes() == (whole / "c.png").read_bytes()
    (out / "c.png").write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"c\.png is not the image that was made"):
        generate(SUITE, out, options)


def test_a_folder_has_images_of_one_kind(
    tmp_path: Path, options: GenerateOptions, tiny_lora: Path
) -> None:
    out = generate(SUITE, tmp_path / "tiny", options).folder
    before = (out / "generation.json").read_bytes()
    for other, what in (
        (changed(options, steps=3), "arguments"),
        (changed(options, loras=(Lora(str(tiny_lora)),)), "loras"),
        (changed(options, dtype="bfloat16"), "dtype"),
        (replace(options, seed=7), "seed"),
        (replace(options, long=True), "form"),
    ):
        with pytest.raises(UsageError, match=f"images made with another {what} .*another --out"):
            generate(SUITE, out, other)
    rewritten = Suite("four", {"a": Prompt("a", "a gray fox")})
    with pytest.raises(UsageError, match=r"an image of another prompt 'a'"):
        generate(rewritten, out, options)
    with (
        locked(out, LOCK_FILE, holder="realbench generate"),
        pytest.raises(UsageError, match="another realbench generate is writing to"),
    ):
        generate(SUITE, out, options)
    assert (out / "generation.json").read_bytes() == before
    (out / "generation.json").unlink()
    with pytest.raises(UsageError, match=r"has a\.png but no generation\.json"):
        generate(SUITE, out, options)


def test_the_long_form_is_what_the_model_gets(tmp_path: Path, options: GenerateOptions) -> None:
    long = replace(options, long=True)
    run = generate(SUITE, tmp_path / "long", long)
    short = generate(SUITE, tmp_path / "short", options)
    assert run.manifest["images"]["a"]["prompt"] == SUITE.prompts["a"].prompt_long
    assert (pixels(run.folder)["a"] != pixels(short.folder)["a"]).any()
    bare = Suite("bare", {"a": Prompt("a", "a red fox")})
    with pytest.raises(UsageError, match="bare has no long form of 'a'"):
        generate(bare, tmp_path / "bare", long)


def test_a_prompt_that_the_encoder_cuts_off_is_told(
    tmp_path: Path, options: GenerateOptions
) -> None:
    suite = Suite("s", {"a": Prompt("a", "x" * 75), "b": Prompt("b", "x" * 76)})
    with pytest.warns(RealBenchWarning, match=r"1 of 2 prompts \(b is the first\)"):
        run = generate(suite, tmp_path / "cut", options)
    assert [one["truncated"] for one in run.manifest["images"].values()] == [False, True]
    assert run.manifest["counts"]["truncated"] == 1


def test_a_lora_is_put_on_by_its_scale(
    tmp_path: Path, options: GenerateOptions, tiny_lora: Path
) -> None:
    file = tiny_lora / "pytorch_lora_weights.safetensors"
    images = []
    for number, loras in enumerate(
        ((), (Lora(str(file), 0.0),), (Lora(str(tiny_lora), 0.5),), (Lora(str(tiny_lora)),))
    ):
        run = generate(SUITE, tmp_path / str(number), changed(options, loras=loras))
        images.append(pixels(run.folder)["a"])
    plain, none, half, full = images
    assert np.abs(plain - none).max() <= 1
    assert np.abs(plain - half).max() > 10
    assert np.abs(half - full).max() > 10
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert run.manifest["settings"]["loras"] == [
        {"source": str(tiny_lora), "scale": 1.0, "sha256": digest}
    ]


def test_what_does_not_fit_is_one_line(
    tmp_path: Path, options: GenerateOptions, tiny_lora: Path
) -> None:
    pickled = tmp_path / "lora.bin"
    pickled.write_bytes(b"\x80\x04.")
    (tmp_path / "empty").mkdir()
    cases: list[tuple[GenerateOptions, str]] = [
        (changed(options, extra={"zoom": 2}), "takes no zoom; it takes height, width"),
        (changed(options, extra={"generator": 2}), "generator is set by generate itself"),
        (changed(options, loras=(Lora(str(pickled)),)), "only safetensors files are read"),
        (changed(options, loras=(Lora(str(tmp_path / "empty")),)), "cannot load --lora"),
        (changed(options, model=str(tmp_path / "empty")), "has no model_index.json"),
        (changed(options, width=33), "StableDiffusionPipeline failed: "),
        (changed(options, device="cuda:77"), "device 'cuda:77' cannot be used here"),
        (changed(options, dtype="int8"), "no dtype 'int8'"),
        (replace(options, batch_size=0), "batch_size must be at least 1"),
    ]
    for number, (bad, message) in enumerate(cases):
        with pytest.raises(RealBenchError) as error:
            generate(SUITE, tmp_path / f"bad-{number}", bad)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
    slash = Suite("s", {"../a": Prompt("../a", "a red fox")})
    with pytest.raises(UsageError, match="cannot be the name of a file"):
        generate(slash, tmp_path / "slash", options)


@pytest.mark.parametrize("chat", [True, False])
def test_a_language_model_rewrites_the_prompts_first(
    tmp_path: Path, options: GenerateOptions, chat: bool
) -> None:
    writer = RewriterOptions(
        str(save_tiny_writer(tmp_path / "writer", chat=chat)), max_tokens=12, batch_size=3
    )
    plain = generate(SUITE, tmp_path / "plain", options)
    seen: list[Progress] = []
    out = tmp_path / "rewritten"
    run = generate(SUITE, out, replace(options, rewriter=writer), progress=seen.append)
    records = run.manifest["images"]
    texts = {name: record["rewritten"] for name, record in records.items()}
    assert any(texts.values())
    assert all(record["prompt"] == SUITE.prompts[n].prompt for n, record in records.items())
    assert run.manifest["counts"]["not_rewritten"] == list(texts.values()).count(None)
    settings = run.manifest["settings"]["rewriter"]
    assert settings["instruction"] == "photographic-v1"
    assert len(settings["instruction_sha256"]) == 64
    for name, image in pixels(run.folder).items():
        same = (image == pixels(plain.folder)[name]).all()
        assert same == (texts[name] is None)
    assert Progress("rewriting", 4, 4) in seen
    # One by one the texts are the same, and what is written down is not asked for again.
    again = generate(
        SUITE, tmp_path / "singly", replace(options, rewriter=replace(writer, batch_size=1))
    )
    assert {n: one["rewritten"] for n, one in again.manifest["images"].items()} == texts
    (out / "a.png").unlink()
    seen.clear()
    generate(SUITE, out, replace(options, rewriter=writer), progress=seen.append)
    assert not [one for one in seen if one.stage == "rewriting"]
    with pytest.raises(UsageError, match="made with another rewriter"):
        generate(SUITE, out, options)


def test_a_model_of_the_hub_without_a_network_is_one_line(
    tmp_path: Path, options: GenerateOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RealBenchError) as error:
        generate(SUITE, tmp_path / "x", changed(options, model="no/such-model"))
    assert str(error.value) == (
        "cannot load the pipeline no/such-model: the hub cannot be reached, and it is not in the "
        "local cache"
    )


def test_a_rewriter_that_cannot_be_used_is_one_line(
    tmp_path: Path, options: GenerateOptions
) -> None:
    (tmp_path / "empty").mkdir()
    no_model = RewriterOptions(str(tmp_path / "empty"))
    with pytest.raises(RealBenchError, match=r"cannot load the rewriter .*empty") as error:
        generate(SUITE, tmp_path / "x", replace(options, rewriter=no_model))
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"cannot read the instruction .*photographic-v1"):
        generate(
            SUITE, tmp_path / "x", replace(options, rewriter=replace(no_model, instruction="no"))
        )


@pytest.mark.parametrize(
    ("answer", "chat", "text"),
    [
        ("  A red fox,\n at dawn. ", True, "A red fox, at dawn."),
        ('"A red fox at dawn."', True, "A red fox at dawn."),
        ('"OPEN" in red, and a sign "CLOSED"', True, '"OPEN" in red, and a sign "CLOSED"'),
        ("<think>what, a fox?</think>\nA red fox.", True, "A red fox."),
        ("<think>it never ends", True, None),
        (" A red fox.\nDescription: a cup", False, "A red fox."),
        (" \n", True, None),
        ("", False, None),
    ],
)
def test_an_answer_is_one_line(answer: str, chat: bool, text: str | None) -> None:
    assert clean_answer(answer, chat=chat) == text


@pytest.mark.parametrize(
    ("text", "lora"),
    [
        ("my/lora", Lora("my/lora", 1.0)),
        ("my.safetensors=0.8", Lora("my.safetensors", 0.8)),
        ("a=b.safetensors", Lora("a=b.safetensors", 1.0)),
    ],
)
def test_a_lora_may_have_a_scale(text: str, lora: Lora) -> None:
    assert Lora.parse(text) == lora
