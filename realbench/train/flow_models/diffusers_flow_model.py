"""What the adapters of diffusers' flow-matching pipelines have in common."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from realbench.errors import UsageError
from realbench.train.flow_models.flow_model import FlowModel


class DiffusersFlowModel(FlowModel):
    """Base of the adapters: a subclass says how its transformer is called.

    A subclass sets ``lora_targets`` and writes ``encode_prompts`` and ``velocity``, and
    whatever of the rest its pipeline does differently. The defaults suit a pipeline with latents
    (n, channels, height / 8, width / 8), an ``AutoencoderKL`` and the FLUX family's schedule.

    Args:
        pipeline: of diffusers, loaded, on its device.

    Raises:
        UsageError: its scheduler is not the Euler scheduler of flow matching.
    """

    lora_targets: tuple[str, ...] = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
    )
    # Those of them that nothing uses in the last of the transformer's blocks; weights that get no
    # gradient are an error to distributed training.
    idle_at_the_end: tuple[str, ...] = ()
    packed = False  # whether a token is 2 x 2 of the VAE's latents

    def __init__(self, pipeline: Any) -> None:
        _check_scheduler(pipeline)
        self.pipeline = pipeline
        self.transformer: torch.nn.Module = pipeline.transformer
        # Kept here since a wrapped transformer has neither.
        self.config = pipeline.transformer.config
        self.dtype: torch.dtype = pipeline.transformer.dtype
        if self.idle_at_the_end:  # the full names of the layers, without the idle ones
            blocks: Any = self.transformer.transformer_blocks
            last = f"transformer_blocks.{len(blocks) - 1}."
            idle = tuple(last + layer for layer in self.idle_at_the_end)
            ends = tuple(f".{target}" for target in self.lora_targets)
            names = [name for name, _ in self.transformer.named_modules() if name.endswith(ends)]
            self.lora_targets = tuple(name for name in names if name not in idle)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.pipeline).__name__}, {self.dtype})"

    @property
    def device(self) -> torch.device:
        """Where the transformer is."""
        return next(self.transformer.parameters()).device

    @property
    def channels(self) -> int:
        """Of the VAE's latents."""
        return int(self.config["in_channels"]) // (4 if self.packed else 1)

    @property
    def size_multiple(self) -> int:
        """Heights and widths must be multiples of this: the VAE's factor times the patch size."""
        return int(self.pipeline.vae_scale_factor) * 2

    def initial_latents(
        self, n: int, height: int, width: int, generator: Sequence[torch.Generator]
    ) -> Tensor:
        """Return the noise that the pipeline would start from with these generators."""
        self.check_size(height, width)
        drawn = self.pipeline.prepare_latents(
            n, self.channels, height, width, torch.float32, self.device, list(generator)
        )
        return drawn[0] if isinstance(drawn, tuple) else drawn

    def check_size(self, height: int, width: int) -> None:
        """Refuse a size that the pipeline would not make exactly.

        Raises:
            UsageError: height or width is not a multiple of :attr:`size_multiple`.
        """
        multiple = self.size_multiple
        if height < 1 or width < 1 or height % multiple or width % multiple:
            raise UsageError(
                f"{type(self.pipeline).__name__} makes no images of {width} x {height} pixels: "
                f"height and width must be multiples of {multiple}"
            )

    def sigmas(self, steps: int, height: int, width: int) -> Tensor:
        """Return the schedule of the pipeline, shifted for the size of the image."""
        return self.schedule(
            sigmas=np.linspace(1.0, 1 / steps, steps), mu=self.shift(height, width, 1.15)
        )

    def schedule(self, **arguments: Any) -> Tensor:
        """Return what the pipeline's scheduler makes of the arguments of ``set_timesteps``."""
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(device=self.device, **arguments)
        return scheduler.sigmas.float()

    def shift(self, height: int, width: int, max_shift: float) -> float:
        """Return μ of the resolution-dependent shift: linear in the number of image tokens.

        Args:
            max_shift: what the pipeline takes where its scheduler's config does not say.
        """
        config = self.pipeline.scheduler.config
        tokens = (height // self.size_multiple) * (width // self.size_multiple)
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        low, high = config.get("base_shift", 0.5), config.get("max_shift", max_shift)
        return low + (high - low) * (tokens - few) / (many - few)

    @torch.no_grad()
    def decode(self, latents: Tensor, height: int, width: int) -> Tensor:
        """Return the images of latents at σ = 0, uint8 (n, 3, height, width)."""
        vae = self.pipeline.vae
        latents = latents / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        return as_uint8(vae.decode(latents.to(vae.dtype), return_dict=False)[0])


def as_uint8(pixels: Tensor) -> Tensor:
    """Return a VAE's output in [-1, 1] as uint8, rounded as diffusers rounds."""
    return ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def per_image(sigma: Tensor | float, latents: Tensor) -> Tensor:
    """Return σ, a number or (n,), as float32 (n,)."""
    value = torch.as_tensor(sigma, dtype=torch.float32, device=latents.device)
    return value.expand(latents.shape[0])


def repeat_row(row: Tensor, n: int) -> Tensor:
    """Return a tensor (1, ...) as (n, ...); no memory is taken."""
    return row.expand(n, *row.shape[1:])


def rounded_time(sigma: Tensor, dtype: torch.dtype) -> Tensor:
    """Return σ as the pipelines hand it on: rounded to the network's dtype as a time of 1000."""
    return (sigma * 1000).to(dtype) / 1000


def packed_grid(model: DiffusersFlowModel, height: int, width: int) -> tuple[int, int]:
    """Return the rows and columns of an image's tokens."""
    return height // model.size_multiple, width // model.size_multiple


def unpack(model: DiffusersFlowModel, latents: Tensor, height: int, width: int) -> Tensor:
    """Return packed latents (n, tokens, 4·channels) as the VAE takes them."""
    pipeline = model.pipeline
    unpacked: Tensor = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    return unpacked


def guide(conditional: Tensor, unconditional: Tensor, guidance: float) -> Tensor:
    """Return classifier-free guidance (arXiv 2207.12598) in the form that 1 leaves as it is."""
    return unconditional + guidance * (conditional - unconditional)


def _check_scheduler(pipeline: Any) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = pipeline.scheduler
    name = type(scheduler).__name__
    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise UsageError(
            f"{type(pipeline).__name__} samples with {name}: only FlowMatchEulerDiscreteScheduler "
            "can be trained with"
        )
    for option in ("invert_sigmas", "stochastic_sampling"):
        if pipeline.scheduler.config.get(option):
            raise UsageError(f"{name} with {option} cannot be trained with: switch it off")
