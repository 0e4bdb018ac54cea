"""What a card's parts may say: data alone, below the cards, their files and the networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Level = Literal["feature", "semantic"]
CARD_FILE = "card.toml"

# Raise it when the code changes what an unchanged card scores: old cache entries then miss.
SCORING_VERSION = 1

# By the module of detection/families that builds them; other names are plug-ins'.
FAMILIES = {
    "clip-blocks": "clip",
    "clip-experts": "experts",
    "clip-linear": "clip",
    "clip-svd": "clip",
    "clip-zeroshot": "clip",
    "dino-experts": "experts",
    "dino-lora": "published",
    "native-crops": "embedded",
    "timm-classifier": "published",
    "trace-cnn": "trace_cnn",
    "transformers-classifier": "transformers_classifier",
    "vlm": "vlm",
    "whole-image": "embedded",
}

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Triple = tuple[float, float, float]
Precision = Literal["float32", "bfloat16"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(Strict):
    """How an image becomes the network's input."""

    size: int = Field(default=224, ge=16, le=4096, description="side of a view in pixels")
    views: int = Field(default=1, ge=1, le=64, description="views per image")
    resize: Literal["bicubic", "bilinear", "bilinear-point", "lanczos", "none"] = Field(
        default="bicubic",
        description="bilinear-point takes the four nearest pixels alone, as OpenCV does",
    )
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)
    fit: Literal["squash", "short-side", "center-crop", "five-crops", "letterbox"] | None = Field(
        default=None,
        description="how a published network's views are made: the whole picture squashed to a "
        "square; the short side scaled to size, then the middle; the middle, never scaled; the "
        "middle and the four corners, never scaled; the long side scaled to size, the rest black",
    )
    short_side: int | None = Field(
        default=None, ge=16, le=4096, description="to which it is scaled, where that is not size"
    )
    squash_first: int | None = Field(
        default=None, ge=16, le=4096, description="side to which the picture is squashed before"
    )


class ModelSpec(Strict):
    """Which network the family builds."""

    architecture: str
    blocks: tuple[int, ...] = Field(
        default=(), description="blocks whose patch statistics are judged; none: a classifier"
    )
    class_token: bool | None = Field(
        default=None, description="whether the class token after those blocks is judged, too"
    )
    tuned: tuple[int, int] | None = Field(
        default=None, description="first and last block of the branch that was trained"
    )
    options: dict[str, Any] = Field(default_factory=dict)
    precision: Precision | None = Field(
        default=None, description="of a published network's products of matrices; none: float32"
    )


class WeightsSpec(Strict):
    """Where weights come from.

    ``bundled`` and ``local``: the file beside the card. ``file``: what the user gives
    (``--weights NAME=FILE``) or puts into the weights folder. ``hub``: what a repository on the
    Hugging Face hub has. The last two mean a file or, where none is named, a whole model.
    ``none``: a plug-in's code needs no weights.
    """

    source: Literal["bundled", "local", "file", "hub", "none"] = "bundled"
    file: str = ""
    sha256: Sha256 | None = Field(default=None, description="none where its hash is not published")
    repo: str = Field(default="", description="hub: owner/name")
    revision: str = Field(default="", description="hub: branch, tag or commit; empty: main")
    key: str = Field(
        default="", description="entry of a checkpoint with the weights, such as model"
    )
    strip_prefix: str = Field(default="", description="taken off the names of the tensors")
    obtain: str = Field(default="", description="the command, or the place, to get the file")

    @model_validator(mode="after")
    def _complete(self) -> WeightsSpec:
        here = self.source in ("bundled", "local")
        if here and not (self.file and self.sha256):
            raise ValueError(f"source {self.source!r} needs file and sha256")
        if self.source == "file" and not (self.file or self.obtain):
            raise ValueError("source 'file' needs file, or for a whole model obtain")
        if self.source == "hub" and not self.repo:
            raise ValueError("source 'hub' needs repo")
        if self.source == "none" and (self.file or self.sha256):
            raise ValueError("source 'none' goes without file and sha256")
        return self


class ClassesSpec(Strict):
    """What stands for the two classes: labels, prompts or answers, by the family."""

    real: tuple[str, ...] = Field(min_length=1)
    generated: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> ClassesSpec:
        both = set(self.real) & set(self.generated)
        if both:
            raise ValueError(f"{sorted(both)[0]!r} stands for both classes")
        return self


class OutputSpec(Strict):
    """What the network's output means.

    ``logit-real`` is one logit, positive for real, and ``logit-fake`` its opposite; ``classes``
    are logits of classes, of which ``real`` is the index of the real one, from 0.
    """

    kind: Literal["logit-real", "logit-fake", "classes"] = "logit-real"
    real: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _which_is_real(self) -> OutputSpec:
        if (self.kind == "classes") != (self.real is not None):
            raise ValueError("kind 'classes' goes with real, the index of the real class")
        return self


class CalibrationSpec(Strict):
    """Calibrated logit = (logit + bias) / temperature."""

    temperature: float = Field(default=1.0, gt=0)
    bias: float = 0.0


@dataclass(frozen=True, slots=True)
class Term:
    """What a detector adds to a fused ensemble's logit: weight · its calibrated logit + offset."""

    weight: float
    offset: float = 0.0
