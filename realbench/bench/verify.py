"""Compares what this installation computes with reference predictions kept beside a set's card."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import TypedDict

from realbench.detection.cards import Card
from realbench.detection.ensembles import find_cards
from realbench.errors import RealBenchError, UsageError
from realbench.images import find_images, read_image
from realbench.runs.files import write_atomically
from realbench.scoring.scorer import Scorer
from realbench.sets.cards import SetCard
from realbench.sets.fetching import Fetched, find_fetched, get
from realbench.text import printable

PREDICTIONS_FILE = "predictions.csv"
SAMPLE = 64
TOLERANCE = 0.15
"""Of a logit: JPEG decoders and processors differ by a little, another network by far more."""

_BATCH = 8
_COLUMNS = ("detector", "fingerprint", "image", "logit")


class Compared(TypedDict):
    """What became of a detector's predictions.

    Attributes:
        n: pictures compared.
        largest: the largest difference of a logit, and of which picture.
        agrees: whether none is above :data:`TOLERANCE`.
    """

    detector: str
    n: int
    largest: float
    image: str
    agrees: bool


def verify_set(
    card: SetCard, detectors: Sequence[str | Path], *, device: str = "auto"
) -> list[Compared]:
    """Score a fixed sample of a set, and compare it with the reference predictions.

    Args:
        detectors: names, or folders of cards.
        device: where they compute.

    Raises:
        UsageError: there are no reference predictions of a detector on this set.
        RealBenchError: those that there are, are of other weights or another card; or the set
            cannot be fetched.
    """
    cards = find_cards(detectors)
    expected = _read(card)
    for one in cards:
        kept = {fingerprint for name, fingerprint, _ in expected if name == one.name}
        again = f"realbench sets verify {card.name} --detector {one.name} --write"
        if not kept:
            raise UsageError(
                f"there are no reference predictions of {one.name} on {card.name}: write them "
                f"where it is known to work: {again}"
            )
        if kept != {one.fingerprint}:
            raise RealBenchError(
                f"the reference predictions on {card.name} are of another {one.name} (fingerprint "
                f"{min(kept)[:12]}) than is here ({one.fingerprint[:12]}): its weights or its card "
                f"were changed; if that is meant, write new ones: {again}"
            )
    found = predictions(find_fetched(card) or get(card), cards, device=device)
    compared = []
    for one in cards:
        pairs = {
            image: abs(logit - expected[key])
            for (name, _, image), logit in found.items()
            if name == one.name and (key := (one.name, one.fingerprint, image)) in expected
        }
        if not pairs:
            raise RealBenchError(f"no picture of {card.name} here is one of the reference's")
        image = max(pairs, key=lambda image: pairs[image])
        largest = pairs[image]
        compared.append(Compared(
            detector=one.name, n=len(pairs), largest=largest, image=image,
            agrees=largest <= TOLERANCE,
        ))  # fmt: skip
    return compared


def write_predictions(
    card: SetCard, detectors: Sequence[str | Path], *, device: str = "auto"
) -> Path:
    """Score the sample, and keep it as the reference beside the set's card.

    Those of other detectors stay.

    Raises:
        RealBenchError: the set cannot be fetched, or the file cannot be written.
    """
    cards = find_cards(detectors)
    names = {one.name for one in cards}
    rows = {key: logit for key, logit in _read(card).items() if key[0] not in names}
    rows |= predictions(find_fetched(card) or get(card), cards, device=device)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    table.writerows((*key, f"{logit:.4f}") for key, logit in sorted(rows.items()))
    write_atomically(card.path / PREDICTIONS_FILE, text.getvalue().encode())
    return card.path / PREDICTIONS_FILE


def predictions(
    fetched: Fetched, cards: Sequence[Card], *, device: str = "auto"
) -> Mapping[tuple[str, str, str], float]:
    """Return logits of P(real) by detector, fingerprint and picture, of a fixed sample.

    It has the first :data:`SAMPLE` pictures by the hash of their paths.
    """
    files = {file.image: file.path for file in find_images(fetched.folder)}
    sample = sorted(files, key=lambda image: hashlib.sha256(image.encode()).digest())[:SAMPLE]
    scorer = Scorer(cards, device=device)
    found: dict[tuple[str, str, str], float] = {}
    for start in range(0, len(sample), _BATCH):
        names = sample[start : start + _BATCH]
        logits = scorer([read_image(files[image]) for image in names]).logits
        for one in cards:
            values = zip(names, logits[one.name].tolist(), strict=True)
            found |= {(one.name, one.fingerprint, image): logit for image, logit in values}
    return found


def _read(card: SetCard) -> dict[tuple[str, str, str], float]:
    file = card.path / PREDICTIONS_FILE
    if not file.is_file():
        return {}
    try:
        with file.open(encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text))
        return {
            (row["detector"], row["fingerprint"], row["image"]): float(row["logit"]) for row in rows
        }
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise RealBenchError(
            f"{printable(file)} is damaged: delete it, and write it again with --write"
        ) from error
