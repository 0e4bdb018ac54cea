"""Evaluation: the same prompts and seeds each time, and judges that are no part of the reward."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realbench.errors import RealBenchError, UsageError
from realbench.prompt_records import can_be_a_stem
from realbench.runs.files import write_atomically, write_folder
from realbench.stats.record import Estimate
from realbench.train.records import TrainEvaluation, mean_over
from realbench.train.watch import hacking_warning

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from realbench.reward.reward import Reward, SplitReward

FOLDER = "samples"
Probe = Callable[[Any, Sequence[str]], Any]
"""Figures of images (uint8 (n, 3, H, W)) and their prompts: (n,), or one number of them all."""
_GRID_SIDE = 256  # of an image in the grid, at most


@dataclass(frozen=True)
class EvaluationSet:
    """What is evaluated.

    Attributes:
        names: of the images, unique, as files are called.
        prompts: of each image.
        groups: int (n,): each image's prompt, by its position; a prompt's images are neighbours.
    """

    names: tuple[str, ...]
    prompts: tuple[str, ...]
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_prompts(self) -> int:
        """How many prompts."""
        return int(self.groups[-1]) + 1

    @classmethod
    def of(cls, prompts: Mapping[str, str], images_per_prompt: int) -> EvaluationSet:
        """Take each prompt so many times."""
        several = images_per_prompt > 1
        names = [name if can_be_a_stem(name) else f"{n:04}" for n, name in enumerate(prompts)]
        return cls(
            tuple(
                f"{name}-{member}" if several else name
                for name in names
                for member in range(images_per_prompt)
            ),
            tuple(text for text in prompts.values() for _ in range(images_per_prompt)),
            np.repeat(np.arange(len(prompts)), images_per_prompt),
        )


def judged(
    iteration: int,
    earlier: Mapping[int, TrainEvaluation],
    *,
    reward: np.ndarray,
    components: Mapping[str, np.ndarray],
    heldout: np.ndarray | None,
    probes: Mapping[str, Estimate],
    groups: np.ndarray,
    started: float,
) -> TrainEvaluation:
    """Return the record of an evaluation, with the hacking watch's warning.

    Args:
        reward, components, heldout: of n images, float (n,) each.
        groups: int (n,), each image's prompt.
        started: when, by ``time.perf_counter``.

    Raises:
        RealBenchError: a held-out score is no number.
    """
    values = {"reward": reward} | ({} if heldout is None else {"heldout": heldout})
    by_prompt = {
        name: (np.bincount(groups, weights=one) / np.bincount(groups)).tolist()
        for name, one in values.items()
    }
    watched = {n: one.by_prompt for n, one in earlier.items() if "heldout" in one.by_prompt}
    return TrainEvaluation(
        reward=mean_over(reward, groups),
        components={name: mean_over(one, groups) for name, one in components.items()},
        heldout=None if heldout is None else mean_over(heldout, groups),
        probes=dict(probes),
        warning=None if heldout is None else hacking_warning(watched | {iteration: by_prompt}),
        by_prompt=by_prompt,
        seconds=round(time.perf_counter() - started, 3),
    )


def probe(
    probes: Mapping[str, Probe], images: Tensor, evaluated: EvaluationSet
) -> dict[str, Estimate]:
    """Ask further judges about the images, uint8 (n, 3, H, W).

    Args:
        probes: by name; each returns a number for each image, or one for them all.

    Returns:
        estimates, by name; one number for all images has no interval.

    Raises:
        RealBenchError: one returns neither.
    """
    found: dict[str, Estimate] = {}
    for name, one in probes.items():
        values = np.asarray(one(images, evaluated.prompts), np.float64)
        if values.shape == (len(evaluated),):
            found[name] = mean_over(values, evaluated.groups)
        elif values.ndim == 0:
            value, n = float(values), len(evaluated)
            found[name] = {"estimate": value, "low": None, "high": None, "n": n}
        else:
            raise RealBenchError(f"the probe {name} gave shape {values.shape}: give (n,) or ()")
    return found


def heldout_judge(
    detectors: Sequence[str], reward: SplitReward | None, device: str
) -> Reward | None:
    """Load the held-out detectors as one judge, None where there are none.

    Raises:
        UsageError: one of them is part of the reward, or does not exist.
    """
    if not detectors:
        return None
    from realbench.scoring.scorer import Scorer

    scorer = Scorer(list(detectors), device=device)
    described = "" if reward is None else json.dumps(reward.describe())
    for name, one in scorer.detectors.items():
        if one.fingerprint in described:
            raise UsageError(
                f"evaluation.heldout: {name} is part of the reward: a held-out judge must not be"
            )
    return scorer.reward


def save_samples(out: Path, iteration: int, images: Tensor, evaluated: EvaluationSet) -> None:
    """Write an evaluation's images, ``samples/000010/<prompt id>.png``, whole or not at all.

    Raises:
        RealBenchError: they cannot be written.
    """
    from PIL import Image

    def fill(folder: Path) -> None:
        for name, image in zip(evaluated.names, images, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{name}.png")

    write_folder(out / FOLDER / f"{iteration:06}", fill)


def save_grid(out: Path, iteration: int, images: Tensor, columns: int) -> Image.Image:
    """Write images, uint8 (n, 3, H, W), side by side to ``samples/000010.jpg``; return the grid.

    Large ones are scaled down.

    Raises:
        RealBenchError: it cannot be written.
    """
    from torchvision.transforms.functional import resize, to_pil_image
    from torchvision.utils import make_grid

    scale = _GRID_SIDE / max(images.shape[-2:])
    if scale < 1:
        images = resize(images, [round(scale * side) for side in images.shape[-2:]])
    grid: Image.Image = to_pil_image(make_grid(images, nrow=columns, padding=2, pad_value=255))
    data = io.BytesIO()
    grid.save(data, "JPEG", quality=92)
    write_atomically(out / FOLDER / f"{iteration:06}.jpg", data.getvalue())
    return grid
