"""Makes the small text-to-image model from captioned photographs: ``making.py``.

Flow matching in pixel space (Lipman et al., arXiv 2210.02747): x = (1 − σ)·picture + σ·ε, and the
network is trained on the squared error of the velocity ε − picture, which it gives through the
picture it sees (:func:`realbench.generation.small_photo.velocity`).
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SanaTransformer2DModel
from photographs import (
    Photograph,
    captioned_photographs,
    data_hash,
    random_crop,
    read_small,
)
from PIL import Image
from torch import Tensor

from realbench.errors import UsageError
from realbench.files import write_whole
from realbench.generation.small_photo import (
    MIN_SIGMA,
    CaptionEncoder,
    SmallPhotoPipeline,
    velocity,
    words,
)

WORKERS = 2
"""Parts of a batch that are computed side by side, each with one thread of torch: on a network
this small that is several times faster than one part with two threads."""


@dataclass(frozen=True)
class PretrainSettings:
    """What decides the weights, together with the data.

    Attributes:
        size: Pixels of a picture's side.
        patch: Pixels of a patch's side.
        width: Channels of the network.
        layers: Blocks of the network.
        caption_width: Channels of a word.
        steps: Steps of the optimiser.
        batch: Pictures of a step.
        learning_rate: Of AdamW, after the warm-up.
        warmup: Steps over which it rises.
        cooldown: Share of the steps, at the end, over which it falls to nothing.
        ema: Decay of the averaged weights, which are the ones that are kept.
        crops: Crops prepared of each photograph, of which steps draw.
        without_caption: Share of pictures whose caption is left out, for guidance.
        without_word: Share of words left out of the other captions.
        seed: Of everything.
    """

    size: int = 32
    patch: int = 4
    width: int = 160
    layers: int = 6
    caption_width: int = 128
    steps: int = 3200
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 200
    cooldown: float = 0.3
    ema: float = 0.998
    crops: int = 24
    without_caption: float = 0.15
    without_word: float = 0.15
    seed: int = 0


def pretrain(
    data: Path,
    out: Path,
    settings: PretrainSettings | None = None,
    *,
    work: Path | None = None,
    checkpoint_every: int = 250,
    grid_every: int = 1000,
    on_step: Callable[[int, int, float], None] | None = None,
) -> dict[str, Any]:
    """Train the model and write it; a run that was stopped goes on where its checkpoint is.

    Args:
        data: Folder with captioned photographs (:func:`captioned_photographs`).
        out: Folder of the model.
        settings: See there.
        work: Folder of the checkpoint and the sample grids; ``<out>-training`` by default.
        checkpoint_every: Steps between checkpoints.
        grid_every: Steps between grids of samples.
        on_step: Called with the step, the number of steps and the loss.

    Returns:
        The record, as in ``record.json``.

    Raises:
        UsageError: there are no photographs, or the checkpoint is of another run.
    """
    settings = settings or PretrainSettings()
    work = work or out.with_name(f"{out.name}-training")
    work.mkdir(parents=True, exist_ok=True)
    photographs = captioned_photographs(data)
    digest = data_hash(photographs)
    torch.manual_seed(settings.seed)
    training = _Training(settings, photographs)
    curve, seconds = training.resume(work / "checkpoint.pt", digest)
    pictures = prepare_crops(photographs, settings)
    started = time.monotonic()
    losses: list[float] = []
    for step in range(training.step, settings.steps):
        losses.append(training.advance(pictures))
        done = step + 1
        if on_step is not None:
            on_step(done, settings.steps, losses[-1])
        if done % checkpoint_every == 0 or done == settings.steps:
            curve.append([done, round(float(np.mean(losses)), 5)])
            losses = []
            spent = seconds + time.monotonic() - started
            training.save(work / "checkpoint.pt", digest, curve, spent)
        if done % grid_every == 0 or done == settings.steps:
            _grid(training.averaged_pipeline(), photographs, work / f"samples-{done:06d}.png")
    record = {
        "settings": asdict(settings),
        "photographs": len(photographs),
        "data_sha256": digest,
        "parameters": sum(p.numel() for p in training.parameters),
        "loss": curve,
        "seconds": round(seconds + time.monotonic() - started, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    training.averaged_pipeline().to(dtype=torch.float16).save_pretrained(out)
    text = json.dumps(record, indent=1) + "\n"
    write_whole(out / "record.json", lambda path: path.write_text(text, encoding="utf-8"))
    return record


def build_pipeline(settings: PretrainSettings, captions: Sequence[str]) -> SmallPhotoPipeline:
    """Return an untrained model whose vocabulary is that of the captions."""
    heads = settings.width // 32
    transformer: Any = SanaTransformer2DModel(
        in_channels=3,
        out_channels=3,
        num_attention_heads=heads,
        attention_head_dim=32,
        num_layers=settings.layers,
        num_cross_attention_heads=heads,
        cross_attention_head_dim=32,
        cross_attention_dim=settings.width,
        caption_channels=settings.caption_width,
        mlp_ratio=2.5,
        sample_size=settings.size,
        patch_size=settings.patch,
        interpolation_scale=1,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    torch.nn.init.zeros_(transformer.proj_out.bias)
    at_least = 2 if len(captions) > 200 else 1
    encoder = CaptionEncoder(vocabulary(captions, at_least=at_least), settings.caption_width)
    torch.nn.init.normal_(encoder.embedding.weight, std=0.5)
    return SmallPhotoPipeline(transformer, encoder, FlowMatchEulerDiscreteScheduler(shift=1.0))


def vocabulary(captions: Sequence[str], *, at_least: int = 2) -> list[str]:
    """Return the words that occur in ``at_least`` captions, sorted."""
    counts = Counter(word for caption in captions for word in set(words(caption)))
    return sorted(word for word, count in counts.items() if count >= at_least)


def prepare_crops(photographs: Sequence[Photograph], settings: PretrainSettings) -> Tensor:
    """Return random crops, uint8 (photographs, crops, 3, size, size)."""
    rng = np.random.default_rng([settings.seed, 1])
    shape = (len(photographs), settings.crops, settings.size, settings.size, 3)
    pictures = np.empty(shape, np.uint8)
    for row, photograph in zip(pictures, photographs, strict=True):
        image = read_small(photograph.path)
        for column in range(settings.crops):
            row[column] = random_crop(image, settings.size, rng)
    return torch.from_numpy(pictures).permute(0, 1, 4, 2, 3).contiguous()


@dataclass(frozen=True)
class _Draw:
    """Pictures (n, 3, size, size), noise of that shape, noise levels (n,) and captions."""

    clean: Tensor
    noise: Tensor
    sigma: Tensor
    captions: list[list[str]]


class _Training:
    """The model, its averaged weights, the optimiser and the step they are at."""

    def __init__(self, settings: PretrainSettings, photographs: Sequence[Photograph]) -> None:
        self.settings = settings
        captions = [photograph.caption for photograph in photographs]
        self.pipeline = build_pipeline(settings, captions)
        self.captions = [self.pipeline.caption_encoder.known_words(text) for text in captions]
        modules = (self.pipeline.transformer, self.pipeline.caption_encoder)
        self.parameters = [p for module in modules for p in module.parameters()]
        self.averaged = [p.detach().clone() for p in self.parameters]
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}],
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step = 0
        self.workers = ThreadPoolExecutor(WORKERS)

    def advance(self, pictures: Tensor) -> float:
        """Take one step; what it draws depends on the seed and the step only."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, 2, self.step])
        sigma = _logit_normal(settings.batch, rng).split(-(-settings.batch // WORKERS))
        draws = [self._draw(pictures, part, rng) for part in sigma]
        outcomes = list(self.workers.map(self._gradients, draws))
        loss = sum(share for share, _ in outcomes)
        for parameter, *parts in zip(self.parameters, *(g for _, g in outcomes), strict=True):
            parameter.grad = torch.stack(parts).sum(0)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * self._rate()
        self.optimizer.step()
        self.step += 1
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.averaged, list(self.parameters), 1 - decay)
        return loss

    def _draw(self, pictures: Tensor, sigma: Tensor, rng: np.random.Generator) -> _Draw:
        rows = rng.integers(len(pictures), size=len(sigma))
        columns = rng.integers(self.settings.crops, size=len(sigma))
        clean = pictures[torch.from_numpy(rows), torch.from_numpy(columns)].float() / 127.5 - 1
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(clean.shape, generator=generator)
        return _Draw(clean, noise, sigma, [self._caption(int(row), rng) for row in rows])

    def _gradients(self, draw: _Draw) -> tuple[float, tuple[Tensor, ...]]:
        """Return a part's share of the batch's loss and of its gradient."""
        wide = draw.sigma[:, None, None, None]
        sample = (1 - wide) * draw.clean + wide * draw.noise
        with torch.autocast("cpu", torch.bfloat16):
            states, mask = self.pipeline.caption_encoder(draw.captions)
            flow = velocity(self.pipeline.transformer, sample, draw.sigma, states, mask)
        # The velocity that the same formula gives for the true picture, σ clamped alike.
        true = (sample - draw.clean) / wide.clamp(min=MIN_SIGMA)
        loss = (flow - true).square().mean() * (len(sample) / self.settings.batch)
        return float(loss.detach()), torch.autograd.grad(loss, self.parameters)

    def _caption(self, row: int, rng: np.random.Generator) -> list[str]:
        if rng.random() < self.settings.without_caption:
            return []
        known = self.captions[row]
        kept = rng.random(len(known)) >= self.settings.without_word
        return [word for word, keep in zip(known, kept, strict=True) if keep]

    def _rate(self) -> float:
        settings = self.settings
        rise = min(1.0, (self.step + 1) / max(1, settings.warmup))
        left = (settings.steps - self.step) / max(1.0, settings.cooldown * settings.steps)
        return rise * min(1.0, left)

    def averaged_pipeline(self) -> SmallPhotoPipeline:
        """Return a pipeline with the averaged weights."""
        with torch.random.fork_rng(devices=[]):
            vocabulary = self.pipeline.caption_encoder.config.vocabulary
            copy = build_pipeline(self.settings, [" ".join(vocabulary)])
        modules = (copy.transformer, copy.caption_encoder)
        with torch.no_grad():
            targets = [p for module in modules for p in module.parameters()]
            torch._foreach_copy_(targets, self.averaged)
        copy.set_progress_bar_config(disable=True)
        return copy

    def save(self, path: Path, digest: str, curve: list[list[float]], seconds: float) -> None:
        """Write all that a stopped run needs to go on to the same numbers."""
        state = {
            "settings": asdict(self.settings),
            "data": digest,
            "step": self.step,
            "weights": [p.detach() for p in self.parameters],
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
            "curve": curve,
            "seconds": seconds,
        }
        write_whole(path, lambda file: torch.save(state, file))

    def resume(self, path: Path, digest: str) -> tuple[list[list[float]], float]:
        """Take over a checkpoint where there is one; return its loss curve and seconds.

        A run may be shortened or lengthened (``steps``) as long as no learning rate that was used
        would have been another.
        """
        if not path.is_file():
            return [], 0.0
        state = torch.load(path, weights_only=True)
        before = PretrainSettings(**state["settings"])
        differing = [
            field.name
            for field in fields(before)
            if getattr(before, field.name) != getattr(self.settings, field.name)
        ]
        if differing == ["steps"] and state["step"] <= min(
            math.floor(run.steps * (1 - run.cooldown)) for run in (before, self.settings)
        ):
            differing = []
        if differing or state["data"] != digest:
            what = ", ".join(differing) or "photographs"
            raise UsageError(
                f"{path}: a checkpoint of a run with other {what}: give another --work, or delete "
                "it"
            )
        with torch.no_grad():
            torch._foreach_copy_(list(self.parameters), state["weights"])
            torch._foreach_copy_(self.averaged, state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return state["curve"], state["seconds"]


def _logit_normal(n: int, rng: np.random.Generator) -> Tensor:
    """Return σ of a logit-normal distribution (Esser et al., arXiv 2403.03206), stratified."""
    from scipy.special import expit, ndtri

    levels = (np.arange(n) + rng.random(n)) / n
    sigma = expit(ndtri(np.clip(levels, 1e-4, 1 - 1e-4)))
    return torch.from_numpy(sigma.astype(np.float32))


def _grid(pipeline: SmallPhotoPipeline, photographs: Sequence[Photograph], path: Path) -> None:
    """Save samples of eight captions and of none: a row each, the columns are seeds."""
    every = max(1, len(photographs) // 8)
    captions = ["", *(photograph.caption for photograph in photographs[::every][:8])]
    rows = []
    for caption in captions:
        noise = [torch.Generator().manual_seed(seed) for seed in range(10)]
        pictures = pipeline([caption] * 10, generator=noise, output_type="np").images
        rows.append(np.concatenate(list(pictures), axis=1))
    grid = Image.fromarray((np.concatenate(rows) * 255).round().astype(np.uint8))
    enlarged = grid.resize((grid.width * 3, grid.height * 3), Image.Resampling.NEAREST)
    enlarged.save(path)
