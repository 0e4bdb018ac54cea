"""Scores of images whose truth is known: what calibration and fusion are fitted on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from realbench.detection.cards import Card
from realbench.detection.ensembles import choose_cards
from realbench.detection.registry import ENSEMBLE_PREFIX, list_detectors
from realbench.errors import UsageError
from realbench.images import DEFAULT_MAX_PIXELS, ImageFile, find_images
from realbench.scoring.cache import cache_path, open_cache
from realbench.scoring.engine import Networks, Protocol, score_files
from realbench.scoring.folders import copies, copy_notes, display_names
from realbench.scoring.pipeline import Progress
from realbench.sets.naming import set_folders, set_photographs
from realbench.stats import Interval, bootstrap_auc, bootstrap_mean
from realbench.text import printable

FOLDS = 5
LEAST_IMAGES = 50  # of each class, for a fit


def each_detector(detectors: Sequence[str | Path]) -> list[str | Path]:
    """Return the name or the folder of each detector, members in place of an ensemble."""
    known, found = list_detectors(), list[str | Path]()
    for one in detectors:
        ensemble = str(one).startswith(ENSEMBLE_PREFIX)
        cards = choose_cards([one]) if ensemble else []
        found += [c.name if c.name in known else c.path for c in cards] if ensemble else [one]
    return found


@dataclass(frozen=True)
class Labelled:
    """Images with their truth and what detectors say of them.

    Attributes:
        logits: each detector's calibrated logits of P(real), float64 (n,).
        real: whether each image is a photograph, bool (n,).
        source: each photograph's folder and each generated image's generator, text (n,).
        prompt: the stem of each file, text (n,).
        notes: what could not be used, a line each.
    """

    logits: dict[str, np.ndarray]
    real: npt.NDArray[np.bool_]
    source: npt.NDArray[np.str_]
    prompt: npt.NDArray[np.str_]
    notes: list[str]

    @property
    def generators(self) -> list[str]:
        """The generators' names, sorted."""
        return sorted(set(self.source[~self.real].tolist()))

    def need(self, what: str) -> None:
        """Refuse fewer than :data:`LEAST_IMAGES` photographs or generated images.

        Raises:
            UsageError: that; ``what`` says for which end they are needed.
        """
        real, made = int(self.real.sum()), int((~self.real).sum())
        if min(real, made) < LEAST_IMAGES:
            raise UsageError(
                f"{what} needs at least {LEAST_IMAGES} photographs and {LEAST_IMAGES} generated "
                f"images that can be read, and there are {real} and {made}: give more"
            )

    def area(self, logits: np.ndarray, seed: int) -> Interval:
        """Return the AUC of logits (n,), with its interval over prompts."""
        real, prompt = self.real, self.prompt
        return bootstrap_auc(logits[real], logits[~real], prompt[real], prompt[~real], seed=seed)

    def log_loss(
        self, logits: np.ndarray, seed: int, *, before: np.ndarray | None = None
    ) -> Interval:
        """Return the log loss of logits (n,) at even odds, or how far it is below ``before``'s."""
        losses = log_losses(logits, self.real)
        losses = losses if before is None else log_losses(before, self.real) - losses
        return bootstrap_mean(losses, self.prompt, seed=seed)

    def prompt_folds(self, folds: int = FOLDS) -> npt.NDArray[np.int64]:
        """Return the fold of each image (n,); images of one prompt share it, of either class."""
        fold_of = _even(self.prompt[~self.real], folds)
        rest = [one for one in self.prompt[self.real] if one not in fold_of]
        fold_of |= _even(rest, folds)
        return np.array([fold_of[one] for one in self.prompt])

    def generator_folds(self, folds: int = FOLDS) -> npt.NDArray[np.int64]:
        """Return the fold of each image (n,): a generator's images share it; photographs are dealt.

        With a single generator these are :meth:`prompt_folds`.
        """
        names = self.generators
        if len(names) < 2:
            return self.prompt_folds(folds)
        folds = min(folds, len(names))
        of_photo = _even(self.prompt[self.real], folds)
        return np.array(
            [
                of_photo[prompt] if real else names.index(source) % folds
                for real, source, prompt in zip(self.real, self.source, self.prompt, strict=True)
            ]
        )


def _even(names: Iterable[str], folds: int) -> dict[str, int]:
    shuffled = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    return {name: n % folds for n, name in enumerate(shuffled)}


def score_labelled(
    cards: Sequence[Card],
    real: Sequence[Path],
    generated: Sequence[Path],
    *,
    matched: bool = False,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    cache: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Labelled:
    """Score photographs and generated images.

    Args:
        real: folders of photographs.
        generated: a folder per generator, or folders of such folders.
        matched: bring all images to one shape, size and format first.

    Other arguments are those of :func:`realbench.scoring.score`.

    Raises:
        UsageError: a folder is missing, without images, or given as photographs and generated.
        RealBenchError: a detector cannot be used.
    """
    from realbench.detection.training.folders import generators

    real = [Path(set_photographs(one)) for one in real]
    names = display_names(real)
    files = [(name, file) for name, at in zip(names, real, strict=True) for file in find_images(at)]
    photographs = len(files)
    files += generators([Path(one) for one in set_folders(generated)])
    check_apart(files[:photographs], files[photographs:])
    networks = Networks(cards, device=device, batch_size=batch_size)
    with open_cache([cache_path()] if cache else []) as store:
        scores = score_files(
            [file.path for _, file in files],
            networks,
            cache=store,
            protocol=Protocol(matched=matched),
            workers=workers,
            max_pixels=max_pixels,
            progress=progress,
        )
    classes = ["photographs" if n < photographs else "generated" for n in range(len(files))]
    pixels = scores.pixels
    copied = copies(list(zip(classes, pixels, strict=True)), "photographs")
    kept = [n for n, its in enumerate(pixels) if its and n not in copied]
    notes = [
        f"unreadable, left out: {printable(file.path)} ({one.reason})"
        for (_, file), one in zip(files, scores.outcomes, strict=True)
        if one.reason
    ]
    shown = [(kind, printable(file.path)) for kind, (_, file) in zip(classes, files, strict=True)]
    notes += copy_notes(shown, pixels, copied)
    return Labelled(
        {card.name: scores.of(card.name)[kept] for card in cards},
        np.array([n < photographs for n in kept], bool),
        np.array([files[n][0] for n in kept], str),
        np.array([files[n][1].prompt_id for n in kept], str),
        notes,
    )


def named_from(folder: Path, place: Path) -> str:
    """Return how a file in ``folder`` names a detector's folder: by its path from there."""
    relative = os.path.relpath(place.resolve(), folder.resolve())
    return relative if relative.startswith(".") else f"./{relative}"


def check_apart(
    real: Sequence[tuple[str, ImageFile]], made: Sequence[tuple[str, ImageFile]]
) -> None:
    """Refuse files that are given as photographs and as generated images.

    Raises:
        UsageError: there is one; the message names it.
    """
    photographs = {os.path.realpath(file.path) for _, file in real}
    both = next((file for _, file in made if os.path.realpath(file.path) in photographs), None)
    if both is not None:
        raise UsageError(
            f"{printable(both.path)} is given as a photograph (--reference) and as generated "
            "(--generated): name folders of different images"
        )


def log_losses(logits: np.ndarray, real: npt.NDArray[np.bool_]) -> np.ndarray:
    """Return each image's log loss, float64 (n,); their mean is that at even odds."""
    loss = np.logaddexp(0, np.where(real, -logits, logits))
    share = np.where(real, real.mean(), (~real).mean())
    return loss / (2 * share)
