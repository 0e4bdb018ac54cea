"""Qwen-Image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from realbench.train.flow_models.diffusers_flow_model import (
    DiffusersFlowModel,
    as_uint8,
    guide,
    packed_grid,
    per_image,
    repeat_row,
    rounded_time,
    unpack,
)
from realbench.train.flow_models.flow_model import Conditioning, concatenate

EMPTY_PROMPT = " "  # what the model's authors guide away from


class QwenImage(DiffusersFlowModel):
    """``QwenImagePipeline``; guidance (``true_cfg_scale``) against a blank prompt above 1.

    A guidance-distilled model takes the guidance as an input instead.
    """

    lora_targets = (
        *DiffusersFlowModel.lora_targets,
        "img_mlp.net.0.proj",
        "img_mlp.net.2",
        "txt_mlp.net.0.proj",
        "txt_mlp.net.2",
    )
    idle_at_the_end = (
        "attn.add_q_proj",
        "attn.to_add_out",
        "txt_mlp.net.0.proj",
        "txt_mlp.net.2",
    )
    packed = True

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the language model's states of the prompts and of a blank one, with masks."""
        text, mask = self._encode(list(prompts))
        empty, empty_mask = self._encode([EMPTY_PROMPT])
        return {
            "text": text,
            "text_mask": mask,
            "empty_text": repeat_row(empty, len(text)),
            "empty_text_mask": repeat_row(empty_mask, len(text)),
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
        """Return the velocity; latents are packed, (n, height / 16 · width / 16, 64)."""
        distilled = bool(self.config["guidance_embeds"])
        guided = guidance > 1 and not distilled
        text = {"text": conditioning["text"], "mask": conditioning["text_mask"]}
        if guided:
            # both in one pass: distributed training wants the network called once for a gradient
            empty = {"text": conditioning["empty_text"], "mask": conditioning["empty_text_mask"]}
            text = concatenate([text, empty])
        rows = latents.repeat(2, 1, 1) if guided else latents
        mask = text["mask"]
        predicted = self.transformer(
            hidden_states=rows.to(self.dtype),
            timestep=rounded_time(per_image(sigma, latents), self.dtype).repeat(1 + guided),
            guidance=torch.full((len(rows),), guidance, device=rows.device) if distilled else None,
            encoder_hidden_states=text["text"],
            # without a mask the quicker kinds of attention can be used
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, *packed_grid(self, height, width))]] * len(rows),
            return_dict=False,
        )[0].float()
        if not guided:
            return predicted
        conditional, unconditional = predicted.chunk(2)
        combined = guide(conditional, unconditional, guidance)
        # The pipeline gives each token the length that it has without guidance.
        length = torch.linalg.vector_norm(conditional, dim=-1, keepdim=True)
        return combined * (length / torch.linalg.vector_norm(combined, dim=-1, keepdim=True))

    @torch.no_grad()
    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Return the images of packed latents at σ = 0, uint8 (n, 3, height, width)."""
        vae = self.pipeline.vae
        frames = unpack(self, latents, height, width)
        mean = torch.tensor(vae.config.latents_mean, device=latents.device).view(1, -1, 1, 1, 1)
        std = torch.tensor(vae.config.latents_std, device=latents.device).view(1, -1, 1, 1, 1)
        return as_uint8(
            vae.decode((frames * std + mean).to(vae.dtype), return_dict=False)[0][:, :, 0]
        )

    def _encode(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        text, mask = self.pipeline.encode_prompt(
            prompts, device=self.device, max_sequence_length=512
        )
        if mask is None:
            mask = torch.ones(text.shape[:2], device=text.device)
        return text, mask.bool()
