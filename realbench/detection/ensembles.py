"""Named ensembles: lists of detectors, and fused ones with fitted weights, from ``ensembles.toml``.

``ensemble:NAME`` stands for one wherever detectors are named. The user's own file is looked into
first: ``$REALBENCH_ENSEMBLES``, or else ``ensembles.toml`` in the working directory. The presets
are in ``detectors/ensembles.toml``.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from realbench.config.config_files import as_toml, checked_record, read_toml
from realbench.content import content_path
from realbench.detection.cards import Card, check_name
from realbench.detection.registry import ENSEMBLE_PREFIX, check_names, find_card
from realbench.detection.specs import Precision, Term
from realbench.errors import UsageError
from realbench.files import write_whole
from realbench.text import printable

ENSEMBLES_FILE = "ensembles.toml"


class Ensemble(BaseModel):
    """Detectors that judge together.

    Attributes:
        description: what it is for.
        detectors: names, or folders relative to the file's.
        weights: of the detectors' calibrated logits, at least 0, which need not sum to 1; none:
            each level weighs the same.
        bias: added to the weighted sum, which is the logit of P(real).
        path: the file that defines it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    detectors: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] | None = None
    bias: float = 0.0
    path: Path = Field(exclude=True)

    @model_validator(mode="after")
    def _fits(self) -> Ensemble:
        if self.weights is None:
            if self.bias:
                raise ValueError("bias goes with weights")
            return self
        if len(self.weights) != len(self.detectors):
            raise ValueError(f"{len(self.weights)} weights for {len(self.detectors)} detectors")
        if not all(math.isfinite(one) and one >= 0 for one in (*self.weights, abs(self.bias))):
            raise ValueError("weights must be finite and at least 0, and bias finite")
        if not any(self.weights):
            raise ValueError("one of the weights must be above 0")
        return self

    def weighted(self, cards: Sequence[Card]) -> list[Card]:
        """Return its detectors' cards, given in their order, with their weights if it has them."""
        if self.weights is None:
            return list(cards)
        offset = self.bias / len(cards)
        return [
            card.fused_with(Term(weight, offset))
            for card, weight in zip(cards, self.weights, strict=True)
        ]


def own_file() -> Path:
    """Return where the user's ensembles are, or would be."""
    return Path(os.environ.get("REALBENCH_ENSEMBLES") or ENSEMBLES_FILE)


def presets() -> dict[str, Ensemble]:
    """Return the ensembles that come with the package."""
    return read_ensembles(content_path("detectors") / ENSEMBLES_FILE)


def list_ensembles() -> dict[str, Ensemble]:
    """Return all ensembles by name, the presets first.

    Raises:
        UsageError: the user's file cannot be read, is not valid, or takes a preset's name.
    """
    shipped = presets()
    path = own_file()
    if not path.exists():
        if os.environ.get("REALBENCH_ENSEMBLES"):
            raise UsageError(f"{printable(path)} ($REALBENCH_ENSEMBLES) is missing")
        return shipped
    own = read_ensembles(path)
    for name in own:
        if name in shipped:
            raise UsageError(f"{printable(path)}: {name!r} is a preset's name: choose another")
    return shipped | own


def read_ensembles(path: Path) -> dict[str, Ensemble]:
    """Read a file with a table per ensemble.

    Raises:
        UsageError: it cannot be read or is not valid; the message names the field.
    """
    shown = printable(path)
    found = {}
    for name, fields in read_toml(path, "file of ensembles").items():
        if not isinstance(fields, dict):
            raise UsageError(f"{shown}: {name!r} must be a table, as in [{name}]")
        found[name] = checked_record(Ensemble, fields, f"{shown}: [{name}] ", path=path)
    return found


def find_ensemble(name: str) -> Ensemble:
    """Return an ensemble by name.

    Raises:
        UsageError: there is none, or the user's file is not valid.
    """
    known = list_ensembles()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"{own_file()} may define others"
    raise UsageError(f"no ensemble {printable(name)!r} (known: {', '.join(known)}): {hint}")


def choose_cards(detectors: Sequence[str | Path]) -> list[Card]:
    """Return the cards of names, folders and ensembles (``ensemble:NAME``), in their order.

    The cards of a fused ensemble carry their weights.

    Raises:
        UsageError: one is unknown or not valid, or a fused ensemble is not given alone.
    """
    cards: list[Card] = []
    for one in detectors:
        if not str(one).startswith(ENSEMBLE_PREFIX):
            cards.append(find_card(one))
            continue
        ensemble = find_ensemble(str(one).removeprefix(ENSEMBLE_PREFIX))
        if ensemble.weights is not None and len(detectors) > 1:
            raise UsageError(
                f"{one} has fitted weights, which further detectors would void: give it alone"
            )
        names = ensemble.detectors
        places = [ensemble.path.parent / n if n.startswith((".", "/")) else n for n in names]
        cards += ensemble.weighted([find_card(place) for place in places])
    return cards


def find_cards(
    detectors: str | Path | Sequence[str | Path],
    weights: Mapping[str, Mapping[str, str | Path]] | None = None,
    precision: Precision = "float32",
) -> list[Card]:
    """Return :func:`choose_cards` with the user's files and precision; each once, at least one.

    Args:
        weights: the user's files, by detector and part; all must be of these detectors.
        precision: of published networks (:meth:`Card.with_precision`).

    Raises:
        UsageError: one is unknown, given twice or not valid, or files are of none of them.
    """
    cards = choose_cards([detectors] if isinstance(detectors, str | Path) else detectors)
    names = [card.name for card in cards]
    check_names(names)
    given = weights or {}
    for name in given:
        if name not in names:
            raise UsageError(
                f"--weights names {printable(name)!r}, which is no detector of this run "
                f"({', '.join(names)})"
            )
    own = (c.with_weights(given[c.name]) if c.name in given else c for c in cards)
    return [card.with_precision(precision) for card in own]


def add_ensemble(path: Path, name: str, ensemble: Ensemble) -> None:
    """Append an ensemble to a user's file, which is made where it is missing.

    Raises:
        UsageError: the name is not one, is taken, or the file is not valid.
        OSError: it cannot be written.
    """
    check_free(path, name)
    before = path.read_text(encoding="utf-8").rstrip() + "\n" if path.exists() else ""
    text = before + as_toml({name: ensemble.model_dump(mode="json")})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def check_free(path: Path, name: str) -> None:
    """Refuse a name for a new ensemble that is not one, or is taken.

    Raises:
        UsageError: that, or the file is not valid.
    """
    check_name(name)
    if name in presets():
        raise UsageError(f"{name!r} is a preset's name: choose another --name")
    if path.exists() and name in read_ensembles(path):
        raise UsageError(
            f"{printable(path)} has an ensemble {name!r} already: choose another --name, or take "
            "it out of the file"
        )
