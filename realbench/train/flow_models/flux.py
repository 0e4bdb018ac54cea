"""FLUX.1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from realbench.train.flow_models.diffusers_flow_model import (
    DiffusersFlowModel,
    packed_grid,
    per_image,
    rounded_time,
    unpack,
)
from realbench.train.flow_models.flow_model import Conditioning


class Flux(DiffusersFlowModel):
    """``FluxPipeline``: guidance is an input of the distilled model (dev); schnell ignores it."""

    lora_targets = (
        *DiffusersFlowModel.lora_targets,
        "ff.net.0.proj",
        "ff.net.2",
        "ff_context.net.0.proj",
        "ff_context.net.2",
    )
    packed = True

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return T5's and CLIP's embeddings."""
        text, pooled, _ = self.pipeline.encode_prompt(list(prompts), None, device=self.device)
        return {"text": text, "pooled": pooled}

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
        """Return the velocity; latents are packed, (n, height / 16 · width / 16, 64)."""
        text = conditioning["text"]
        rows, columns = packed_grid(self, height, width)
        scale = None
        if self.config["guidance_embeds"]:
            scale = torch.full((len(latents),), guidance, device=latents.device)
        predicted: Tensor = self.transformer(
            hidden_states=latents.to(self.dtype),
            timestep=rounded_time(per_image(sigma, latents), self.dtype),
            guidance=scale,
            pooled_projections=conditioning["pooled"],
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, device=latents.device, dtype=self.dtype),
            img_ids=self.pipeline._prepare_latent_image_ids(
                len(latents), rows, columns, latents.device, self.dtype
            ),
            return_dict=False,
        )[0]
        return predicted.float()

    @torch.no_grad()
    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Return the images of packed latents at σ = 0, uint8 (n, 3, height, width)."""
        return super().decode(unpack(self, latents, height, width), height, width)
