"""Each pipeline class, tiny and random: what we sample is what the pipeline samples; it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from realbench.train.flow_models import adapt
from realbench.train.flow_models.flow_model import FlowModel
from realbench.train.rollout import rollout
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


def generators() -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(len(PROMPTS))]


def sample(model: FlowModel, guidance: float, **settings: Any) -> Any:
    arguments: dict[str, Any] = {"window": range(0), "noise_level": 0.0} | settings
    return rollout(
        model,
        model.encode_prompts(PROMPTS),
        steps=STEPS,
        guidance=guidance,
        height=HEIGHT,
        width=WIDTH,
        generators=generators(),
        **arguments,
    )


@pytest.mark.parametrize("name", CASES)
def test_our_images_are_the_pipelines_own(name: str) -> None:
    case = CASES[name]
    pipeline = case.make()
    call = {"num_inference_steps": STEPS, "height": HEIGHT, "width": WIDTH} | case.call
    latents = pipeline(list(PROMPTS), generator=generators(), output_type="latent", **call).images
    images = pipeline(list(PROMPTS), generator=generators(), output_type="pt", **call).images
    ours = sample(adapt(pipeline), case.guidance)
    assert latents.std() > 0.1
    assert (latents[0] - latents[1]).abs().mean() > 0.1
    torch.testing.assert_close(ours.latents, latents, atol=1e-4, rtol=1e-4)
    difference = ours.images.int() - (images * 255).round().int()
    assert difference.abs().max() <= 1
    assert ours.images.dtype == torch.uint8
    assert tuple(ours.images.shape) == (2, 3, HEIGHT, WIDTH)
