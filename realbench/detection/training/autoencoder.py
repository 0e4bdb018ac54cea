"""The tiny diffusion autoencoder that makes content-matched negatives from photographs.

A photograph and its round trip through a diffusion autoencoder show the same content and
differ only in the traces of generation, so a detector trained on such pairs cannot learn
subjects. The weights are TAEF2 (``madebyollin/taesd``, MIT), which approximates the latent
space of FLUX.2: 32 channels at an eighth of the resolution. They are needed for training only
and are not part of this project.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from realbench.detection.families.views import reduced_precision
from realbench.errors import UsageError

LATENT_CHANNELS = 32
STRIDE = 8


class _Block(nn.Module):
    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, padding=1),
        )
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False),
                nn.GroupNorm(4, 256),
                nn.ReLU(),
                nn.Conv2d(256, 64, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "pool"):
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _stage(down: bool, pooled: bool) -> list[nn.Module]:
    conv = nn.Conv2d(64, 64, 3, stride=2 if down else 1, padding=1, bias=False)
    blocks: list[nn.Module] = [_Block(pooled) for _ in range(3)]
    return [conv, *blocks] if down else [*blocks, nn.Upsample(scale_factor=2), conv]


def _encoder() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        _Block(pooled=False),
        *_stage(down=True, pooled=False),
        *_stage(down=True, pooled=False),
        *_stage(down=True, pooled=True),
        nn.Conv2d(64, LATENT_CHANNELS, 3, padding=1),
    )


def _decoder() -> nn.Sequential:
    return nn.Sequential(
        _Clamp(),
        nn.Conv2d(LATENT_CHANNELS, 64, 3, padding=1),
        nn.ReLU(),
        *_stage(down=False, pooled=True),
        *_stage(down=False, pooled=False),
        *_stage(down=False, pooled=False),
        _Block(pooled=False),
        nn.Conv2d(64, 3, 3, padding=1),
    )


class DiffusionAutoencoder(nn.Module):
    """TAEF2: encodes RGB in [0, 1] to 32 latent channels at 1/8 resolution, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = _encoder()
        self.decoder = _decoder()

    @classmethod
    def load(cls, folder: str | Path) -> DiffusionAutoencoder:
        """Load ``taef2_encoder.pth`` and ``taef2_decoder.pth`` from ``folder``, in eval mode.

        Raises:
            UsageError: a file is missing or does not hold this architecture.
        """
        model = cls()
        for part, module in (("encoder", model.encoder), ("decoder", model.decoder)):
            path = Path(folder) / f"taef2_{part}.pth"
            if not path.is_file():
                raise UsageError(f"{path} is missing: give the folder of the TAEF2 weights")
            try:
                module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            except RuntimeError as error:
                raise UsageError(f"{path} does not hold a TAEF2 {part}: {error}") from error
        return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def round_trip(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Encode, disturb the latents and decode one image.

        The disturbance is drawn anew at each call: none, noise over the whole latent or inside
        a soft-edged region (partial regeneration), or a loss of latent detail, each at a
        random strength.

        Args:
            image: uint8 RGB of shape (H, W, 3), H and W multiples of 8.
            rng: the source of every draw.

        Returns:
            uint8 RGB of the same shape.
        """
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        with reduced_precision("cpu"):
            latent = self.encoder(x.contiguous(memory_format=torch.channels_last)).float()
            latent = _disturb(latent, rng)
            y = self.decoder(latent).float()
        y = (y.clamp(0, 1) * 255).round().to(torch.uint8)
        return y[0].permute(1, 2, 0).contiguous().numpy()


def _disturb(latent: Tensor, rng: np.random.Generator) -> Tensor:
    kind = rng.choice(["none", "noise", "region", "smooth", "smooth-region"])
    if kind == "none":
        return latent
    scale = latent.std(dim=(2, 3), keepdim=True)
    if kind in ("noise", "region"):
        strength = float(rng.uniform(0.05, 0.45))
        noise = torch.from_numpy(rng.standard_normal(latent.shape, dtype=np.float32))
        changed = latent + strength * scale * noise
    else:
        factor = float(rng.uniform(1.2, 2.2))
        size = [max(2, round(n / factor)) for n in latent.shape[-2:]]
        small = nn.functional.interpolate(latent, size, mode="bilinear", antialias=True)
        coarse = nn.functional.interpolate(small, latent.shape[-2:], mode="bicubic")
        changed = torch.lerp(latent, coarse, float(rng.uniform(0.4, 1.0)))
    if kind.endswith("region"):
        coarse_mask = torch.from_numpy(rng.random((1, 1, 4, 4), dtype=np.float32))
        mask = nn.functional.interpolate(coarse_mask, latent.shape[-2:], mode="bicubic")
        return torch.lerp(latent, changed, torch.sigmoid((mask - 0.5) * 12))
    return changed
