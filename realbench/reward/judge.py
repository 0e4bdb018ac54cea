"""An arena judge as a reward: is the image more real than a reference image of its prompt?"""

from __future__ import annotations

import hashlib
import tempfile
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from realbench.arena.judges import JudgeOptions, make_judge
from realbench.arena.judges.judge import Judge, Judgment, Picture, Showing
from realbench.detection.ensemble import probability
from realbench.detection.registry import DEFAULT_DETECTORS
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.images import ImageFile, find_images, read_bytes_and_hash, read_image
from realbench.prompts import load_suite
from realbench.reward.config import JudgeConfig, Named
from realbench.scoring.scorer import Scorer
from realbench.sets.naming import set_photographs

_GENERATED, _REFERENCE = "generated", "reference"


class References:
    """The reference image of each prompt.

    Args:
        folder: Images named by prompt id.
        prompts: The suite, or file, of these ids.

    Raises:
        UsageError: folder or prompts cannot be used, no prompt has an image, or two prompts of
            one text have different images.
    """

    def __init__(self, folder: str, prompts: str) -> None:
        files = {one.prompt_id: one for one in find_images(set_photographs(folder))}
        self._files: dict[str, ImageFile] = {}
        self._of = f"of {prompts} in {folder}"
        for prompt in load_suite(prompts).prompts.values():
            if prompt.id not in files:
                continue
            for text in filter(None, (prompt.prompt, prompt.prompt_long)):
                known = self._files.setdefault(_plain(text), files[prompt.id])
                if known.prompt_id != prompt.id:
                    raise UsageError(
                        f"the prompts {known.prompt_id} and {prompt.id} of {prompts} have one "
                        "text and two reference images: keep one of them"
                    )
        if not self._files:
            raise UsageError(f"no image in {folder} is named by a prompt id of {prompts}")

    def __getitem__(self, prompt: str) -> ImageFile:
        """Return the file for a prompt's text, the short form or the long one.

        Raises:
            UsageError: there is none.
        """
        try:
            return self._files[_plain(prompt)]
        except KeyError:
            shown = prompt if len(prompt) <= 60 else f"{prompt[:59]}…"
            raise UsageError(f"no reference image {self._of} for the prompt {shown!r}") from None


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", " ".join(text.split()))


class DetectorPreference(Named):
    """The judge ``detectors``: P(image is more real) from the two images' logits.

    As in the arena it is the sigmoid of the difference of the detectors' mean logits; a reference
    is scored once.
    """

    def __init__(self, config: JudgeConfig, device: str = "auto") -> None:
        super().__init__(config)
        self._references = References(config.references, config.prompts)
        self._scorer = Scorer(config.detectors or DEFAULT_DETECTORS, device=device)
        self._known: dict[Path, float] = {}

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        files = [self._references[prompt].path for prompt in prompts]
        new = [path for path in dict.fromkeys(files) if path not in self._known]
        for path in new:  # one at a time: photographs may be large
            self._known[path] = float(self._logits([read_image(path)])[0])
        reference = np.array([self._known[path] for path in files])
        return probability(self._logits(images) - reference)

    def _logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        logits = self._scorer(images).logits
        return np.sum(
            [w * logits[name].astype(float) for name, w in self._scorer.shares.items()], axis=0
        )

    def describe(self) -> dict[str, Any]:
        detectors = [
            {"name": name, "weight": self._scorer.shares[name], "fingerprint": one.fingerprint}
            for name, one in self._scorer.detectors.items()
        ]
        return {"kind": "judge", "judge": "detectors", "detectors": detectors}


class JudgeComponent(Named):
    """A vision-language judge of the arena, asked in both orders.

    The reward is the mean over the orders of its P(the image is the more real one): the judge's
    own probability where it gives one, else 1, 1/2 (a tie) or 0. A showing without a usable answer
    counts as a tie, and in ``invalid``.

    Attributes:
        invalid: Showings without a usable answer so far.
        asked: Showings so far.
    """

    def __init__(self, config: JudgeConfig, judge: Judge) -> None:
        super().__init__(config)
        self._references = References(config.references, config.prompts)
        self._judge = judge
        self._hashes: dict[Path, str] = {}
        self.invalid = 0
        self.asked = 0

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        with tempfile.TemporaryDirectory(prefix="realbench-judge-") as folder:
            showings = list(self._showings(images, prompts, Path(folder)))
            answers: dict[tuple[int, bool], float] = {}
            for showing, judgment in self._judge.judge(iter(showings)):
                if judgment is None:
                    continue
                first = showing.first.contestant == _GENERATED
                answers[int(showing.prompt_id), first] = self._score(judgment, first)
        missing = [n for n in range(len(images)) if not {(n, True), (n, False)} <= answers.keys()]
        if missing:
            raise RealBenchError(f"the judge {self._judge.name} left out {len(missing)} images")
        return np.array(
            [(answers[n, True] + answers[n, False]) / 2 for n in range(len(images))], np.float32
        )

    def _showings(
        self, images: Sequence[np.ndarray], prompts: Sequence[str], folder: Path
    ) -> Iterator[Showing]:
        from PIL import Image

        for n, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            path = folder / f"{n}.png"
            Image.fromarray(image).save(path, compress_level=1)
            generated = Picture(_GENERATED, path, hashlib.sha256(path.read_bytes()).hexdigest())
            file = self._references[prompt].path
            if file not in self._hashes:
                self._hashes[file] = read_bytes_and_hash(file)[1]
            reference = Picture(_REFERENCE, file, self._hashes[file])
            # The id is the image's place in the batch: one prompt has many images.
            showing = Showing(str(n), prompt, generated, reference)
            yield showing
            yield showing.swapped()

    def _score(self, judgment: Judgment, first: bool) -> float:
        self.asked += 1
        if judgment.verdict == "invalid":
            self.invalid += 1
            if self.invalid == 1:
                warnings.warn(
                    RealBenchWarning(
                        f"{self.name}: an answer of {self._judge.name} was of no use and counts "
                        "as a tie; further ones are counted, not shown"
                    ),
                    stacklevel=3,
                )
            return 0.5
        score = judgment.probability
        if score is None:
            score = {"first": 1.0, "tie": 0.5, "second": 0.0}[judgment.verdict]
        return score if first else 1 - score

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "judge",
            "judge": self._judge.name,
            "fingerprint": self._judge.fingerprint,
            "settings": self._judge.describe(),
        }


def judge_component(
    config: JudgeConfig, device: str = "auto"
) -> DetectorPreference | JudgeComponent:
    """Load the judge that a configuration names.

    Raises:
        UsageError: there is no such judge, or it is a person.
        RealBenchError: it cannot work here.
    """
    if config.judge == "detectors":
        return DetectorPreference(config, device)
    if config.judge.partition(":")[0] == "human":
        raise UsageError("a person is no reward: take the judge detectors, hf: or openai:")
    if config.detectors:
        raise UsageError(f"detectors are of the judge detectors, not of {config.judge}")
    options = JudgeOptions(
        device=device,
        base_url=config.base_url,
        api_key_env=config.api_key_env,
        template=config.template,
    )
    return JudgeComponent(config, make_judge(config.judge, options))
