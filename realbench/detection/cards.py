"""Detector cards: the ``card.toml`` that says what a detector is and how it is loaded.

Nothing here imports torch, so that cached scores can be read, and detectors listed, at once.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from realbench.errors import RealBenchError, UsageError

Level = Literal["feature", "semantic"]
CARD_FILE = "card.toml"

# Raise it when the code changes what an unchanged card scores: old cache entries then miss.
SCORING_VERSION = 1

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_LONGEST_NAME = 64
_TAKEN = ("folder", "image", "prompt_id", "sha256", "status", "reason", "realism", "disagreement")

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Triple = tuple[float, float, float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_Strict):
    """How an image becomes the network's input."""

    size: int = Field(ge=16, le=4096, description="side of a view in pixels")
    views: int = Field(default=1, ge=1, le=64, description="views per image")
    resize: Literal["bicubic", "bilinear", "lanczos", "none"] = "bicubic"
    mean: Triple = (0.5, 0.5, 0.5)
    std: Triple = (0.5, 0.5, 0.5)


class ModelSpec(_Strict):
    """Which network the family builds."""

    architecture: str
    blocks: tuple[int, ...] = Field(
        default=(), description="blocks whose patch statistics are judged; none: a classifier"
    )
    options: dict[str, Any] = Field(default_factory=dict)


class WeightsSpec(_Strict):
    """Where the weights come from; ``file`` is relative to the card's folder."""

    source: Literal["bundled", "local"] = "bundled"
    file: str
    sha256: Sha256


class OutputSpec(_Strict):
    """What the network's output means: ``logit-real`` is one logit, positive for real."""

    kind: Literal["logit-real", "logit-fake"] = "logit-real"


class CalibrationSpec(_Strict):
    """Calibrated logit = (logit + bias) / temperature."""

    temperature: float = Field(default=1.0, gt=0)
    bias: float = 0.0


class Card(_Strict):
    """One detector, as read from the ``card.toml`` in ``path``."""

    name: str = Field(pattern=_NAME, max_length=_LONGEST_NAME)
    level: Level
    family: str
    description: str
    input: InputSpec
    model: ModelSpec
    weights: WeightsSpec
    output: OutputSpec = OutputSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    licence: str
    citation: str = ""
    path: Path = Field(exclude=True)

    @field_validator("name")
    @classmethod
    def _not_a_column(cls, name: str) -> str:
        if name in _TAKEN:
            raise ValueError(f"{name!r} is a column of scores.csv already")
        return name

    @property
    def weights_path(self) -> Path:
        return self.path / self.weights.file

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest (64 characters) of all that decides this detector's scores.

        Computed once: it reads the weights, which may be large.

        Texts for people (description, licence, citation) and the name are left out.

        Raises:
            RealBenchError: the weights file is missing.
        """
        decisive: dict[str, Any] = self.model_dump(
            mode="json", exclude={"name", "description", "licence", "citation", "weights"}
        )
        decisive["weights"] = file_sha256(self.weights_path)
        decisive["scoring_version"] = SCORING_VERSION
        text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def check_weights(self) -> None:
        """Compare the weights file with the card's hash.

        Raises:
            RealBenchError: the file is missing, or is not the one that the card names.
        """
        found = file_sha256(self.weights_path)
        if found != self.weights.sha256:
            raise RealBenchError(
                f"{self.weights_path} has sha256 {found}, but its card says "
                f"{self.weights.sha256}: get the right file, or correct {CARD_FILE}"
            )


def check_name(name: str) -> None:
    """Refuse a name that no card could have.

    Raises:
        UsageError: it is not one.
    """
    if not re.fullmatch(_NAME, name) or len(name) > _LONGEST_NAME or name in _TAKEN:
        raise UsageError(
            f"{name!r} cannot name a detector: use up to {_LONGEST_NAME} letters, digits, dots, "
            "dashes and underscores, and no column of scores.csv"
        )


def file_sha256(path: Path) -> str:
    """Return the file's SHA-256 in hex.

    Raises:
        RealBenchError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RealBenchError(
            f"detector weights {path} cannot be read ({error.strerror}): put the file there"
        ) from error


def read_card(folder: Path) -> Card:
    """Read and check ``folder/card.toml``.

    Raises:
        UsageError: there is no card, or it is not valid; the message names the field.
    """
    path = folder / CARD_FILE
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{folder} has no {CARD_FILE}: give a detector's folder") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}") from error
    try:
        return Card(**fields, path=folder)
    except (ValidationError, TypeError) as error:
        raise UsageError(f"{path} is not a valid detector card: {_first_problem(error)}") from error


def _first_problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "card"
    return f"{where}: {first['msg']}"
