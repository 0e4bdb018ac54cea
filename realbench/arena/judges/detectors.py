"""The ``detectors`` judge: prefers the picture that the detectors find more real."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from realbench.arena.judges.judge import JudgeOptions, Judgment, Picture, Showing, Verdict
from realbench.config.config_files import Table, check_config, read_toml
from realbench.detection.ensemble import fused_terms, probability, weights
from realbench.detection.ensembles import find_cards
from realbench.detection.registry import DEFAULT_DETECTORS
from realbench.errors import UsageError
from realbench.scoring.cache import cache_path, open_cache
from realbench.scoring.engine import Networks, score_files
from realbench.scoring.pipeline import Outcome
from realbench.text import printable


class Fold(Table):
    """Detectors, names or folders of cards, and the contestants whose pictures they judge."""

    detectors: tuple[str, ...] = Field(min_length=1)
    contestants: tuple[str, ...]


class _Folds(Table):
    fold: tuple[Fold, ...] = Field(min_length=1)


def read_folds(path: Path) -> list[Fold]:
    """Read a TOML file with ``detectors`` and ``contestants`` in each ``[[fold]]``.

    Detectors are card folders relative to the file, or bundled detectors' names.

    Raises:
        UsageError: it cannot be read, or a contestant is in two folds.
    """
    shown = printable(path)
    folds = check_config(_Folds, read_toml(path, "file of folds"), shown).fold
    seen: set[str] = set()
    for name in (name for fold in folds for name in fold.contestants):
        if name in seen:
            raise UsageError(f"{shown}: {printable(name)} is in two folds: leave it in one")
        seen.add(name)
    own = {one: path.parent / one for fold in folds for one in fold.detectors}
    places = {one: str(place) for one, place in own.items() if place.is_dir()}
    return [
        fold.model_copy(update={"detectors": tuple(places.get(one, one) for one in fold.detectors)})
        for fold in folds
    ]


# Raised whenever the same detectors and margin come to another verdict.
_VERSION = 1
# Showings taken at once: their pictures fill batches, and the first votes come soon.
_SHOWINGS = 128


class DetectorJudge:
    """Compares two pictures by their realism, the ensemble's mean of calibrated logits.

    The picture with the higher mean is preferred, and within ``margin`` logits it is a tie;
    P(first is the more real one) is the sigmoid of the difference. A margin of 0.1 logits calls
    a tie what the detectors give odds of less than 1.1 to 1.

    It is no vision-language model: it knows no prompt, and gives a picture one score whatever it
    is compared with. So its order of pictures has no cycles, and it has no position bias. Every
    picture is scored once, and not again while the score cache remembers it.

    Cross-fitted, each contestant is judged by the detectors of its fold, which never learned from
    its pictures; levels of folds then differ as their detectors do.

    Args:
        options: ``margin``, ``detectors``, ``cross_fit``, ``device``, ``batch_size`` and ``cache``
            count.

    Raises:
        UsageError: no such detector or device, a margin below 0, or folds that cannot be used.
    """

    name = "detectors"
    orders = 2
    is_vlm = False
    free = True
    """Whether votes cost nothing to repeat."""

    def __init__(self, options: JudgeOptions | None = None) -> None:
        self._options = options or JudgeOptions()
        if not (math.isfinite(self._options.margin) and self._options.margin >= 0):
            raise UsageError(f"the margin must be 0 logits or more, not {self._options.margin}")
        if self._options.cross_fit is None:
            self._folds: list[Fold] = []
            chosen: list[Sequence[str | Path]] = [self._options.detectors or DEFAULT_DETECTORS]
        else:
            if self._options.detectors:
                raise UsageError("--detector and --cross-fit exclude each other: give one")
            self._folds = read_folds(self._options.cross_fit)
            chosen = [fold.detectors for fold in self._folds]
        self._ensembles = [_Ensemble(one, self._options) for one in chosen]
        if len({tuple(sorted(one.weights)) for one in self._ensembles}) > 1:
            raise UsageError("the folds have different detectors: give each the same names")
        self._of = {
            name: ensemble
            for fold, ensemble in zip(self._folds, self._ensembles, strict=False)
            for name in fold.contestants
        }

    @property
    def fingerprint(self) -> str:
        """Hex digest of the margin and of the detectors' fingerprints and weights.

        Cross-fitted, those of all folds, with their contestants.
        """
        parts: dict[str, Any] = {"version": _VERSION, "margin": self._options.margin}
        each = [one.identity() for one in self._ensembles]
        if self._folds:
            names = [sorted(fold.contestants) for fold in self._folds]
            parts["folds"] = sorted(zip(names, each, strict=True), key=json.dumps)
        else:
            parts["detectors"] = each[0]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return margin and detectors, as ``run.json`` has them."""
        each = [one.describe() for one in self._ensembles]
        folds = [
            {"detectors": ensemble, "contestants": list(fold.contestants)}
            for fold, ensemble in zip(self._folds, each, strict=False)
        ]
        return {
            "kind": "detector ensemble, not a vision-language model",
            "margin": self._options.margin,
            **({"folds": folds} if folds else {"detectors": each[0]}),
        }

    def judge(self, showings: Iterable[Showing]) -> Iterator[tuple[Showing, Judgment]]:
        """Judge showings in their order; their pictures are scored some dozens at a time.

        Raises:
            UsageError: the device cannot be used, or a contestant is in no fold.
            RealBenchError: the detectors cannot be loaded, or one of them fails.
        """
        waiting = iter(showings)
        while batch := list(islice(waiting, _SHOWINGS)):
            started = time.perf_counter()
            own: dict[_Ensemble, list[Picture]] = {}
            for picture in (picture for one in batch for picture in (one.first, one.second)):
                own.setdefault(self._judge_of(picture), []).append(picture)
            for ensemble, some in own.items():
                ensemble.score(some)
            seconds = (time.perf_counter() - started) / len(batch)
            yield from ((one, replace(self._compare(one), seconds=seconds)) for one in batch)

    def _judge_of(self, picture: Picture) -> _Ensemble:
        if not self._folds:
            return self._ensembles[0]
        if picture.contestant not in self._of:
            raise UsageError(
                f"{printable(self._options.cross_fit or '')}: {printable(picture.contestant)} is "
                "in no fold: name it in one whose detectors did not learn from its pictures"
            )
        return self._of[picture.contestant]

    def _compare(self, showing: Showing) -> Judgment:
        both = (showing.first, showing.second)
        outcomes = [self._judge_of(one).outcomes[one.path] for one in both]
        for picture, outcome in zip(both, outcomes, strict=True):
            if outcome.reason:
                return Judgment("invalid", raw=f"{picture.contestant}: {outcome.reason}")
            if outcome.sha256 != picture.sha256:
                return Judgment("invalid", raw=f"{picture.contestant}: the file has changed")
        first, second = (outcome.logits for outcome in outcomes)
        shares = self._ensembles[0].weights
        difference = sum(w * float(first[name] - second[name]) for name, w in shares.items())
        verdict: Verdict = "first" if difference > 0 else "second"
        if abs(difference) <= self._options.margin:
            verdict = "tie"
        real = ((name, probability(np.array([first[name], second[name]]))) for name in shares)
        said = [f"{name} {one:.2f} first, {two:.2f} second" for name, (one, two) in real]
        return Judgment(
            verdict,
            probability=float(probability(np.asarray(difference))),
            reason="P(real): " + ", ".join(said),
        )


class _Ensemble:
    """Detectors that score pictures, each once."""

    def __init__(self, detectors: Sequence[str | Path], options: JudgeOptions) -> None:
        self._options = options
        self._cards = find_cards(detectors, options.weights)
        fused = fused_terms(self._cards)
        levels = {card.name: card.level for card in self._cards}
        self.weights = {n: one.weight for n, one in fused.items()} or weights(levels)
        self.outcomes: dict[Path, Outcome] = {}
        self._networks = Networks(self._cards, device=options.device, batch_size=options.batch_size)

    def identity(self) -> dict[str, Any]:
        return {c.name: [c.fingerprint, self.weights[c.name]] for c in self._cards}

    def describe(self) -> list[dict[str, str]]:
        return [
            {"name": c.name, "level": c.level, "fingerprint": c.fingerprint} for c in self._cards
        ]

    def score(self, pictures: Sequence[Picture]) -> None:
        paths = list(dict.fromkeys(p.path for p in pictures if p.path not in self.outcomes))
        if not paths:
            return
        with open_cache([cache_path()] if self._options.cache else []) as store:
            scores = score_files(
                paths,
                self._networks,
                cache=store,
                workers=self._options.workers,
                max_pixels=self._options.max_pixels,
            )
        self.outcomes |= dict(zip(paths, scores.outcomes, strict=True))
