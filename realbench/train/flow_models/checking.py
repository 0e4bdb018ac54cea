"""Whether an adapter samples what its pipeline samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from realbench.train.flow_models.flow_model import FlowModel
from realbench.train.rollout import rollout


def difference_from_pipeline(
    model: FlowModel,
    prompts: Sequence[str],
    *,
    steps: int,
    height: int,
    width: int,
    guidance: float,
    call: dict[str, Any],
) -> float:
    """Return how far our deterministic samples are from the pipeline's own, at most.

    Both start from the same noise. In float32 the difference should be below 1e-3; in bfloat16 it
    is larger, since the pipelines round their latents at each step and we do not.

    Args:
        model: whose ``pipeline`` is called.
        prompts: any.
        steps, height, width, guidance: of the sampling.
        call: further arguments of the pipeline's call, in which the guidance is called what it is
            called there.

    Returns:
        The largest absolute difference of the latents at σ = 0, in standard deviations of the
        pipeline's latents.
    """

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]

    theirs = model.pipeline(
        list(prompts),
        num_inference_steps=steps,
        height=height,
        width=width,
        generator=generators(),
        output_type="latent",
        **call,
    ).images
    ours = rollout(
        model,
        model.encode_prompts(prompts),
        steps=steps,
        guidance=guidance,
        height=height,
        width=width,
        window=range(0),
        noise_level=0.0,
        generators=generators(),
    ).latents
    return float((ours - theirs.float()).abs().max() / theirs.float().std())
