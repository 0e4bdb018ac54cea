"""The ``detectors`` judge: prefers the picture that the detectors find more real."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from realbench.allocator import keep_freed_memory
from realbench.arena.judges import JudgeOptions
from realbench.arena.judges.judge import Judgment, Picture, Showing, Verdict
from realbench.detection.ensemble import probability, weights
from realbench.detection.registry import DEFAULT_DETECTORS, check_names, find_card
from realbench.errors import UsageError
from realbench.images import DEFAULT_MAX_PIXELS
from realbench.scoring.cache import cache_path, open_cache
from realbench.scoring.layout import choose_layout, decoding_threads
from realbench.scoring.pipeline import Engine, Outcome, Pipeline

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

    Args:
        options: ``margin``, ``detectors``, ``device``, ``batch_size`` and ``cache`` count.

    Raises:
        UsageError: no such detector or device, or a margin below 0.
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
        self._cards = [find_card(one) for one in self._options.detectors or DEFAULT_DETECTORS]
        check_names([card.name for card in self._cards])
        self._weights = weights({card.name: card.level for card in self._cards})
        self._engine: Engine | None = None
        self._outcomes: dict[Path, Outcome] = {}

    @property
    def fingerprint(self) -> str:
        """Hex digest of the margin and of the detectors' fingerprints and weights."""
        parts = {
            "version": _VERSION,
            "margin": self._options.margin,
            "detectors": {c.name: [c.fingerprint, self._weights[c.name]] for c in self._cards},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return margin and detectors, as ``run.json`` has them."""
        return {
            "kind": "detector ensemble, not a vision-language model",
            "margin": self._options.margin,
            "detectors": [
                {"name": c.name, "level": c.level, "fingerprint": c.fingerprint}
                for c in self._cards
            ],
        }

    def judge(self, showings: Iterable[Showing]) -> Iterator[tuple[Showing, Judgment]]:
        """Judge showings in their order; their pictures are scored some dozens at a time.

        Raises:
            UsageError: the device cannot be used.
            RealBenchError: the detectors cannot be loaded, or one of them fails.
        """
        waiting = iter(showings)
        while batch := list(islice(waiting, _SHOWINGS)):
            self._score([picture for one in batch for picture in (one.first, one.second)])
            for showing in batch:
                yield showing, self._compare(showing)

    def _score(self, pictures: Sequence[Picture]) -> None:
        paths = list(dict.fromkeys(p.path for p in pictures if p.path not in self._outcomes))
        if not paths:
            return
        keep_freed_memory()

        def take(index: int, outcome: Outcome) -> None:
            self._outcomes[paths[index]] = outcome

        with open_cache([cache_path()] if self._options.cache else []) as store:
            fingerprints = {card.name: card.fingerprint for card in self._cards}
            pipeline = Pipeline(
                fingerprints,
                self._load,
                store,
                decoders=decoding_threads(),
                max_pixels=DEFAULT_MAX_PIXELS,
            )
            pipeline.run(paths, take)

    def _load(self) -> Engine:
        if self._engine is None:
            from realbench.scoring.scorer import choose_device, load_detectors

            device = choose_device(self._options.device)
            loaded = load_detectors([card.path for card in self._cards], device)
            self._engine = Engine(loaded, choose_layout(device, self._options.batch_size))
        return self._engine

    def _compare(self, showing: Showing) -> Judgment:
        outcomes = [self._outcomes[one.path] for one in (showing.first, showing.second)]
        for picture, outcome in zip((showing.first, showing.second), outcomes, strict=True):
            if outcome.reason:
                return Judgment("invalid", raw=f"{picture.contestant}: {outcome.reason}")
            if outcome.sha256 != picture.sha256:
                return Judgment("invalid", raw=f"{picture.contestant}: the file has changed")
        first, second = (outcome.logits for outcome in outcomes)
        difference = sum(w * (first[name] - second[name]) for name, w in self._weights.items())
        verdict: Verdict = "first" if difference > 0 else "second"
        if abs(difference) <= self._options.margin:
            verdict = "tie"
        return Judgment(
            verdict,
            probability=float(probability(np.asarray(difference))),
            reason="P(real): " + ", ".join(_both(name, first, second) for name in self._weights),
        )


def _both(name: str, first: dict[str, float], second: dict[str, float]) -> str:
    one, two = probability(np.array([first[name], second[name]]))
    return f"{name} {one:.2f} first, {two:.2f} second"
