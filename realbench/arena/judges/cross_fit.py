"""Cross-fitting: which detectors judge which contestants, none of which they learned from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from realbench.config.toml_text import first_problem, read_toml
from realbench.errors import UsageError
from realbench.text import printable


class _Fold(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    detectors: list[str] = Field(min_length=1)
    contestants: list[str]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    fold: list[_Fold] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Fold:
    """Detectors, and the contestants whose pictures they judge.

    Attributes:
        detectors: names, or folders of cards.
        contestants: names as in the arena.
    """

    detectors: tuple[str | Path, ...]
    contestants: tuple[str, ...]


def read_folds(path: Path) -> list[Fold]:
    """Read a TOML file with ``detectors`` and ``contestants`` in each ``[[fold]]``.

    Detectors are card folders relative to the file, or bundled detectors' names.

    Raises:
        UsageError: it cannot be read, or a contestant is in two folds.
    """
    shown = printable(path)
    fields = read_toml(path, "file of folds")
    try:
        folds = _File.model_validate(fields).fold
    except ValidationError as error:
        raise UsageError(f"{shown}: {first_problem(error, 'folds')}: correct it") from error
    seen: set[str] = set()
    for name in (name for fold in folds for name in fold.contestants):
        if name in seen:
            raise UsageError(f"{shown}: {printable(name)} is in two folds: leave it in one")
        seen.add(name)
    return [
        Fold(tuple(_located(path.parent, one) for one in fold.detectors), tuple(fold.contestants))
        for fold in folds
    ]


def _located(folder: Path, detector: str) -> str | Path:
    return folder / detector if (folder / detector).is_dir() else detector
