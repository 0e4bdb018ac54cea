"""Each pipeline class, tiny and random: what we sample is what the pipeline samples; it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from realbench.errors import UsageError
from realbench.train.config import SamplingConfig
from realbench.train.flow_models import adapt, load_flow_model
from realbench.train.flow_models.flow_model import FlowModel, concatenate, take
from realbench.train.loss import kl_to_base, policy_loss
from realbench.train.rollout import Rollout, difference_from_pipeline, replay, rollout
from realbench.train.sde import SdeKind
from tests.train import tiny_pipelines
from tests.train.tiny_pipelines import PROMPTS


@dataclass(frozen=True)
class Case:
    make: Callable[[], Any]
    guidance: float
    call: dict[str, Any]  # what the guidance is called by the pipeline's users


CASES = {
    "sd3": Case(tiny_pipelines.tiny_sd3, 4.5, {"guidance_scale": 4.5}),
    "sd3-unguided": Case(tiny_pipelines.tiny_sd3, 1.0, {"guidance_scale": 1.0}),
    "flux": Case(tiny_pipelines.tiny_flux, 3.5, {"guidance_scale": 3.5}),
    "flux-schnell": Case(
        lambda: tiny_pipelines.tiny_flux(guidance_embeds=False), 3.5, {"guidance_scale": 0.0}
    ),
    "qwen-image": Case(
        tiny_pipelines.tiny_qwen_image, 4.0, {"true_cfg_scale": 4.0, "negative_prompt": [" "] * 2}
    ),
    "z-image": Case(tiny_pipelines.tiny_z_image, 4.0, {"guidance_scale": 4.0}),
    "z-image-unguided": Case(tiny_pipelines.tiny_z_image, 0.0, {"guidance_scale": 0.0}),
}
STEPS, HEIGHT, WIDTH = 4, 16, 24


CLASSES = {name: case for name, case in CASES.items() if "-un" not in name and "sch" not in name}


def generators(seeds: Sequence[int] = range(len(PROMPTS))) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def settings(guidance: float, kind: SdeKind = "sde") -> SamplingConfig:
    return SamplingConfig(
        steps=STEPS,
        guidance=guidance,
        height=HEIGHT,
        width=WIDTH,
        noise_level=0.7,
        kind=kind,
        window=2,
    )


def sample(
    model: FlowModel,
    guidance: float,
    *,
    window: range = range(0),
    kind: SdeKind = "sde",
    images: Sequence[int] = range(len(PROMPTS)),
) -> Rollout:
    rows = take(model.encode_prompts(PROMPTS), list(images))
    return rollout(model, rows, settings(guidance, kind), generators(images), window=window)


@pytest.mark.parametrize("name", CASES)
def test_our_images_are_the_pipelines_own(name: str) -> None:
    case = CASES[name]
    pipeline = case.make()
    model = adapt(pipeline)
    difference = difference_from_pipeline(
        model,
        PROMPTS,
        guidance=case.guidance,
        call=case.call,
        steps=STEPS,
        height=HEIGHT,
        width=WIDTH,
    )
    assert difference < 1e-4
    call = {"num_inference_steps": STEPS, "height": HEIGHT, "width": WIDTH} | case.call
    images = pipeline(list(PROMPTS), generator=generators(), output_type="pt", **call).images
    ours = sample(model, case.guidance)
    assert (ours.latents[0] - ours.latents[1]).abs().mean() > 0.1
    difference_of_pixels = ours.images.int() - (images * 255).round().int()
    assert difference_of_pixels.abs().max() <= 1
    assert ours.images.dtype == torch.uint8
    assert tuple(ours.images.shape) == (2, 3, HEIGHT, WIDTH)


def test_a_wrong_adapter_is_told_from_a_right_one() -> None:
    """A tenth more guidance than the pipeline has, a time that is 1 % off, a sign."""
    case = CASES["sd3"]
    size: dict[str, Any] = {"steps": STEPS, "height": HEIGHT, "width": WIDTH}
    model = adapt(case.make())
    much = difference_from_pipeline(
        model, PROMPTS, guidance=1.1 * case.guidance, call=case.call, **size
    )
    assert much > 1e-2
    velocity = model.velocity
    for change in (
        lambda latents, sigma, rows, **rest: velocity(latents, sigma * 0.99, rows, **rest),
        lambda latents, sigma, rows, **rest: -velocity(latents, sigma, rows, **rest),
    ):
        model.velocity = change  # type: ignore[method-assign]
        off = difference_from_pipeline(
            model, PROMPTS, guidance=case.guidance, call=case.call, **size
        )
        assert off > 1e-3


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("kind", ["sde", "cps"])
def test_replayed_log_probabilities_are_those_of_sampling(name: str, kind: SdeKind) -> None:
    """To 1e-5 in float32, also for images replayed alone: so the first ratio is 1."""
    model = adapt(CLASSES[name].make())
    guidance = CLASSES[name].guidance
    found = sample(model, guidance, window=range(2), kind=kind)
    assert [step.index for step in found.steps] == [0, 1]
    assert found.steps[0].sigma == 1
    assert torch.equal(found.steps[0].next_sample, found.steps[1].sample)
    conditioning = model.encode_prompts(PROMPTS)
    for step in found.steps:
        for rows in ([0, 1], [1]):
            chosen = take(conditioning, rows)
            again = replay(model, chosen, step[rows], settings(guidance, kind))
            torch.testing.assert_close(again.log_prob, step.log_prob[rows], rtol=0, atol=1e-5)
            torch.testing.assert_close(again.mean, step.mean[rows], rtol=0, atol=1e-5)
            ratio = (again.log_prob - step.log_prob[rows]).exp()
            torch.testing.assert_close(ratio, torch.ones(len(rows)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    model = adapt(CLASSES[name].make())
    together = sample(model, CLASSES[name].guidance, window=range(1, 2))
    alone = sample(model, CLASSES[name].guidance, window=range(1, 2), images=[1])
    torch.testing.assert_close(together.latents[1:], alone.latents, rtol=1e-4, atol=1e-4)
    plain = sample(model, CLASSES[name].guidance)
    assert plain.steps == ()
    assert (plain.latents - together.latents).abs().mean() > 0.01


@pytest.mark.parametrize("name", CLASSES)
def test_two_optimiser_steps_of_lora(name: str, tmp_path: Path) -> None:
    """The loss falls on the same rollout, the weights stay finite, and the pipeline loads them."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    case = CLASSES[name]
    model = adapt(case.make())
    before = sample(model, case.guidance).latents
    torch.manual_seed(0)
    model.transformer.requires_grad_(False)
    model.transformer.add_adapter(LoraConfig(r=4, target_modules=list(model.lora_targets)))
    assert torch.equal(sample(model, case.guidance).latents, before)  # LoRA starts as nothing
    found = sample(model, case.guidance, window=range(1, 2))
    (step,) = found.steps
    weights = [weight for weight in model.transformer.parameters() if weight.requires_grad]
    start = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=1e-3)
    losses = []
    for _ in range(3):
        now = replay(model, model.encode_prompts(PROMPTS), step, settings(case.guidance))
        loss, _ = policy_loss(now, step, torch.tensor([1.0, -1.0]), clip=0.2, guard=True)
        loss = loss + 1e-3 * kl_to_base(now.mean, step.mean, std=step.std)
        losses.append(loss.item())
        if len(losses) < 3:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[0] == pytest.approx(0, abs=1e-5)
    assert losses[2] < losses[1] < losses[0]
    assert all(bool(torch.isfinite(weight).all()) for weight in weights)
    changed = [not torch.equal(one, two) for one, two in zip(weights, start, strict=True)]
    assert sum(changed) > 0.9 * len(changed)

    trained = sample(model, case.guidance).latents
    type(model.pipeline).save_lora_weights(
        tmp_path,
        transformer_lora_layers=get_peft_model_state_dict(model.transformer),
        transformer_lora_adapter_metadata=model.transformer.peft_config["default"].to_dict(),
    )
    fresh = case.make()
    fresh.load_lora_weights(tmp_path)
    torch.testing.assert_close(sample(adapt(fresh), case.guidance).latents, trained)
    assert not torch.allclose(trained, before)


@pytest.mark.parametrize("name", CLASSES)
def test_every_lora_weight_gets_a_gradient_with_one_call_of_the_network(name: str) -> None:
    """What distributed training asks for; in bfloat16 under float32 LoRA, as on a GPU."""
    from peft import LoraConfig

    case = CLASSES[name]
    model = adapt(case.make().to(torch.bfloat16))
    model.transformer.requires_grad_(False)
    targets = list(model.lora_targets)
    model.transformer.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    weights = {n: p for n, p in model.transformer.named_parameters() if p.requires_grad}
    for weight in weights.values():
        weight.data = weight.data.float()
    found = sample(model, case.guidance, window=range(1, 2))
    calls = []
    model.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    (step,) = found.steps
    again = replay(model, model.encode_prompts(PROMPTS), step, settings(case.guidance))
    assert calls == [1]
    assert found.latents.dtype == again.velocity.dtype == torch.float32
    torch.testing.assert_close(again.log_prob, step.log_prob, rtol=0, atol=1e-5)
    again.log_prob.sum().backward()
    assert {n for n, p in weights.items() if p.grad is None or not p.grad.abs().sum() > 0} == set()


def test_conditionings_of_different_lengths_are_joined() -> None:
    model = adapt(CLASSES["z-image"].make())
    together = model.encode_prompts(PROMPTS)
    apart = concatenate([model.encode_prompts([prompt]) for prompt in PROMPTS])
    assert {name: value.shape for name, value in apart.items()} == {
        name: value.shape for name, value in together.items()
    }
    for name, value in together.items():
        torch.testing.assert_close(apart[name], value, rtol=1e-4, atol=1e-5)
    assert list(take(together, [1])["text"].shape) == [1, *together["text"].shape[1:]]


def test_a_saved_pipeline_is_loaded(tmp_path: Path) -> None:
    pipeline = tiny_pipelines.tiny_qwen_image()
    pipeline.save_pretrained(tmp_path)
    model = load_flow_model(tmp_path, device="cpu")
    assert type(model).__name__ == "QwenImage"
    assert torch.equal(sample(model, 4.0).latents, sample(adapt(pipeline), 4.0).latents)


@pytest.mark.parametrize("name", CLASSES)
def test_a_size_that_cannot_be_made_is_named(name: str) -> None:
    model = adapt(CLASSES[name].make())
    with pytest.raises(UsageError, match=r"no images of 24 x 18 pixels.* multiples of 4$"):
        model.initial_latents(2, 18, 24, generators())


def test_what_cannot_be_trained_is_named(tmp_path: Path) -> None:
    from diffusers import FlowMatchHeunDiscreteScheduler

    from tests.generation.tiny_models import save_tiny_pipeline

    with pytest.raises(UsageError, match=r"StableDiffusionPipeline cannot be trained.*Flux"):
        load_flow_model(save_tiny_pipeline(tmp_path / "sd1"), device="cpu")
    pipeline = tiny_pipelines.tiny_sd3()
    pipeline.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(UsageError, match="samples with FlowMatchHeunDiscreteScheduler: only Flow"):
        adapt(pipeline)
    for adapter, says in {
        "no_colon": "is not of the form module:Class",
        "no_such_module:It": "there is no module no_such_module",
        "realbench.errors:It": "'realbench.errors' has no attribute 'It'",
        "realbench.errors:__doc__": "realbench.errors:__doc__ is no class",
    }.items():
        with pytest.raises(UsageError, match=says):
            load_flow_model(tmp_path / "sd1", device="cpu", adapter=adapter)
