"""Tries detectors out: each is loaded and scores a test card."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from realbench import rendering
from realbench.detection.cards import Card
from realbench.detection.ensemble import probability
from realbench.errors import RealBenchError
from realbench.text import first_line

if TYPE_CHECKING:
    from realbench.detection.detector import Detector

LEAST_SECONDS = 0.5
MOST_PASSES = 20


def images_per_second(detector: Detector, images: Sequence[np.ndarray], device: str) -> float:
    """Return images/s of preparing and scoring decoded images, as ``Scorer`` does.

    One image is scored first, so that lazy set-up is not counted; passes over ``images`` are
    repeated until half a second has gone by.

    Args:
        images: uint8 RGB arrays of shape (H, W, 3), at least one.
    """
    from realbench.scoring.scorer import Scorer

    scorer = Scorer([detector], device=device)
    scorer(images[:1])
    passes, seconds, start = 0, 0.0, time.perf_counter()
    while seconds < LEAST_SECONDS and passes < MOST_PASSES:
        scorer(images)
        passes, seconds = passes + 1, time.perf_counter() - start
    return passes * len(images) / max(seconds, 1e-9)


TEST_CARD_SIZE = 512
_IMAGES = 4  # a pass of the measurement of speed


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of a detector.

    Attributes:
        missing: what it lacks on this machine; empty where it is complete.
        failure: why it could not be used though it is complete; empty where it could.
        realism: P(real) of the test card, in [0, 1].
        speed: images of the test card's size a second, decoding left out.
        memory: bytes by which the process grew, or on a GPU the most that was in use there.
    """

    name: str
    missing: str = ""
    failure: str = ""
    realism: float = float("nan")
    speed: float = float("nan")
    memory: int = 0


def check_detectors(
    cards: Sequence[Card], *, device: str = "auto", report: Callable[[Checked], None] | None = None
) -> list[Checked]:
    """Load each detector whose weights are here, and have it score the test card.

    The hub is not asked for what is missing. A detector that fails does not keep others from being
    tried.

    Args:
        report: called with each as soon as it is done.

    Raises:
        UsageError: the device cannot be used.
    """
    from realbench.scoring.scorer import choose_device

    where = choose_device(device)
    picture = rendering.spheres(TEST_CARD_SIZE, 1)  # uint8 (512, 512, 3)
    found = []
    for card in cards:
        missing = card.whats_missing()
        done = Checked(card.name, missing=missing) if missing else _tried(card, where, picture)
        found.append(done)
        if report is not None:
            report(done)
    return found


def _tried(card: Card, device: str, picture: np.ndarray) -> Checked:
    from realbench.detection.registry import load_detector

    before = _memory(device)
    try:
        detector = load_detector(card, device)
        logit = float(detector.logits(detector.prepare(picture)[None])[0])
        if not np.isfinite(logit):
            return Checked(card.name, failure=f"gives {logit} instead of a logit")
        speed = images_per_second(detector, [picture] * _IMAGES, device)
    except RealBenchError as error:
        return Checked(card.name, failure=str(error))
    except (RuntimeError, ValueError, TypeError, LookupError, MemoryError, OSError) as error:
        return Checked(card.name, failure=f"{type(error).__name__}: {first_line(error)}")
    realism = float(probability(np.array([logit]))[0])
    return Checked(card.name, realism=realism, speed=speed, memory=max(0, _memory(device) - before))


def _memory(device: str) -> int:
    """Return the bytes in use: on a GPU those of its tensors at the most, else the process's."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
