"""What a training of a diffusion model is told: TOML files, checked, with overrides."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from realbench.config.config_files import Configs, Table
from realbench.reward.config import RewardConfig
from realbench.seeds import MAX_SEED


class ModelConfig(Table):
    """``[model]``: what is trained.

    Attributes:
        source: a folder or a hub id; of a diffusers pipeline, or the name of a model that is
            shipped; of a language model, or a ``.gguf`` file, or ``package:NAME/FILE``, a file
            within an installed Python package.
        revision: of the hub: a branch, tag or commit.
        dtype: of the frozen weights and of the arithmetic; ``"auto"`` is bfloat16 on CUDA, else
            float32. The trained weights are always float32.
        device: ``"auto"`` leaves it to accelerate, ``"cpu"`` keeps off the accelerator.
    """

    source: str
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu"] = "auto"

    def dtype_on(self, device: str) -> str:
        """Return the dtype on a kind of device, such as ``"cuda"``."""
        if self.dtype != "auto":
            return self.dtype
        return "bfloat16" if device == "cuda" else "float32"


class PipelineModelConfig(ModelConfig):
    """``[model]`` of a pipeline.

    Attributes:
        adapter: ``"module:Class"`` for a pipeline class of the user's own (docs/flow-models.md).
    """

    adapter: str | None = None


class PromptsConfig(Table):
    """``[prompts]``: what images are made of in training, or what is rewritten.

    Attributes:
        suite: a bundled suite's name or a file of prompts; None takes the captions of
            ``cotraining.paired``, and where there are none ``"realbench-core"``.
        form: which form of the suite's prompts, ``"short"`` or ``"long"``.
        limit: no more than the first so many.
    """

    suite: str | None = None
    form: Literal["short", "long"] = "short"
    limit: int | None = Field(default=None, ge=1)


class SamplingConfig(Table):
    """``[sampling]``: how an image is made.

    Attributes:
        steps: of the schedule.
        guidance: the guidance scale.
        height, width: of the image in pixels.
        batch_size: images at a time on one device; as ``training.batch_size``, or the same step is
            rounded otherwise in training, and the first ratio is not 1.
        kind: of the stochastic step: ``"sde"`` (Flow-GRPO) or ``"cps"``.
        noise_level: a, the stochastic steps' amount of noise.
        window: how many consecutive steps, drawn anew for each iteration from the first half of
            the schedule, are stochastic and trained.
    """

    steps: int = Field(default=28, ge=2)
    guidance: float = Field(default=3.5, ge=0)
    height: int = Field(default=1024, ge=8)
    width: int = Field(default=1024, ge=8)
    batch_size: int = Field(default=1, ge=1)
    kind: Literal["sde", "cps"] = "sde"
    noise_level: float = Field(default=0.9, gt=0)
    window: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _window_fits(self) -> SamplingConfig:
        if self.window > max(1, self.steps // 2):
            raise ValueError(
                f"window {self.window} does not fit in the first half of {self.steps} steps"
            )
        if self.kind == "cps" and self.noise_level > 1:
            raise ValueError("noise_level of cps must be at most 1")
        return self


class TrainingConfig(Table):
    """``[training]``: the iterations.

    Attributes:
        iterations: how many; each makes images (or rewrites), rewards them and updates the weights.
        prompts_per_iteration: groups of an iteration, over all processes.
        group_size: images (or rewrites) of one prompt, whose rewards are compared with one another.
        batch_size: so many at a time in a training pass on one device.
        learning_rate, weight_decay: of AdamW.
        max_grad_norm: to which the gradient is clipped.
    """

    iterations: int = Field(default=300, ge=1)
    prompts_per_iteration: int = Field(default=8, ge=1)
    group_size: int = Field(default=24, ge=2)
    batch_size: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)

    @property
    def images(self) -> int:
        """How many images (or rewrites) an iteration makes, over all processes."""
        return self.prompts_per_iteration * self.group_size


class ImageTrainingConfig(TrainingConfig):
    """``[training]`` of an image model.

    Attributes:
        updates_per_iteration: optimiser steps; the images are divided among them.
        passes: over an iteration's images.
        betas, epsilon: of AdamW.
    """

    updates_per_iteration: int = Field(default=2, ge=1)
    passes: int = Field(default=1, ge=1)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)

    @model_validator(mode="after")
    def _images_divide(self) -> ImageTrainingConfig:
        if self.images % self.updates_per_iteration:
            raise ValueError(
                f"{self.images} images an iteration (prompts_per_iteration × group_size) cannot "
                f"be divided among {self.updates_per_iteration} updates_per_iteration"
            )
        return self


class LoraConfig(Table):
    """``[lora]``: the trained weights.

    Attributes:
        rank, alpha: the weights are scaled by alpha / rank.
        targets: names of layers (the ends of their paths); None takes the model class's own.
        start_from: a LoRA file or folder in diffusers' format to go on from.
    """

    rank: int = Field(default=64, ge=1)
    alpha: int = Field(default=128, ge=1)
    targets: tuple[str, ...] | None = None
    start_from: str | None = None


class LossConfig(Table):
    """``[loss]``: see :mod:`realbench.train.loss` for the equations.

    Attributes:
        clip: how far the ratio of probabilities may move from 1 and still count.
        kl: β, the weight of the divergence from the base model; 0 leaves it out. It depends on
            ``kl_of``: β of a published script is not β here where that is ``"mean"``.
        kl_of: ``"velocity"``: mean squared difference of the velocities (RealGen-V2; its β is 4e-4
            and 1e-5). ``"mean"``: the exact divergence of the steps' Gaussians, which at an equal
            β is 1/(-Δ) times that of Flow-GRPO's scripts (they leave -Δ out: 39 to 82 times in the
            first half of 28 steps), and with a β of 4e-4 practically nothing.
        guard: GRPO-Guard's normalised ratio and balanced steps.
        advantage_clip: advantages are clipped to ± this.
        global_std: divide by the standard deviation of all rewards, not of the group's own.
    """

    clip: float = Field(default=1e-4, gt=0)
    kl: float = Field(default=0.0, ge=0)
    kl_of: Literal["velocity", "mean"] = "mean"
    guard: bool = True
    advantage_clip: float = Field(default=5.0, gt=0)
    global_std: bool = False


class EmaConfig(Table):
    """``[ema]``: the running mean of the trained weights that is evaluated and exported.

    Attributes:
        enabled: without it the weights themselves are evaluated and exported.
        decay: what remains of the mean at an update; less at first, (1 + n) / (10 + n).
        every: optimiser steps between its updates.
    """

    enabled: bool = True
    decay: float = Field(default=0.9, ge=0, lt=1)
    every: int = Field(default=1, ge=1)


class EvaluationConfig(Table):
    """``[evaluation]``: fixed prompts and seeds, and judges that are no part of the reward.

    Attributes:
        every: iterations between evaluations; the first is before the training, one after it.
        suite: of its prompts; None takes them from the training suite, and out of the training.
        prompts: how many, spread evenly over the suite.
        heldout: detectors (names or card folders) that take no part in the reward.
        stop_on_hacking: end the run when the reward rises while the held-out score falls.
        stop_at_rise: end it at the first evaluation whose mean reward is so much above the first.
        columns: of the grid of samples.
    """

    every: int = Field(default=10, ge=1)
    suite: str | None = None
    prompts: int = Field(default=16, ge=1)
    heldout: tuple[str, ...] = ()
    stop_on_hacking: bool = False
    stop_at_rise: float | None = Field(default=None, gt=0)
    columns: int = Field(default=8, ge=1)


class ImageEvaluationConfig(EvaluationConfig):
    """``[evaluation]`` of an image model.

    Attributes:
        images_per_prompt: of each prompt.
    """

    images_per_prompt: int = Field(default=1, ge=1)


class CheckpointsConfig(Table):
    """``[checkpoints]``: from which a run that was cut off goes on.

    Attributes:
        every: iterations between them; also after the last iteration.
        keep: how many stay; older ones are deleted.
    """

    every: int = Field(default=5, ge=1)
    keep: int = Field(default=2, ge=1)


class MemoryConfig(Table):
    """``[memory]``: memory for time.

    Attributes:
        gradient_checkpointing: compute activations again in the backward pass.
        vae_tiling: decode an image in tiles, vae_slicing: one image after the other.
        offload_text_encoders: keep them in main memory while they are not at work.
        offload_vae: likewise the VAE.
    """

    gradient_checkpointing: bool = False
    vae_tiling: bool = False
    vae_slicing: bool = False
    offload_text_encoders: bool = False
    offload_vae: bool = False


class TrackingConfig(Table):
    """``[tracking]``: where curves are shown beside ``report.html``.

    Attributes:
        trackers: any of ``"tensorboard"``, ``"wandb"``, ``"trackio"``.
        project: what the run belongs to, for W&B and trackio.
    """

    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    project: str = "realgen"


class CotrainingConfig(Table):
    """``[cotraining]``: see :mod:`realbench.train.cotrain`.

    Threshold, accuracy, epochs, learning rate, smoothing and the share of past images are
    RealGen-V2's by default. Its mean of the weights is slower (0.99).

    Attributes:
        paired: photographs with captions, a folder or a JSONL file (see
            :class:`~realbench.train.paired.PairedImages`); None switches co-training off.
        detectors: names of the reward's detectors that are trained; empty for all that can be.
        part: ``"head"`` trains the last layer alone, which needs little time and memory;
            ``"experts"`` also the experts of a detector that has some (OmniAID; RealGen-V2 trains
            these two); ``"all"`` the network, but for the guards of patch statistics.
        threshold: a detector is trained when its own mean P(real) of an iteration's images is
            above it; all of them are in the first iteration, to get to know the generator.
        accuracy: balanced accuracy at which an update ends.
        epochs: after which it ends in any case.
        learning_rate: of AdamW.
        batch_size: images at a time.
        label_smoothing: the targets are this and 1 less this.
        ema: what remains of the running mean of the weights, which scores, at each step.
        buffer: pairs of past updates, photograph and generated image, that are kept.
        past: share of them among the pairs of an update.
        jpeg: share of the pairs of photograph and generated image that are compressed, both to
            the same quality, so that compression tells nothing.
    """

    paired: str | None = None
    detectors: tuple[str, ...] = ()
    part: Literal["head", "experts", "all"] = "head"
    threshold: float = Field(default=0.6, ge=0, le=1)
    accuracy: float = Field(default=0.9, gt=0.5, le=1)
    epochs: int = Field(default=20, ge=1)
    learning_rate: float = Field(default=4e-5, gt=0)
    batch_size: int = Field(default=16, ge=1)
    label_smoothing: float = Field(default=0.05, ge=0, lt=0.5)
    ema: float = Field(default=0.9, ge=0, lt=1)
    buffer: int = Field(default=128, ge=0)
    past: float = Field(default=0.5, ge=0, lt=1)
    jpeg: float = Field(default=0.5, ge=0, le=1)


class DiffusionConfig(Table):
    """A training of a diffusion model; a TOML file has one table for each attribute.

    Attributes:
        description: one line for people.
        seed: from which every random choice is derived.
    """

    description: str = ""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    model: PipelineModelConfig
    prompts: PromptsConfig = PromptsConfig()
    sampling: SamplingConfig = SamplingConfig()
    training: ImageTrainingConfig = ImageTrainingConfig()
    lora: LoraConfig = LoraConfig()
    loss: LossConfig = LossConfig()
    ema: EmaConfig = EmaConfig()
    reward: RewardConfig | None = None
    evaluation: ImageEvaluationConfig = ImageEvaluationConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    memory: MemoryConfig = MemoryConfig()
    tracking: TrackingConfig = TrackingConfig()
    cotraining: CotrainingConfig = CotrainingConfig()

    def passes_per_step(self, world_size: int) -> int:
        """Return how many training passes a process makes for one optimiser step."""
        training = self.training
        share = training.images // (training.updates_per_iteration * world_size)
        return math.ceil(share / training.batch_size) * self.sampling.window


CONFIGS = Configs(DiffusionConfig, Path(__file__).with_name("configs"))
load_config = CONFIGS.load
