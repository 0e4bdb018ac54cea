"""The small model as the trainer sees it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from realbench.errors import UsageError
from realbench.generation.small_photo import velocity
from realbench.train.flow_models.diffusers_flow_model import (
    DiffusersFlowModel,
    as_uint8,
    guide,
    per_image,
    repeat_row,
)
from realbench.train.flow_models.flow_model import Conditioning


class SmallPhoto(DiffusersFlowModel):
    """``SmallPhotoPipeline``: latents are pixels in about [-1, 1], (n, 3, size, size)."""

    lora_targets = (
        *(f"attn{n}.{layer}" for n in (1, 2) for layer in ("to_q", "to_k", "to_v", "to_out.0")),
        "ff.conv_inverted",
        "ff.conv_point",
        "proj_out",
    )

    def check_size(self, height: int, width: int) -> None:
        """Refuse another size than the one that the model has learned.

        Raises:
            UsageError: it is another.
        """
        size = self.pipeline.size
        if (height, width) != (size, size):
            raise UsageError(f"the small model makes images of {size} x {size} pixels only")

    def initial_latents(
        self, n: int, height: int, width: int, generator: Sequence[torch.Generator]
    ) -> Tensor:
        """Return the noise that the pipeline starts from with these generators."""
        self.check_size(height, width)
        noise: Tensor = self.pipeline.starting_noise(n, list(generator))
        return noise

    def sigmas(self, steps: int, height: int, width: int) -> Tensor:
        """Return evenly spaced σ, as the pipeline takes."""
        return self.schedule(sigmas=np.linspace(1.0, 1 / steps, steps))

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the vectors of the captions' words and of no words, and their masks."""
        states, mask = self.pipeline.caption_encoder(list(prompts))
        empty_states, empty_mask = self.pipeline.caption_encoder([""])
        return {
            "states": states,
            "mask": mask,
            "empty_states": repeat_row(empty_states, len(prompts)),
            "empty_mask": repeat_row(empty_mask, len(prompts)),
        }

    def velocity(
        self,
        latents: Tensor,
        sigma: Tensor,
        conditioning: Conditioning,
        *,
        guidance: float,
        height: int,
        width: int,
    ) -> Tensor:
        """Return the velocity; with guidance above 1 also without a caption."""
        level = per_image(sigma, latents)
        states, mask = conditioning["states"], conditioning["mask"]
        if guidance <= 1:
            return velocity(self.transformer, latents, level, states, mask)
        both = velocity(
            self.transformer,
            torch.cat([latents, latents]),
            torch.cat([level, level]),
            torch.cat([states, conditioning["empty_states"]]),
            torch.cat([mask, conditioning["empty_mask"]]),
        )
        conditional, unconditional = both.chunk(2)
        return guide(conditional, unconditional, guidance)

    @torch.no_grad()
    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Return the pixels as uint8 (n, 3, height, width)."""
        return as_uint8(latents)
