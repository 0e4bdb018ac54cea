"""Held-out scores of detectors, from which verdicts with a bound are fitted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from realbench.config.config_files import first_problem
from realbench.detection.calibration import calibrated
from realbench.detection.cards import Card
from realbench.detection.ensemble import combine_cards
from realbench.detection.specs import Sha256
from realbench.errors import UsageError
from realbench.files import write_whole
from realbench.stats.conformal import BySource, Spread, VerdictRule, errors_by_source, fit_verdicts
from realbench.text import printable

SAMPLE_FILE = "verdict.json"
_DECIMALS = 4  # of logits

Logits = Mapping[str, tuple[float, ...]]


class ConformalSample(BaseModel):
    """Logits of images that no detector learned from, as ``verdict.json`` has them.

    They are raw, before calibration, so one sample serves every calibration of the same networks,
    each of them alone, and every ensemble of them.

    Attributes:
        format: of the file.
        pictures: how the images were shown to the detectors, in words for people.
        detectors: each detector's name and what its logits are of (:attr:`Card.uncalibrated`).
        photographs: source to detector's name to the raw logits of P(real), in one order.
        generated: the same by generator.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    pictures: str
    detectors: dict[str, Sha256] = Field(min_length=1)
    photographs: dict[str, dict[str, tuple[float, ...]]] = Field(min_length=1)
    generated: dict[str, dict[str, tuple[float, ...]]] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for kind in (self.photographs, self.generated):
            for source, logits in kind.items():
                if set(logits) != set(self.detectors):
                    raise ValueError(f"{source}: has not the logits of just the detectors")
                if len({len(values) for values in logits.values()}) > 1 or not all(logits.values()):
                    raise ValueError(f"{source}: each detector has one logit for each image")
                if not all(map(math.isfinite, (v for values in logits.values() for v in values))):
                    raise ValueError(f"{source}: a logit is not finite")
        return self

    @classmethod
    def of(
        cls,
        cards: Sequence[Card],
        logits: Mapping[str, np.ndarray],
        real: np.ndarray,
        source: np.ndarray,
        pictures: str,
    ) -> ConformalSample:
        """Make a sample of calibrated logits.

        Args:
            cards: the detectors', with the calibration that the logits have.
            logits: each detector's calibrated logits of P(real), (n,).
            real: whether each image is a photograph, bool (n,).
            source: the source of each photograph and the generator of each other image, text (n,).
        """
        raw = {
            card.name: np.round(
                np.asarray(logits[card.name], np.float64) * card.calibration.temperature
                - card.calibration.bias,
                _DECIMALS,
            )
            for card in cards
        }

        def kind(mine: np.ndarray) -> dict[str, dict[str, tuple[float, ...]]]:
            return {
                str(one): {
                    name: tuple(values[mine & (source == one)].tolist())
                    for name, values in raw.items()
                }
                for one in np.unique(source[mine])
            }

        real = np.asarray(real, bool)
        return cls(
            pictures=pictures,
            detectors={card.name: card.uncalibrated for card in cards},
            photographs=kind(real),
            generated=kind(~real),
        )

    def write(self, folder: Path) -> Path:
        """Write ``verdict.json`` into ``folder``, whole, and return its path.

        Raises:
            OSError: it cannot be written.
        """
        path = folder / SAMPLE_FILE
        text = json.dumps(self.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))
        lines = text.replace('},"', '},\n"') + "\n"  # a line a source
        write_whole(path, lambda partial: partial.write_text(lines, encoding="utf-8"))
        return path

    def fits(self, cards: Sequence[Card]) -> bool:
        """Whether it has the logits of all these very networks."""
        return {card.uncalibrated for card in cards} <= set(self.detectors.values())

    def realism(self, cards: Sequence[Card]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the ensemble's P(real) of the photographs by source, and of the generated images.

        Args:
            cards: the ensemble's, which fit; their calibrations and weights are used.
        """
        names = {fingerprint: name for name, fingerprint in self.detectors.items()}
        of_card = {card.name: names[card.uncalibrated] for card in cards}

        def kind(sources: Mapping[str, Logits]) -> dict[str, np.ndarray]:
            found = {}
            for source, own in sources.items():
                raw = {card.name: np.array(own[of_card[card.name]]) for card in cards}
                logits = {card.name: calibrated(raw[card.name], card.calibration) for card in cards}
                found[source] = combine_cards(cards, logits)
            return found

        return kind(self.photographs), kind(self.generated)

    def rule(self, cards: Sequence[Card], max_false_alarm: float = 0.05) -> VerdictRule:
        """Fit the verdicts of an ensemble of these cards, which fit."""
        return fit_verdicts(*self.realism(cards), max_false_alarm)

    def describe(self, cards: Sequence[Card], rule: VerdictRule) -> dict[str, Any]:
        """Return what verdicts of an ensemble of these cards rest on: :func:`verdict_basis`."""
        return verdict_basis(rule, *self.realism(cards), self.pictures)


def verdict_basis(
    rule: VerdictRule, photographs: BySource, generated: BySource, pictures: str
) -> dict[str, Any]:
    """Return what verdicts rest on, as ``summary.json`` has it.

    Where the rule allows no claim its threshold is None. The spreads are of the errors on sources
    that a rule was not fitted on; None where a class has one source.

    Args:
        photographs, generated: held-out realism by source and by generator.
    """
    real, made = errors_by_source(photographs, generated, rule.max_false_alarm)
    return {
        "max_false_alarm": rule.max_false_alarm,
        "generated_below": rule.low if math.isfinite(rule.low) else None,
        "photograph_above": rule.high if math.isfinite(rule.high) else None,
        "n_photographs": rule.n_photographs,
        "n_generated": rule.n_generated,
        "pictures": pictures,
        "photographs_called_generated": asdict(Spread.over(real, photographs)) if real else None,
        "generated_called_photographs": asdict(Spread.over(made, generated)) if made else None,
    }


def read_sample(path: Path) -> ConformalSample:
    """Read a file of held-out logits.

    Raises:
        UsageError: it cannot be read or is not valid.
    """
    try:
        return ConformalSample.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {printable(path)}: {error.strerror}") from error
    except ValidationError as error:
        problem = first_problem(error, "sample")
        raise UsageError(
            f"{printable(path)} is no sample of held-out scores ({problem}): calibrate the "
            "detectors again, or take the file away"
        ) from error


def find_sample(cards: Sequence[Card]) -> ConformalSample | None:
    """Return held-out logits of an ensemble; None where there are none of these very networks.

    They are looked for in the folder of a user's calibration, beside each card, and in the folder
    above it, where training leaves them.

    Raises:
        UsageError: a file is there and is not valid.
    """
    places = [folder for card in cards for folder in card.folders]
    for folder in dict.fromkeys([*places, *(card.path.parent for card in cards)]):
        path = folder / SAMPLE_FILE
        if path.is_file() and (sample := read_sample(path)).fits(cards):
            return sample
    return None


def check_bound(max_false_alarm: float) -> None:
    """Refuse a bound of wrong verdicts that is not above 0 and at most 0.5.

    Raises:
        UsageError: that.
    """
    if not 0 < max_false_alarm <= 0.5:
        raise UsageError(
            f"--max-false-alarm must be above 0 and at most 0.5, not {max_false_alarm:g}"
        )


def doubts(cards: Sequence[Card], rule: VerdictRule | None) -> list[str]:
    """Say why an ensemble gives no verdicts, or cannot give one of them, a line each."""
    names = " ".join(card.name for card in cards)
    fit = f"come with realbench detectors calibrate {names} --reference PHOTOS --generated IMAGES"
    if rule is None:
        return [f"no verdicts: there are no held-out scores of these detectors; they {fit}"]
    bound, most = rule.max_false_alarm, math.ceil(1 / rule.max_false_alarm - 1 - 1e-9)
    return [
        f"no image can be called {verdict}: at {bound:g} that takes {most} held-out {kind} or "
        f"more, of sources that score alike, and there are {n}; others {fit}"
        for verdict, kind, n, level in (
            ("generated", "photographs", rule.n_photographs, rule.low_level),
            ("a photograph", "generated images", rule.n_generated, rule.high_level),
        )
        if not level
    ]
