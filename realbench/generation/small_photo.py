"""The small model, a diffusers pipeline of our own: a caption in, a thumbnail out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers import (
    ConfigMixin,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    ModelMixin,
    SanaTransformer2DModel,
)
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import SanaLoraLoaderMixin
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from torch import Tensor, nn

from realbench.content import content_path
from realbench.errors import UsageError

MAX_WORDS = 15
"""Words of a caption that are read; the rest says little more about a thumbnail."""

_PASSED_OVER = (
    "a an the of with and in on at by to from into onto over under up down out off as is are be "
    "was its it his her their she he they them this that these those which who while for or but "
    "has have through against among between behind before beside near next some one s t photo "
    "image picture photograph"
)
_FUNCTION_WORDS = frozenset(_PASSED_OVER.split())


def words(caption: str) -> list[str]:
    """Return the words of a caption that say what is to be seen, in lower case and in order."""
    found = re.findall(r"[a-z]+", caption.lower())
    return [word for word in found if word not in _FUNCTION_WORDS]


class CaptionEncoder(ModelMixin, ConfigMixin):
    """Turns captions into a sequence of vectors: a mean of the words, then each word.

    The first vector is there for every caption, so that an empty one (the unconditional half of
    classifier-free guidance) has something to attend to. Words outside of the vocabulary are
    passed over; :meth:`known_words` says which are known.
    """

    @register_to_config
    def __init__(self, vocabulary: list[str], dim: int = 128, max_words: int = MAX_WORDS) -> None:
        super().__init__()
        self._index = {word: number for number, word in enumerate(vocabulary)}
        self.embedding = nn.Embedding(len(vocabulary), dim)
        self.start = nn.Parameter(torch.randn(dim))
        self.max_words = max_words

    def known_words(self, caption: str) -> list[str]:
        """Return the words of a caption that the encoder reads."""
        known = [word for word in words(caption) if word in self._index]
        return known[: self.max_words]

    def forward(self, captions: Sequence[str | Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Encode captions, each a sentence or a list of known words.

        Returns:
            Vectors (n, 1 + max_words, dim) and their mask (n, 1 + max_words), 1 where a word is.
        """
        device = self.start.device
        numbers = torch.zeros(len(captions), self.max_words, dtype=torch.long)
        mask = torch.zeros(len(captions), 1 + self.max_words)
        mask[:, 0] = 1
        for row, caption in enumerate(captions):
            known = self.known_words(caption) if isinstance(caption, str) else caption
            numbers[row, : len(known)] = torch.tensor([self._index[word] for word in known])
            mask[row, 1 : 1 + len(known)] = 1
        mask = mask.to(device)
        present = mask[:, 1:, None].to(self.start.dtype)
        each = self.embedding(numbers.to(device)) * present
        mean = each.sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
        return torch.cat([self.start + mean, each], dim=1), mask


MIN_SIGMA = 0.05
"""Below this σ the network's picture is turned into a velocity as if σ were this."""


def velocity(
    transformer: torch.nn.Module, sample: Tensor, sigma: Tensor, states: Tensor, mask: Tensor
) -> Tensor:
    """Return the flow's velocity dx/dσ, float32 (n, 3, height, width).

    The network says what the picture is, x̂ (a small network finds a picture more easily than
    noise: Li and He, arXiv 2511.13720), and v = (x − x̂)/σ follows from x = (1 − σ)x̂ + σε.

    Args:
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
