"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from realbench.train.flow_models.diffusers_flow_model import (
    DiffusersFlowModel,
    guide,
    per_image,
    repeat_row,
)
from realbench.train.flow_models.flow_model import Conditioning


class StableDiffusion3(DiffusersFlowModel):
    """``StableDiffusion3Pipeline``; classifier-free guidance against the empty prompt above 1."""

    idle_at_the_end = ("attn.add_q_proj",)

    @property
    def size_multiple(self) -> int:
        """The VAE's factor times the transformer's patch size."""
        return int(self.pipeline.vae_scale_factor * self.config["patch_size"])

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the three text encoders' embeddings, of the prompts and of the empty prompt."""
        text, _, pooled, _ = self._encode(list(prompts))
        empty, _, empty_pooled, _ = self._encode([""])
        return {
            "text": text,
            "pooled": pooled,
            "empty_text": repeat_row(empty, len(text)),
            "empty_pooled": repeat_row(empty_pooled, len(text)),
        }

    def sigmas(self, steps: int, height: int, width: int) -> Tensor:
        """Return the scheduler's own spacing; the shift depends on the size only if it says so."""
        if self.pipeline.scheduler.config.get("use_dynamic_shifting"):
            return self.schedule(num_inference_steps=steps, mu=self.shift(height, width, 1.16))
        return self.schedule(num_inference_steps=steps)

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
        """Return the velocity; latents are (n, channels, height / 8, width / 8)."""
        time = per_image(sigma, latents) * self.pipeline.scheduler.config.num_train_timesteps
        text, pooled = conditioning["text"], conditioning["pooled"]
        guided = guidance > 1
        if guided:
            latents, time = torch.cat([latents] * 2), torch.cat([time] * 2)
            text = torch.cat([conditioning["empty_text"], text])
            pooled = torch.cat([conditioning["empty_pooled"], pooled])
        predicted = self.transformer(
            hidden_states=latents.to(self.dtype),
            timestep=time,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            return_dict=False,
        )[0].float()
        if not guided:
            return predicted
        unconditional, conditional = predicted.chunk(2)
        return guide(conditional, unconditional, guidance)

    def _encode(self, prompts: list[str]) -> tuple[Tensor, ...]:
        embeddings: tuple[Tensor, ...] = self.pipeline.encode_prompt(
            prompts, None, None, device=self.device, do_classifier_free_guidance=False
        )
        return embeddings
