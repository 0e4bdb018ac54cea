"""Z-Image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from realbench.train.flow_models.diffusers_flow_model import (
    DiffusersFlowModel,
    guide,
    per_image,
    repeat_row,
)
from realbench.train.flow_models.flow_model import Conditioning


class ZImage(DiffusersFlowModel):
    """``ZImagePipeline``: guidance g is v + g·(v - v_empty), so 0 switches it off.

    The transformer's time runs the other way (1 - σ), and so does its velocity, which is negated.
    """

    lora_targets = (
        "attention.to_q",
        "attention.to_k",
        "attention.to_v",
        "attention.to_out.0",
        "feed_forward.w1",
        "feed_forward.w2",
        "feed_forward.w3",
    )

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the language model's states of the prompts, with a mask, and of the empty one."""
        texts = self._encode(list(prompts))
        (empty,) = self._encode([""])
        masks = [torch.ones(len(text), dtype=torch.bool, device=text.device) for text in texts]
        return {
            "text": pad_sequence(texts, batch_first=True),
            "text_mask": pad_sequence(masks, batch_first=True),
            "empty_text": repeat_row(empty[None], len(texts)),
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
        """Return the velocity; latents are (n, channels, height / 8, width / 8)."""
        steps = self.pipeline.scheduler.config.num_train_timesteps
        time = (steps - per_image(sigma, latents) * steps) / steps
        rows = zip(conditioning["text"], conditioning["text_mask"], strict=True)
        texts = [text[mask] for text, mask in rows]
        frames = list(latents.to(self.dtype).unsqueeze(2))
        guided = guidance > 0
        if guided:
            frames, time = frames * 2, torch.cat([time] * 2)
            texts += list(conditioning["empty_text"])
        predicted = self.transformer(frames, time, texts, return_dict=False)[0]
        velocity = -torch.stack([frame.float() for frame in predicted]).squeeze(2)
        if not guided:
            return velocity
        conditional, unconditional = velocity.chunk(2)
        return guide(conditional, unconditional, 1 + guidance)

    def _encode(self, prompts: list[str]) -> list[Tensor]:
        texts: list[Tensor]
        texts, _ = self.pipeline.encode_prompt(
            prompts, device=self.device, do_classifier_free_guidance=False
        )
        return texts
