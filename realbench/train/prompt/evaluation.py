"""Evaluation: the same prompts and seeds each time, likeliest rewrites, and a held-out judge."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realbench.errors import RealBenchError
from realbench.files import write_whole
from realbench.generation.rewriting import Answer
from realbench.generation.run import image_seed
from realbench.reward.reward import Reward
from realbench.text import printable
from realbench.train.evaluation import FOLDER, estimate, save_grid, save_samples
from realbench.train.prompt.rewarding import Rewarded, Rewarder, total

if TYPE_CHECKING:
    from PIL import Image

    from realbench.train.watch import HackingWatch

Writer = Callable[[list[str]], list[Answer]]


class Evaluation:
    """Rewrites the evaluation's prompts with the likeliest tokens, as ``realbench generate`` does.

    Args:
        prompts: what is rewritten, by id.
        rewarder: says what the rewrites are worth.
        weights: of its terms.
        out: the run's folder, where rewrites and images are saved.
        seed: of the images' noise, as for ``realbench generate --seed``.
        columns: of the grid of images.
        heldout: judges the images and is no part of the reward.
        watch: compares the two.
    """

    def __init__(
        self,
        prompts: Mapping[str, str],
        rewarder: Rewarder,
        weights: Mapping[str, float],
        out: Path,
        *,
        seed: int,
        columns: int,
        heldout: Reward | None = None,
        watch: HackingWatch | None = None,
    ) -> None:
        self.prompts = dict(prompts)
        self.watch = watch
        self._rewarder = rewarder
        self._weights = weights
        self._out = out
        self._seed = seed
        self._columns = columns
        self._heldout = heldout

    def __call__(self, iteration: int, write: Writer) -> dict[str, Any]:
        """Return what the log says of an evaluation, as the diffusion training's log does."""
        start = time.perf_counter()
        texts = list(self.prompts.values())
        answers = write(texts)
        rewarded = self._rewarder(
            answers, texts, [image_seed(self._seed, name) for name in self.prompts]
        )
        reward = total(rewarded.values, self._weights)
        groups = np.arange(len(texts))
        heldout = self._judged(rewarded, texts)
        words = [len((prompt or "").split()) for prompt in rewarded.prompts]
        found: dict[str, Any] = {
            "reward": estimate(reward, groups),
            "components": {name: estimate(one, groups) for name, one in rewarded.values.items()},
            "heldout": None if heldout is None else estimate(heldout, groups),
            "probes": {"words": estimate(np.array(words, np.float64), groups)},
            "warning": None,
            "by_prompt": {"reward": reward.tolist()},
        }
        if heldout is not None:
            found["by_prompt"]["heldout"] = heldout.tolist()
            if self.watch is not None:
                found["warning"] = self.watch.observe(iteration, reward, heldout)
        self._save(iteration, answers, rewarded, reward)
        return found | {"seconds": round(time.perf_counter() - start, 3)}

    def grid(self, iteration: int) -> Path | None:
        """Return the file of an evaluation's images side by side, None where there is none."""
        path = self._out / FOLDER / f"{iteration:06}.jpg"
        return path if path.is_file() else None

    def _judged(self, rewarded: Rewarded, texts: list[str]) -> np.ndarray | None:
        """Return the held-out score of each prompt; 0 where there is no image."""
        if self._heldout is None:
            return None
        values = np.zeros(len(texts), np.float32)
        full = [place for place, image in enumerate(rewarded.images) if image is not None]
        if full:
            images = [rewarded.images[place] for place in full]
            values[full] = np.asarray(self._heldout(images, [texts[place] for place in full]))
        return values

    def _save(
        self, iteration: int, answers: list[Answer], rewarded: Rewarded, reward: np.ndarray
    ) -> None:
        lines = [
            json.dumps(
                {
                    "id": name,
                    "prompt": text,
                    "answer": answer.text,
                    "ended": answer.ended,
                    "rewritten": rewritten,
                    "reward": float(value),
                    "components": {k: float(v[row]) for k, v in rewarded.values.items()},
                },
                ensure_ascii=False,
            )
            for row, ((name, text), answer, rewritten, value) in enumerate(
                zip(self.prompts.items(), answers, rewarded.prompts, reward, strict=True)
            )
        ]
        path = self._out / FOLDER / f"{iteration:06}.jsonl"
        data = ("\n".join(lines) + "\n").encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda partial: partial.write_bytes(data))
        except OSError as error:
            raise RealBenchError(f"cannot write {printable(path)}: {error.strerror}") from error
        self._save_images(iteration, rewarded.images)

    def _save_images(self, iteration: int, images: tuple[Image.Image | None, ...]) -> None:
        import torch

        from realbench.train.evaluation import EvaluationSet

        made = next((one for one in images if one is not None), None)
        if made is None:
            return
        blank = np.full((made.height, made.width, 3), 255, np.uint8)
        arrays = [blank if one is None else np.asarray(one.convert("RGB")) for one in images]
        tensor = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        named = EvaluationSet.of(self.prompts, 1)
        save_samples(self._out, iteration, tensor, named)
        save_grid(self._out, iteration, tensor, self._columns)
