"""A board: ``board.toml`` says what its entries must have been scored with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from realbench.config.config_files import check_config, read_toml
from realbench.errors import RealBenchError, UsageError
from realbench.leaderboard.names import slug
from realbench.leaderboard.schema import Fused, Key, Name, Sha256, Strict, Text
from realbench.prompts import Suite, load_suite
from realbench.text import printable

BOARD_FILE = "board.toml"
RESULTS = "results"
ANCHORS = "anchors"
SAMPLES = "samples"

# The board's columns of distances, by what score calls them.
DISTANCES = {
    "two_sample": "auc",
    **{key: key for key in ("fd", "kd", "precision", "recall", "density", "coverage")},
}
Column = Literal[
    "realism",
    "escape_rate",
    "auc",
    "detectors",
    "categories",
    "arena",
    "win_rate",
    "two_sample",
    "fd",
    "kd",
    "precision",
    "recall",
    "density",
    "coverage",
]


class BoardSuite(Strict):
    """The prompts that every entry's images are made from."""

    name: Text
    sha256: Sha256
    file: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")] | None = (
        Field(
            default=None,
            description="A JSONL file beside board.toml, where the suite is no bundled one.",
        )
    )
    min_prompts: int = Field(ge=2, description="The least number of prompts with an image.")


class BoardDetector(Strict):
    """A detector that every entry is scored with.

    Several fingerprints are versions of it that count as one, such as the folds of a
    cross-fitting, each of which never saw the models that it scores. The first of every detector
    belong together, as do the second, and so on: an entry has one such set. Only an anchor may
    have images of several.
    """

    name: Key
    level: Literal["feature", "semantic"]
    fingerprints: list[Sha256] = Field(min_length=1)
    fused: Fused | None = Field(
        default=None, description="Its part, where the detectors are a fused ensemble."
    )


class BoardFeatures(Strict):
    """The network whose features distances from the photographs are of."""

    name: Key
    fingerprint: Sha256
    size: int = Field(ge=2, le=10_000, description="Of a vector.")


class BoardJudge(Strict):
    """The judge whose arenas count, with one fingerprint for each version that counts."""

    name: Text
    fingerprints: list[Sha256] = Field(min_length=1)
    template_sha256: Sha256 | None = None


class BoardAnchor(Strict):
    """What the models are measured against and what is not ranked, such as photographs."""

    name: Name
    is_photographs: bool = True
    cross_fit: bool = Field(
        default=False, description="Whether several sets of detectors may score its images."
    )


class Settings(Strict):
    """What ``board.toml`` holds."""

    format: Literal[1]
    title: Text
    description: str = Field(default="", max_length=2000)
    limits: list[str] = Field(default_factory=list, description="What readers should beware of.")
    rank_by: Literal["realism", "arena"] = "realism"
    columns: list[Column] = Field(min_length=1)
    seed: int = Field(default=0, ge=0, description="Of every bootstrap.")
    suite: BoardSuite
    detectors: list[BoardDetector] = Field(default_factory=list)
    judge: BoardJudge | None = None
    features: BoardFeatures | None = None
    anchors: list[BoardAnchor] = Field(default_factory=list)

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if not self.detectors and self.judge is None:
            raise ValueError("names neither detectors nor a judge; it needs one")
        if len({len(one.fingerprints) for one in self.detectors}) > 1:
            raise ValueError(
                "detectors have different numbers of fingerprints; the n-th of each belong "
                "together, so repeat those that are in several sets"
            )
        if len({one.fused is None for one in self.detectors}) > 1:
            raise ValueError("some detectors are fused and some are not; give all of them fused")
        for column in (*self.columns, self.rank_by):
            if column in ("arena", "win_rate"):
                if self.judge is None:
                    raise ValueError(f"{column} is wanted, but the board has no judge")
            elif column in DISTANCES and self.features is None:
                raise ValueError(f"{column} is wanted, but the board has no features")
            elif not self.detectors:
                raise ValueError(f"{column} is wanted, but the board has no detectors")
        if self.rank_by not in self.columns:
            raise ValueError(f"rank_by is {self.rank_by}, which must be among the columns")
        slugs = [slug(anchor.name) for anchor in self.anchors]
        if len(set(slugs)) < len(slugs):
            raise ValueError("two anchors have one name")
        return self


@dataclass
class Board:
    """A board's folder and its settings.

    Attributes:
        path: the folder.
        settings: what its ``board.toml`` says.
    """

    path: Path
    settings: Settings

    @cached_property
    def suite(self) -> Suite:
        """The board's prompts.

        Raises:
            UsageError: they cannot be read.
            RealBenchError: they are other ones than the board was made for.
        """
        wanted = self.settings.suite
        suite = load_suite(self.path / wanted.file if wanted.file else wanted.name)
        if suite.sha256 != wanted.sha256:
            raise RealBenchError(
                f"{printable(self.path / BOARD_FILE)}: suite.sha256 is {wanted.sha256[:12]}…, but "
                f"the prompts of {wanted.name} have {suite.sha256}: a board keeps to its suite's "
                "version; correct the hash or start a new board"
            )
        return suite

    @property
    def anchor_slugs(self) -> dict[str, BoardAnchor]:
        """The anchors by their files' names."""
        return {slug(anchor.name): anchor for anchor in self.settings.anchors}


def load_board(folder: str | Path) -> Board:
    """Read a board's settings.

    Raises:
        UsageError: the folder has no board, or its settings cannot be used.
    """
    path = Path(folder)
    file = path / BOARD_FILE
    if not file.exists():
        raise UsageError(
            f"{printable(path)} has no {BOARD_FILE}: name a board's folder, such as "
            "leaderboards/core"
        )
    settings = check_config(Settings, read_toml(file, "board"), printable(file))
    return Board(path, settings)
