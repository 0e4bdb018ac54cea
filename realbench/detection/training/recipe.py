"""The recipe of a training run: every choice that decides the weights, read from TOML."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from realbench.config.config_files import as_toml, first_problem, read_toml
from realbench.content import content_path
from realbench.detection.perturbations import MATCHED_SIZE
from realbench.detection.registry import EMBEDDED_DETECTORS
from realbench.errors import UsageError
from realbench.text import printable


class Shares(BaseModel):
    """Share of each kind of image in the loss; photographs take the rest.

    ``generated`` is keyed by subset (a path's first folders), so that a subset whose subjects
    photographs share can count for more than its size.
    """

    model_config = ConfigDict(extra="forbid")

    round_trip: float = Field(ge=0, lt=1)
    generated: dict[str, float]


class Tuning(BaseModel):
    """How the last blocks of the transformer are trained; the blocks before them stay as they are.

    AdamW at ``learning_rate``, rising over the first tenth of ``steps`` and falling by a cosine,
    the layer above the blocks at ``head_factor`` times that. A batch is half photographs; sources
    are drawn by the recipe's shares. A view shows ``smallest_area`` of a picture or more, and
    ``degraded_share`` of the generated ones' are degraded strongly. What is kept is the running
    mean of the weights. ``weight`` is that of what the tuned blocks say beside
    the logistic regression. With ``lora_rank`` the blocks' matrices change by products of that
    rank alone (Hu et al. 2021, arXiv 2106.09685, equation 3).
    """

    model_config = ConfigDict(extra="forbid")

    blocks: tuple[int, int]
    steps: int = Field(ge=1)
    batch_size: int = Field(default=32, ge=2, multiple_of=2)
    learning_rate: float = Field(default=6e-5, gt=0)
    head_factor: float = Field(default=20.0, gt=0)
    smallest_area: float = Field(default=0.2, gt=0, le=1)
    degraded_share: float = Field(default=0.3, ge=0, le=1)
    label_smoothing: float = Field(default=0.05, ge=0, lt=0.5)
    running_mean: float = Field(default=0.99, ge=0, lt=1)
    weight: float = Field(default=1.0, gt=0)
    lora_rank: int | None = Field(default=None, ge=1)


class Recipe(BaseModel):
    """What is trained, on which shares of the data.

    ``matched_size`` is the side to which the matched protocol brings pictures, for detectors of
    smaller ones than usual. ``views`` are those of an image that is judged, ``training_views``
    those of one that is learned from. ``degraded_share`` of the generated ones' views are degraded
    strongly, some with noise of up to ``strongest_noise`` (its standard deviation in 8-bit levels,
    in a 512-pixel image), from ``weakest_noise`` on evenly in its logarithm, else evenly from 2.
    ``degraded_views`` are further views of each generated image, each with such noise or scaled
    down and up again: that makes most others look more like photographs.
    ``blanks`` pictures of nothing are made on the spot: of few, gray noise in crops is not learned.
    ``inverse_penalty`` is the C of logistic regression on standardised statistics with weights that
    sum to 1: smaller is simpler. Inside a share a source of n images weighs n to the power of
    ``balance``. ``nuisance`` is how many times the covariance between the sources of a class counts
    in a linear discriminant, which then stands beside the regression. The transformer's matrices
    are shipped in ``bits``. With ``hold_out_sources`` a fold holds out whole sources of
    photographs.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["semantic", "trace"]
    architecture: str
    blocks: tuple[int, ...] = Field(min_length=1)
    class_token: bool = False
    options: dict[str, Any] = Field(default_factory=dict)
    input_size: int = Field(ge=56, le=1024)
    matched_size: int = Field(MATCHED_SIZE, ge=32, le=1024)
    views: int = Field(1, ge=1)
    training_views: int = Field(ge=1)
    degraded_share: float = Field(ge=0, le=1)
    strongest_noise: float = Field(default=22.0, gt=2, le=128)
    degraded_views: int = Field(default=0, ge=0)
    blanks: int = Field(default=128, ge=1)
    weakest_noise: float | None = Field(default=None, gt=0, le=2)
    inverse_penalty: float = Field(gt=0)
    nuisance: float | None = Field(default=None, ge=0)
    balance: float = Field(default=0.0, ge=0, le=1)
    bits: int = Field(default=8, ge=3, le=8)
    shares: Shares
    tuned: Tuning | None = None
    hold_out_sources: bool = False
    folds: int = Field(3, ge=2)
    seed: int = 0
    subsets: tuple[str, ...] = ()
    unscored_subsets: tuple[str, ...] = ()
    never_train: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    source_folds: dict[str, int] = Field(default_factory=dict)
    subject_folds: dict[str, int] = Field(default_factory=dict)
    prompt_folds: dict[str, int] = Field(default_factory=dict)
    photo_series: tuple[str, ...] = ()

    def subset_of(self, path: str) -> str:
        """Return the longest of ``subsets`` that begins ``path``, or its first folder."""
        matching = [s for s in self.subsets if path.startswith(s + "/")]
        return max(matching, key=len) if matching else path.split("/", 1)[0]

    def family(self, source: str) -> str:
        """Return the first of ``families`` that is in a generator's name, or else the name."""
        return next((f for f in self.families if f in source.lower()), source.lower())

    def source_fold(self, source: str) -> int:
        """Return the fold that holds out ``source``, with its whole family of models.

        It is the one that ``source_folds`` gives the source, its family or ``*``, or else one by
        hash.
        """
        family = self.family(source)
        for name in (source, family, "*"):
            if name in self.source_folds:
                return self.source_folds[name] % self.folds
        return hash_fold(family, self.folds)

    def prompt_fold(self, prompt: str, source: str) -> int:
        """Return the fold that holds out a generated image's prompt or subject.

        A source without prompt ids is one subject, whose fold ``subject_folds`` may give.
        """
        if not prompt:
            return self.subject_folds.get(source, self.source_fold(source)) % self.folds
        if prompt in self.prompt_folds:
            return self.prompt_folds[prompt] % self.folds
        return hash_fold(prompt, self.folds)

    def toml(self) -> str:
        """Return the text of a file that :func:`read_recipe` reads as this recipe."""
        return as_toml(self.model_dump(mode="json", exclude_defaults=True))


def hash_fold(text: str, folds: int) -> int:
    """Return a fold in [0, folds) that depends on ``text`` alone."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % folds


def choose_recipes(
    names: Sequence[str], file: Path | None = None, name: str | None = None
) -> dict[str, Recipe]:
    """Return recipes by the names of the detectors that they will make.

    Args:
        names: recipes of the package; without any, and without ``file``, the embedded pair's.
        file: the user's own recipe, instead.
        name: what the one detector is called, rather than as its recipe.

    Raises:
        UsageError: no such recipe, or several for one name.
    """
    if file is not None:
        if len(names) > 1:
            raise UsageError("--recipe goes with one name: the detector's")
        return {name or (names[0] if names else file.stem): read_recipe(file)}
    chosen = list(names or EMBEDDED_DETECTORS)
    if name is not None and len(chosen) > 1:
        raise UsageError(f"--name goes with one recipe: name {' or '.join(chosen)}")
    return {name or one: read_recipe(_shipped(one)) for one in chosen}


def _shipped(name: str) -> Path:
    folder = content_path("detectors")
    known = {path.parent.name: path for path in folder.glob("*/recipe.toml")}
    known |= {path.stem: path for path in folder.glob("recipes/*.toml")}
    if name not in known:
        raise UsageError(
            f"no recipe {name!r} (there are {', '.join(sorted(known))}): name one of these, or "
            "give --recipe FILE"
        )
    return known[name]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        UsageError: the file cannot be read or a field is wrong.
    """
    fields = read_toml(path, "recipe")
    try:
        return Recipe(**fields)
    except ValidationError as error:
        raise UsageError(
            f"{printable(path)} is not a valid recipe: {first_problem(error, 'recipe')}"
        ) from error
