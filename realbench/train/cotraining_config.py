"""``[cotraining]``: what the co-training of the reward's detectors is told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from realbench.config.config_files import Table


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
