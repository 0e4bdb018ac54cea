"""The figures of an entry, computed from its own images and comparisons.

``add`` writes them and ``verify`` computes them again, from the same rounded numbers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from realbench import stats
from realbench.detection.ensemble import weights
from realbench.leaderboard.schema import DetectorScores, Estimate, Fused, ImageScore
from realbench.stats.bootstrap import clustered_wilson, resampled_means
from realbench.text import visible

DIGITS = 6
WRITE_AGAIN = "write the entry again with realbench leaderboard add"
# What another machine's rounding may change in the sixth decimal.
_TOLERANCE = 2e-6
RESAMPLES = 2000
SCORE_OF = {"W": 1.0, "T": 0.5, "L": 0.0}


def round_figure(value: float) -> float | None:
    """Round a figure as entries hold it; None where it is not finite."""
    return round(float(value), DIGITS) if np.isfinite(value) else None


def detector_figures(
    images: Sequence[ImageScore],
    detectors: Sequence[str],
    category_of: Mapping[str, str | None],
    seed: int,
) -> dict[str, Estimate | dict[str, Estimate]]:
    """Compute the estimates of :class:`DetectorScores`.

    Args:
        images: at least one.
        detectors: names, in the order of the images' scores.
        category_of: the suite's prompt ids and their categories.
        seed: of the bootstrap.
    """
    prompts = np.array([image[0] for image in images], dtype=object)
    realism = np.array([image[2] for image in images])
    each = np.array([image[3] for image in images]).reshape(len(images), len(detectors))
    groups = [category_of.get(prompt) for prompt in prompts]
    categories = {}
    for category in dict.fromkeys(one for one in category_of.values() if one):
        own = np.array([group == category for group in groups])
        if own.any():
            categories[category] = mean_estimate(realism[own], prompts[own], seed)
    return {
        "realism": mean_estimate(realism, prompts, seed),
        "escape_rate": estimate_of(stats.bootstrap_share(realism > 0.5, prompts, seed=seed)),
        "per_detector": {
            name: mean_estimate(each[:, n], prompts, seed) for n, name in enumerate(detectors)
        },
        "categories": categories,
    }


def mean_estimate(values: np.ndarray, prompts: np.ndarray, seed: int) -> Estimate:
    """Mean of ``values`` (n,), float, with its interval over ``prompts`` (n,)."""
    return estimate_of(stats.bootstrap_mean(values, prompts.astype(str), seed=seed))


def estimate_of(interval: stats.Interval) -> Estimate:
    """Return an interval as entries hold it."""
    return Estimate(
        mean=round(float(interval.estimate), DIGITS),
        low=round_figure(interval.low),
        high=round_figure(interval.high),
        n=interval.n,
        n_prompts=interval.n_groups,
    )


def win_rate(opponents: Mapping[str, str], prompts: Sequence[str], seed: int) -> Estimate:
    """Mean score over all comparisons, with Wilson's interval (:func:`stats.bootstrap_share`)."""
    totals: dict[str, list[float]] = {}
    for letters in opponents.values():
        for prompt, letter in zip(prompts, letters, strict=True):
            if letter != "-":
                totals.setdefault(prompt, []).append(SCORE_OF[letter])
    if not totals:
        return Estimate(mean=0.0, low=None, high=None, n=0, n_prompts=0)
    sums = np.array([sum(scores) for scores in totals.values()])
    counts = np.array([float(len(scores)) for scores in totals.values()])
    mean, n = float(sums.sum() / counts.sum()), int(counts.sum())
    low = high = float("nan")
    if len(sums) > 1:
        draws = resampled_means(np.random.default_rng(seed), sums, counts, RESAMPLES)
        low, high = clustered_wilson(mean, float(draws.std()), n, len(sums), 0.95)
    return estimate_of(stats.Interval(mean, low, high, n, len(sums)))


def letters_of(opponents: Mapping[str, str]) -> dict[str, int]:
    """How many comparisons were won (W), tied (T) and lost (L)."""
    joined = "".join(opponents.values())
    return {letter: joined.count(letter) for letter in SCORE_OF}


def possible_realism(scores: DetectorScores) -> tuple[np.ndarray, np.ndarray]:
    """Between which values each image's realism must lie, float64 (n,) each.

    The ensemble's logit is computed again from the detectors' P(real), which the file has to six
    decimals; near 0 and 1 that leaves logits open, hence bounds.
    """
    share = weights({one.name: one.level for one in scores.detectors})
    parts = [one.fused or Fused(weight=share[one.name], offset=0.0) for one in scores.detectors]
    weight, offset = np.array([one.weight for one in parts]), sum(one.offset for one in parts)
    each = np.array([image[3] for image in scores.images])
    half = 0.5 * 10.0**-DIGITS
    bounds = []
    for side in (-half, half):
        p = np.clip(each + 1.2 * side, 0.0, 1.0)  # float32 rounds, too
        with np.errstate(divide="ignore", invalid="ignore"):
            logits = np.log(p) - np.log1p(-p)
            logit = (np.clip(logits, -1e4, 1e4) * weight).sum(axis=1) + offset
        bounds.append(0.5 * (1 + np.tanh(0.5 * logit)) + 1.5 * side)
    return bounds[0], bounds[1]


def pack_features(values: np.ndarray) -> list[str]:
    """Return features (n, d) as an entry holds them, a text per image; see ``ImageFeatures``."""
    scales = (np.abs(values).max(axis=1) / 127).astype("<f4")
    integers = np.rint(values / scales[:, None]).astype(np.int8)
    parts = zip(scales, integers, strict=True)
    return [base64.b64encode(s.tobytes() + row.tobytes()).decode() for s, row in parts]


def unpack_features(vectors: Sequence[str], size: int) -> np.ndarray:
    """Return features, float32 (n, size), of an entry's texts.

    Raises:
        ValueError: one is no such vector.
    """
    found = np.empty((len(vectors), size), np.float32)
    for n, text in enumerate(vectors):
        data = base64.b64decode(text, validate=True)
        if len(data) != 4 + size:
            raise ValueError(f"vector {n} has {len(data) - 4} values, not {size}")
        found[n] = np.frombuffer(data, "<f4", 1) * np.frombuffer(data, np.int8, offset=4)
        if not (np.isfinite(found[n]).all() and found[n].any()):
            raise ValueError(f"vector {n} is zero or no number")
    return found


def estimate_problems(key: str, stated: Estimate, found: Estimate) -> Iterator[str]:
    """Yield how a stated estimate differs from the one that the data give."""
    for part in ("mean", "low", "high", "n", "n_prompts"):
        told, true = getattr(stated, part), getattr(found, part)
        same = told == true if told is None or true is None else abs(told - true) <= _TOLERANCE
        if not same:
            yield f"{key}.{part} is {told}, but its own data give {true}: {WRITE_AGAIN}"


_PLAIN_MARKDOWN = re.compile(r"[\w ,()'/;–−-]", re.UNICODE)
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after \\ a bracket would be its option
    "]": "{]}",
    "–": "--",
    "−": "$-$",
}


def markdown(text: str) -> str:
    """Return a text for Markdown: what could be syntax, or start a link, is a character reference.

    CommonMark takes character references for text, never for structure (section 2.5 of its
    specification); that holds inside table cells, too.
    """
    shown = _one_line(text)
    # Addresses become links without any syntax, and so do mentions in an issue's comment.
    return "".join(
        one
        if one != "_"
        and (_PLAIN_MARKDOWN.match(one) or one == ".")
        and not (one == "." and shown[max(0, n - 3) : n].lower() == "www")
        else f"&#{ord(one)};"
        for n, one in enumerate(shown)
    )


def code(text: str) -> str:
    """Return a text as inline code in Markdown, inside which no mention or issue becomes a link."""
    return f"<code>{markdown(text)}</code>"


def latex(text: str) -> str:
    """Return a text for LaTeX: every special character is spelled by a command."""
    return "".join(_LATEX.get(one, one) for one in _one_line(text))


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", visible(text))
