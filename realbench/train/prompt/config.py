"""What a training of a prompt-rewriting model is told: TOML files, checked, with overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from realbench.config.config_files import Configs, Table
from realbench.reward.reward import RewardConfig
from realbench.seeds import MAX_SEED
from realbench.train import config as train
from realbench.train.config import CheckpointsConfig, ModelConfig, TrackingConfig


class PromptsConfig(train.PromptsConfig):
    """``[prompts]``: what is rewritten; the suite has a default."""

    suite: str = "realbench-core"
    limit: int | None = Field(default=None, ge=2)


class WritingConfig(Table):
    """``[writing]``: how the model is asked.

    Attributes:
        instruction: the name of one in ``prompts/rewriters``, or a text file.
        max_tokens: of an answer; what is cut off there loses the form's point for an end.
        temperature: at which rewrites are drawn in training. Evaluations and ``realbench
            generate`` take the likeliest tokens.
        top_p: the smallest set of tokens of this probability is drawn from; 1 leaves all in.
    """

    instruction: str = "photographic-v1"
    max_tokens: int = Field(default=192, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)


class TrainingConfig(train.TrainingConfig):
    """``[training]``: the iterations, each of which updates the weights once.

    Attributes:
        schedule: of the learning rate.
        warmup: iterations over which it rises from 0.
        gradient_checkpointing: compute activations again in the backward pass, to save memory.
    """

    iterations: int = Field(default=200, ge=1)
    prompts_per_iteration: int = Field(default=4, ge=1)
    group_size: int = Field(default=8, ge=2)
    batch_size: int = Field(default=8, ge=1)
    learning_rate: float = Field(default=1e-5, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainingConfig:
        if self.images % self.batch_size:
            raise ValueError(
                f"{self.images} rewrites an iteration (prompts_per_iteration × group_size) "
                f"cannot be divided into batches of batch_size {self.batch_size}"
            )
        return self


class LoraConfig(Table):
    """``[lora]``: the trained weights.

    Attributes:
        enabled: without it all of the model's weights are trained, and exported.
        rank, alpha: the weights are scaled by alpha / rank.
        dropout: of their input.
        targets: names of layers; None takes all linear layers but the output's.
        last_layers: only in the last so many blocks, which saves most of the backward pass; None
            takes all blocks.
    """

    enabled: bool = True
    rank: int = Field(default=32, ge=1)
    alpha: float = Field(default=64, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] | None = None
    last_layers: int | None = Field(default=None, ge=1)


class LossConfig(Table):
    """``[loss]``: TRL's options of GRPO, by names of the same meaning as in the diffusion config.

    Attributes:
        kind: how the tokens' losses are averaged; see TRL's ``loss_type``.
        clip: how far the ratio of probabilities may move from 1 and still count (TRL's epsilon).
        kl: β, the weight of the divergence from the base model; 0 leaves it out.
        scale: by whose standard deviation advantages are divided, where the components are
            summed first.
    """

    kind: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = "dapo"
    clip: float = Field(default=0.2, gt=0)
    kl: float = Field(default=0.0, ge=0)
    scale: Literal["group", "batch", "none"] = "group"


class PipelineConfig(Table):
    """``[pipeline]``: the frozen image model, which makes an image of every rewrite.

    Attributes:
        source: a diffusers folder or a hub id.
        revision: of the hub.
        loras: put on it, each ``SOURCE`` or ``SOURCE=SCALE``; that of ``realgen-train
            diffusion``, for one.
        steps, guidance, width, height: of its call; None leaves the pipeline's own default.
        arguments: further arguments of its call.
        batch_size: images at a time.
        device: ``"auto"`` is the language model's.
        dtype: ``"auto"`` is bfloat16 on CUDA, else float32.
        offload: keep on the GPU only the part of it that is at work.
    """

    source: str
    revision: str | None = None
    loras: tuple[str, ...] = ()
    steps: int | None = Field(default=None, ge=1)
    guidance: float | None = None
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    arguments: dict[str, Any] = Field(default_factory=dict)
    batch_size: int = Field(default=1, ge=1)
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    offload: bool = False


class LengthConfig(Table):
    """``[text.length]``: see :func:`~realbench.reward.text_terms.length_term`."""

    weight: float = Field(default=1.0, ge=0)
    minimum: int = Field(default=40, ge=0)
    maximum: int = Field(default=80, ge=1)
    margin: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> LengthConfig:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class WeightConfig(Table):
    """``[text.form]`` and ``[text.kept]``: how much the term counts."""

    weight: float = Field(default=1.0, ge=0)


class VocabularyConfig(Table):
    """``[text.vocabulary]``: see :func:`~realbench.reward.text_terms.vocabulary_term`."""

    weight: float = Field(default=1.0, ge=0)
    words: tuple[str, ...] = Field(min_length=1)
    enough: int = Field(default=4, ge=1)

    @field_validator("words", mode="after")
    @classmethod
    def _lower(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word.casefold() for word in words)


class TextConfig(Table):
    """``[text]``: terms that read the rewrite alone; one that is not given is left out."""

    length: LengthConfig | None = None
    form: WeightConfig | None = None
    kept: WeightConfig | None = None
    vocabulary: VocabularyConfig | None = None


class EvaluationConfig(train.EvaluationConfig):
    """``[evaluation]``: prompts that take no part in the training."""

    every: int = Field(default=20, ge=1)
    prompts: int = Field(default=16, ge=2)


class PromptTrainConfig(Table):
    """A training of a prompt-rewriting model; a TOML file has one table for each attribute.

    The reward is the weighted mean of the components of ``reward``, which see the image of the
    rewrite with the ORIGINAL prompt, and of the terms of ``text``, which see the rewrite.

    Attributes:
        description: one line for people.
        seed: from which every random choice is derived.
    """

    description: str = ""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    model: ModelConfig
    prompts: PromptsConfig = PromptsConfig()
    writing: WritingConfig = WritingConfig()
    training: TrainingConfig = TrainingConfig()
    lora: LoraConfig = LoraConfig()
    loss: LossConfig = LossConfig()
    pipeline: PipelineConfig | None = None
    reward: RewardConfig | None = None
    text: TextConfig = TextConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("model", "pipeline", mode="before")
    @classmethod
    def _source_alone(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @property
    def weights(self) -> dict[str, float]:
        """The share of each term in the reward, by name; they sum to 1."""
        given = {
            **{one.name: one.weight for one in (self.reward.components if self.reward else ())},
            **{name: term.weight for name, term in self.text if term is not None},
        }
        total = sum(given.values())
        return {name: weight / total for name, weight in given.items()} if total else {}

    @model_validator(mode="after")
    def _has_a_reward(self) -> PromptTrainConfig:
        if self.reward is not None and self.pipeline is None:
            raise ValueError("[reward] looks at images: name the image model in [pipeline]")
        if self.pipeline is not None and self.reward is None:
            raise ValueError("[pipeline] makes images that nothing looks at: give [reward]")
        if self.evaluation.heldout and self.pipeline is None:
            raise ValueError("evaluation.heldout looks at images: give [pipeline]")
        names = [one.name for one in self.reward.components] if self.reward else []
        twice = [name for name, term in self.text if term is not None and name in names]
        if twice:
            raise ValueError(
                f"a component of [reward] and a term of [text] are called {twice[0]!r}"
            )
        if not self.weights:
            raise ValueError("nothing is rewarded: give [pipeline] and [reward], or [text]")
        return self


CONFIGS = Configs(PromptTrainConfig, Path(__file__).with_name("configs"))
load_config = CONFIGS.load
