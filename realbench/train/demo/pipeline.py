"""The small model as a diffusers pipeline: a caption in, a thumbnail out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, SanaTransformer2DModel
from diffusers.loaders import SanaLoraLoaderMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from torch import Tensor

from realbench.content import content_path
from realbench.errors import UsageError
from realbench.train.demo.captions import CaptionEncoder

MIN_SIGMA = 0.05
"""Below this σ the network's picture is turned into a velocity as if σ were this."""


def velocity(
    transformer: torch.nn.Module, sample: Tensor, sigma: Tensor, states: Tensor, mask: Tensor
) -> Tensor:
    """Return the flow's velocity dx/dσ, float32 (n, 3, height, width).

    The network says what the picture is, x̂ (a small network finds a picture more easily than
    noise: Li and He, arXiv 2511.13720), and v = (x − x̂)/σ follows from x = (1 − σ)x̂ + σε.

    Args:
        transformer: The network.
        sample: x, float32 (n, 3, height, width).
        sigma: Its noise level in (0, 1], float32 (n,).
        states: The captions' vectors (n, words, dim).
        mask: Where these hold words (n, words).
    """
    picture = transformer(
        sample,
        encoder_hidden_states=states,
        encoder_attention_mask=mask,
        timestep=1000 * sigma,
        return_dict=False,
    )[0]
    return (sample - picture.float()) / sigma.clamp(min=MIN_SIGMA)[:, None, None, None]


class SmallPhotoPipeline(DiffusionPipeline, SanaLoraLoaderMixin):
    """Draws thumbnails from captions, in pixel space.

    Args:
        transformer: The network, which says what the picture is (:func:`velocity`).
        caption_encoder: Turns captions into vectors.
        scheduler: The flow's Euler steps.
    """

    if TYPE_CHECKING:  # diffusers registers the parts by name

        def __getattr__(self, name: str) -> Any: ...

    model_cpu_offload_seq = "caption_encoder->transformer"

    def __init__(
        self,
        transformer: SanaTransformer2DModel,
        caption_encoder: CaptionEncoder,
        scheduler: FlowMatchEulerDiscreteScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer, caption_encoder=caption_encoder, scheduler=scheduler
        )

    @property
    def size(self) -> int:
        """Pixels of a picture's side."""
        return int(self.transformer.config.sample_size)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        num_inference_steps: int = 20,
        guidance_scale: float = 3.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        latents: Tensor | None = None,
    ) -> ImagePipelineOutput:
        """Draw a picture for each prompt.

        Args:
            prompt: One caption or several.
            num_inference_steps: Euler steps.
            guidance_scale: Classifier-free guidance; 1 is none.
            generator: Of the noise, one for all or one for each.
            output_type: ``"pil"``, ``"np"`` (float32 in [0, 1]) or ``"pt"`` (the same, channels
                first).
            latents: The noise itself, (n, 3, size, size).
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        n = len(prompts)
        sample = self.starting_noise(n, generator) if latents is None else latents.float()
        states, mask = self.caption_encoder(prompts)
        empty_states, empty_mask = self.caption_encoder([""] * len(prompts))
        sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps)
        self.scheduler.set_timesteps(sigmas=sigmas, device=sample.device)
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            sigma = self.scheduler.sigmas[step].to(sample.device).expand(len(prompts))
            flow = velocity(self.transformer, sample, sigma, states, mask)
            if guidance_scale != 1:
                without = velocity(self.transformer, sample, sigma, empty_states, empty_mask)
                flow = without + guidance_scale * (flow - without)
            sample = self.scheduler.step(flow, timestep, sample, return_dict=False)[0]
        pictures: Any = (sample / 2 + 0.5).clamp(0, 1)
        if output_type == "pt":
            return ImagePipelineOutput(images=pictures)
        arrays = pictures.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "np":
            return ImagePipelineOutput(images=arrays)
        return ImagePipelineOutput(images=self.numpy_to_pil(arrays))

    def starting_noise(
        self, n: int, generator: torch.Generator | list[torch.Generator] | None = None
    ) -> Tensor:
        """Return noise, float32 (n, 3, size, size); several generators draw one each."""
        shape = (3, self.size, self.size)
        if isinstance(generator, list):
            each = [torch.randn(shape, generator=one, device=one.device) for one in generator]
            return torch.stack(each).to(self._execution_device)
        where = self._execution_device if generator is None else generator.device
        return torch.randn((n, *shape), generator=generator, device=where).to(
            self._execution_device
        )


def load_small_photo(
    folder: str | Path | None = None, *, dtype: torch.dtype = torch.float32
) -> SmallPhotoPipeline:
    """Load the shipped model, or one that ``models/small-photo/making`` made, on the CPU.

    Raises:
        UsageError: the folder does not hold such a model.
    """
    where = content_path("models") / "small-photo" if folder is None else Path(folder)
    if not (where / "model_index.json").is_file():
        raise UsageError(
            f"{where}: no model here; python models/small-photo/making/making.py --data PHOTOS "
            f"--out {where} makes one"
        )
    parts = [("transformer", SanaTransformer2DModel), ("caption_encoder", CaptionEncoder)]
    loaded = {
        name: kind.from_pretrained(
            where / name, torch_dtype=dtype, local_files_only=True, use_safetensors=True
        )
        for name, kind in parts
    }
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(where / "scheduler")
    return SmallPhotoPipeline(scheduler=scheduler, **loaded)
