"""Detector cards: the ``card.toml`` that says what a detector is and how it is loaded.

Nothing here imports torch, so that cached scores can be read, and detectors listed, at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from pydantic import Field, PrivateAttr, field_validator

from realbench.config.config_files import checked_record, read_toml
from realbench.detection.plugins import find_family
from realbench.detection.specs import (
    CARD_FILE,
    FAMILIES,
    SCORING_VERSION,
    CalibrationSpec,
    ClassesSpec,
    InputSpec,
    Level,
    ModelSpec,
    OutputSpec,
    Precision,
    Strict,
    Term,
    WeightsSpec,
)
from realbench.detection.weight_files import declared_sha256, digest, find_weights
from realbench.errors import RealBenchError, UsageError
from realbench.hub_errors import hub_is_reached
from realbench.text import printable

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_LONGEST_NAME = 64
_TAKEN = (
    *("folder", "image", "prompt_id", "sha256", "status", "reason"),
    *("realism", "disagreement", "verdict"),
)

# They reduce precision by themselves where it is free, or have a way of their own.
_OWN_PRECISION = ("whole-image", "native-crops", "vlm")


class NetworkCard(Strict):
    """What cards have in common: a network of some family, its input and its weights."""

    name: str = Field(pattern=_NAME, max_length=_LONGEST_NAME)
    family: str
    description: str
    input: InputSpec = InputSpec()
    model: ModelSpec
    weights: WeightsSpec
    backbone: WeightsSpec | None = None
    licence: str
    citation: str = ""
    path: Path = Field(exclude=True)
    _given: dict[str, Path] = PrivateAttr(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _not_a_column(cls, name: str) -> str:
        if name in _TAKEN:
            raise ValueError(f"{name!r} is a column of scores.csv already")
        return name

    @property
    def weights_path(self) -> Path:
        """The weights file, or a whole model's folder; what the hub has is fetched.

        Raises:
            RealBenchError: it is not here and cannot be fetched.
        """
        return self.locate("weights")

    def locate(self, part: str, *, fetch: bool = True) -> Path:
        """Return the file of ``"weights"`` or ``"backbone"``, or a whole model's folder.

        Args:
            fetch: whether the hub may be asked for what is not on this machine.

        Raises:
            RealBenchError: it is not here; the message says how to get it.
        """
        if part in self._given:
            return self._given[part]
        spec = self.weights if part == "weights" else self.backbone
        assert spec is not None
        return find_weights(self.name, part, spec, self.path, fetch=fetch, licence=self.licence)

    def with_weights(self, given: Mapping[str, str | Path]) -> Self:
        """Return the card with the user's own files.

        Args:
            given: path by part, ``"weights"`` or ``"backbone"``.

        Raises:
            UsageError: the detector has no such part.
        """
        for part in given:
            if part not in self.parts:
                known = " and ".join(self.parts) or "no weights"
                raise UsageError(f"{self.name!r} has {known}, no {part!r}")
        card = self.changed()
        card._given = {part: Path(path) for part, path in given.items()}
        return card

    def changed(self, **fields: Any) -> Self:
        """Return a copy with other fields, which finds the same files."""
        card = type(self)(**(self.model_dump() | fields), path=self.path)
        for name in self.__private_attributes__:
            setattr(card, name, getattr(self, name))
        return card

    @property
    def parts(self) -> dict[str, WeightsSpec]:
        """The files it needs: ``"weights"``, and ``"backbone"`` where the card has one."""
        own = {} if self.weights.source == "none" else {"weights": self.weights}
        return own | ({"backbone": self.backbone} if self.backbone else {})

    @property
    def model_folder(self) -> Path:
        """Its weights, which must be a whole model's folder.

        Raises:
            UsageError: they are a file.
            RealBenchError: they are not here and cannot be fetched.
        """
        folder = self.weights_path
        if not folder.is_dir():
            raise UsageError(f"{folder} is no model folder, which {self.name!r} needs")
        return folder

    def whats_missing(self) -> str:
        """Return why its network cannot be used on this machine as it is, or an empty text.

        The hub is not asked; no file is read.
        """
        return next((why for part in self.parts if (why := self.lack(part))), "")

    def lack(self, part: str) -> str:
        """Return the same of ``"weights"`` or ``"backbone"`` alone."""
        try:
            path = self.locate(part, fetch=False)
        except RealBenchError as error:
            return str(error)
        return "" if path.exists() else f"{path} is missing"

    @cached_property
    def digests(self) -> dict[str, str]:
        """What identifies the files in use, by part: SHA-256, or the hub's commit of a model.

        Raises:
            RealBenchError: one is missing, or is not the one that the card names.
        """
        return {part: self._digest(part) for part in self.parts}

    def _digest(self, part: str) -> str:
        path, pinned = self.locate(part), self.parts[part].sha256
        expected = pinned or declared_sha256(path)
        found = digest(path)
        if expected and not path.is_dir() and found != expected:
            raise RealBenchError(
                f"{path} has sha256 {found}, but {'its card' if pinned else 'the hub'} says "
                f"{expected}: get the right file, or correct {CARD_FILE}"
            )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest (64 characters) of all that decides the scores.

        Computed once: it reads the weights, which may be large.

        Texts for people (description, licence, citation) and the name are left out.

        Raises:
            RealBenchError: the weights file is missing, or is not the one that the card names.
        """
        decisive: dict[str, Any] = self.model_dump(
            mode="json",
            exclude={"name", "description", "licence", "citation", "weights", "backbone"},
            exclude_none=True,  # what a card does not have decides nothing
        )
        decisive |= self.digests | self._code()
        # Which of a file's tensors are taken; left out where all are.
        entries = {
            part: [spec.key, spec.strip_prefix]
            for part, spec in self.parts.items()
            if spec.key or spec.strip_prefix
        }
        if entries:
            decisive["entries"] = entries
        decisive["scoring_version"] = SCORING_VERSION
        text = json.dumps(decisive, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _code(self) -> dict[str, str]:
        return {}  # what tells the code from other code where its name does not

    def check_weights(self, part: str = "weights") -> None:
        """Compare the weights file with the card's hash, where it has one.

        Raises:
            RealBenchError: the file is missing, or is not the one that the card names.
        """
        if not self.locate(part).is_dir():
            self._digest(part)


class Card(NetworkCard):
    """One detector, as read from the ``card.toml`` in ``path``."""

    level: Level
    labels: ClassesSpec | None = None
    prompts: ClassesSpec | None = None
    answers: ClassesSpec | None = None
    question: str | None = None
    output: OutputSpec = OutputSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    _fused: Term | None = PrivateAttr(default=None)
    _calibrated: tuple[Path, str] | None = PrivateAttr(default=None)

    @cached_property
    def fingerprint(self) -> str:
        """As of every card; a user's calibration must be of this very detector.

        Raises:
            UsageError: the weights or the card have changed since it was calibrated.
            RealBenchError: the weights file is missing, or is not the one that the card names.
        """
        if self._calibrated is not None and self._calibrated[1] != self.uncalibrated:
            raise UsageError(
                f"{printable(self._calibrated[0])} is of other weights, or of another card, than "
                f"{self.name} has now: calibrate it again"
            )
        return super().fingerprint

    @cached_property
    def uncalibrated(self) -> str:
        """Its fingerprint but for calibration and precision: what a calibration is of."""
        model = self.model.model_copy(update={"precision": None})
        card = self.to_calibrate().changed(calibration=CalibrationSpec(), model=model)
        card.__dict__["digests"] = self.digests  # hashed once
        return card.fingerprint

    def to_calibrate(self) -> Card:
        """Return the card for a calibration anew, to which one of other weights is no hindrance."""
        card = self.changed()
        card._calibrated = None
        return card

    def calibrated_by(self, calibration: CalibrationSpec, file: Path, uncalibrated: str) -> Card:
        """Return the card with a user's calibration.

        Args:
            file: that it is from, for messages.
            uncalibrated: of the detector that it was fitted on.
        """
        card = self.changed(calibration=calibration)
        card._calibrated = (file, uncalibrated)
        return card

    @property
    def folders(self) -> list[Path]:
        """Where its files lie: a user's calibration, then the card."""
        calibration = [] if self._calibrated is None else [self._calibrated[0].parent]
        return [*calibration, self.path]

    @property
    def fused(self) -> Term | None:
        """Its part of a fused ensemble; None where levels weigh the same."""
        return self._fused

    def fused_with(self, term: Term) -> Self:
        """Return the card as a member of a fused ensemble; its own scores stay as they are."""
        card = self.changed()
        card._fused = term
        return card

    def with_precision(self, precision: Precision) -> Self:
        """Return the card of the same network computed in ``precision``: another fingerprint.

        Families that choose for themselves stay as they are, and so does a card that says
        something itself when ``"float32"``, the default, is asked for.

        Raises:
            UsageError: there is no such precision.
        """
        if precision not in get_args(Precision):
            raise UsageError(f"no precision {precision!r}: give float32 or bfloat16")
        if precision == "float32" or self.family in _OWN_PRECISION:
            return self
        return self.changed(model=self.model.model_copy(update={"precision": precision}))

    def _code(self) -> dict[str, str]:
        plugin = None if self.family in FAMILIES else find_family(self.family)
        return {} if plugin is None else {"plugin": plugin.identity()}


def fetch_weights(cards: Iterable[NetworkCard]) -> None:
    """Fetch what cards lack and the hub has; what cannot be had is named at once, for all of them.

    Raises:
        RealBenchError: weights are not here and on no hub, or it is not reached, or they do not
            come whole.
    """
    lacking = [
        (card, part, why)
        for card in cards
        for part, spec in card.parts.items()
        if spec.source in ("hub", "file") and (why := card.lack(part))
    ]
    given = [one for one in lacking if one[0].parts[one[1]].source == "file"]
    if given or (len(lacking) > 1 and not hub_is_reached()):
        names = "; ".join(why for *_, why in given or lacking)
        raise RealBenchError(names if given else f"{names} (no hub is reached)")
    for card, part, _ in lacking:
        card.locate(part)


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


def read_card(folder: Path) -> Card:
    """Read and check ``folder/card.toml``.

    Raises:
        UsageError: there is no card, or it is not valid; the message names the field.
    """
    return read_toml_card(folder / CARD_FILE, Card, "detector")


C = TypeVar("C", bound=NetworkCard)


def read_toml_card(path: Path, kind: type[C], what: str) -> C:
    """Read and check the card in the file ``path``, which is a ``kind``.

    Args:
        what: it is a card of, for messages.

    Raises:
        UsageError: there is no card, or it is not valid; the message names the field.
    """
    if not path.exists():
        raise UsageError(f"{printable(path.parent)} has no {path.name}: give a {what}'s folder")
    fields = read_toml(path, f"{what}'s card")
    refused = f"{printable(path)} is not a valid {what} card: "
    return checked_record(kind, fields, refused, "card", path=path.parent)
