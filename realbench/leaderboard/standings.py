"""A board's ranking: what the entries' data say when they are put beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, cast

import numpy as np
import pandas as pd

from realbench import stats
from realbench.arena import bradley_terry
from realbench.arena.tally import FloatArray, Tally, tally
from realbench.arena.votes import Comparison
from realbench.distances.compare import DINO, RankedEstimate, compare
from realbench.leaderboard.arena_checks import told_results
from realbench.leaderboard.board import DISTANCES, Board
from realbench.leaderboard.figures import SCORE_OF, estimate_of, unpack_features
from realbench.leaderboard.schema import DetectorScores, Entry, Estimate
from realbench.leaderboard.verify import Verified
from realbench.stats.bootstrap import draw_weights
from realbench.stats.record import Estimate as Found

_RESAMPLES = 1000
_FEWEST = 5  # models; the orders of fewer say nothing


@dataclass(frozen=True)
class RankAgreement:
    """Rank correlations of realism and arena rating, each in [-1, 1].

    Attributes:
        spearman, kendall: Spearman's rho and Kendall's tau-b with 95 % intervals; ``n`` is the
            number of models.
    """

    spearman: Estimate
    kendall: Estimate


def rank_agreement(
    scores: Mapping[str, DetectorScores], comparisons: Sequence[Comparison], seed: int
) -> RankAgreement | None:
    """Correlate the order by mean realism with that by Bradley–Terry rating.

    The intervals' bootstrap draws prompts and models, each with replacement and independently
    (the pigeonhole bootstrap of Owen 2007, Annals of Applied Statistics 1:386-411), and computes
    both scores again from the drawn prompts.

    Args:
        scores: of the models whose order counts.
        comparisons: also with contestants, such as photographs, that are not among them.

    Returns:
        None where fewer than five models have both scores.
    """
    met = {name for one in comparisons for name in (one.a, one.b)}
    names = [name for name in sorted(scores) if name in met]
    if len(names) < _FEWEST:
        return None
    counted = tally(comparisons, sorted(met))
    prompts = sorted({*counted.prompts, *(i[0] for name in names for i in scores[name].images)})
    rng = np.random.default_rng(seed)
    every = np.ones((1, len(prompts)))
    weights = np.vstack([every, draw_weights(rng, len(prompts), _RESAMPLES)])
    realism = _realism(scores, names, prompts, weights)
    ratings = _ratings(counted, prompts, weights)[:, [counted.contestants.index(n) for n in names]]
    drawn = rng.integers(0, len(names), (_RESAMPLES, len(names)))
    models = np.vstack([np.arange(len(names)), drawn])
    found = np.array(
        [_correlations(x[m], y[m]) for x, y, m in zip(realism, ratings, models, strict=True)]
    )
    several = len(prompts) > 1
    spearman, kendall = (_estimate(one, len(names), len(prompts), several) for one in found.T)
    if spearman is None or kendall is None:
        return None
    return RankAgreement(spearman, kendall)


def _realism(
    scores: Mapping[str, DetectorScores],
    names: Sequence[str],
    prompts: Sequence[str],
    weights: FloatArray,
) -> FloatArray:
    """Mean realism of each model over the drawn prompts, float64 (rows, k); nan for none."""
    place = {prompt: n for n, prompt in enumerate(prompts)}
    sums, counts = np.zeros((2, len(prompts), len(names)))
    for n, name in enumerate(names):
        for prompt, _, realism, _ in scores[name].images:
            sums[place[prompt], n] += realism
            counts[place[prompt], n] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray((weights @ sums) / (weights @ counts))


def _ratings(counted: Tally, prompts: Sequence[str], weights: FloatArray) -> FloatArray:
    """Bradley–Terry ratings over the drawn prompts, float64 (rows, contestants)."""
    own = weights[:, [prompts.index(prompt) for prompt in counted.prompts]]
    counts, scores = counted.by_prompt
    ties = bradley_terry.virtual_ties(counted)
    wins, totals = np.asarray(own @ scores) + ties / 2, np.asarray(own @ counts) + ties
    return bradley_terry.resampled(counted, bradley_terry.bradley_terry(counted), wins, totals)


def _correlations(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    from scipy import stats

    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known].round(9), y[known].round(9)
    if len(np.unique(x)) < 2 or len(np.unique(y)) < 2:
        return float("nan"), float("nan")
    return float(stats.spearmanr(x, y).statistic), float(stats.kendalltau(x, y).statistic)


def _estimate(found: FloatArray, n: int, n_prompts: int, several: bool) -> Estimate | None:
    if not np.isfinite(found[0]):
        return None
    low, high = np.nanquantile(found[1:], [0.025, 0.975]) if several else (None, None)
    return Estimate(
        mean=round(float(found[0]), 3),
        low=None if low is None else round(float(low), 3),
        high=None if high is None else round(float(high), 3),
        n=n,
        n_prompts=n_prompts,
    )


_SIGNIFICANCE = 0.05
_RATING_RESAMPLES = 1000
# Ranks follow from the t-test's p-values, which no resample changes.
_UNUSED_RESAMPLES = 1


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        slug: the entry's file without ``.json``.
        entry: as it was read.
        rank: how many entries are surely better, and one; None for an anchor. Entries that the
            data cannot separate share it.
        rank_high: the last rank that the data allow.
        values: an estimate by column: ``realism``, ``escape_rate``, ``auc``, ``arena``,
            ``win_rate``, ``detector:NAME``, ``category:NAME`` and the distances; what there is.
        ranks: by each distance, the first and last rank that the data allow.
    """

    slug: str
    entry: Entry
    rank: int | None
    rank_high: int | None
    values: dict[str, Estimate] = field(default_factory=dict)
    ranks: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.entry.model.name

    @property
    def is_anchor(self) -> bool:
        return self.rank is None


@dataclass(frozen=True)
class Standings:
    """A board's table: the anchors, and the entries best first.

    Attributes:
        board: whose table it is.
        anchors, rows: its lines.
        columns: the keys of ``values`` that are shown, in order.
        n_pairs, n_separated: of the pairs of entries, and how many the data separate.
        agreement: of realism and arena rating, where both are columns.
        n_distances: of how many pictures of each, and photographs, the distances are; 0 for none.
    """

    board: Board
    anchors: list[Row]
    rows: list[Row]
    columns: list[str]
    n_pairs: int
    n_separated: int
    agreement: RankAgreement | None = None
    n_distances: int = 0


def rank_board(verified: Verified) -> Standings:
    """Rank a board's entries; see :class:`Row`."""
    board = verified.board
    by = board.settings.rank_by
    comparisons = _comparisons(verified)
    ratings, apart = _arena(comparisons, board.settings.seed)
    values = {
        key: _values(board, entry, verified.anchors)
        for key, entry in {**verified.anchors, **verified.entries}.items()
    }
    for key, rating in ratings.items():
        values[key]["arena"] = rating
    far, n_distances = _distances(verified)
    for key, figures in far.items():
        values[key] |= {column: _figure(one) for column, one in figures.items()}
    keys = [key for key in verified.entries if by in values[key]]
    if by == "realism":
        apart = _separated(keys, verified.entries)
    places = {key: n for n, key in enumerate(keys)}
    means = [values[key][by].mean for key in keys]
    pairs = [
        (places[a], places[b])
        for (a, b), gap in apart.items()
        if a in places and b in places and (gap > 0) == (means[places[a]] > means[places[b]])
    ]
    ranges = stats.rank_sets(means, pairs)
    rows = [
        Row(key, verified.entries[key], *ranges[n], values[key], _ranks(far.get(key, {})))
        for n, key in enumerate(keys)
    ]
    # By the mean: one supported pair among many models must not move one of them to the end.
    rows.sort(key=lambda row: (-row.values[by].mean, row.rank, row.slug))
    anchors = [
        Row(key, entry, None, None, values[key]) for key, entry in sorted(verified.anchors.items())
    ]
    return Standings(
        board,
        anchors,
        rows,
        _columns(board),
        n_pairs=len(keys) * (len(keys) - 1) // 2,
        n_separated=len(pairs),
        agreement=_agreement(verified, comparisons),
        n_distances=n_distances,
    )


def _agreement(verified: Verified, comparisons: Sequence[Comparison]) -> RankAgreement | None:
    settings = verified.board.settings
    if not {"realism", "arena"} <= set(settings.columns):
        return None
    scores = {
        key: entry.detector_scoring
        for key, entry in verified.entries.items()
        if entry.detector_scoring is not None
    }
    return rank_agreement(scores, comparisons, settings.seed)


def _columns(board: Board) -> list[str]:
    found: list[str] = []
    for column in board.settings.columns:
        if column == "detectors":
            found += [f"detector:{one.name}" for one in board.settings.detectors]
        elif column == "categories":
            found += [f"category:{name}" for name in board.suite.categories]
        else:
            found.append(column)
    return found


def _values(board: Board, entry: Entry, anchors: Mapping[str, Entry]) -> dict[str, Estimate]:
    scores = entry.detector_scoring
    found: dict[str, Estimate] = {}
    if scores is not None:
        found |= {"realism": scores.realism, "escape_rate": scores.escape_rate}
        found |= {f"detector:{name}": one for name, one in scores.per_detector.items()}
        found |= {f"category:{name}": one for name, one in scores.categories.items()}
        area = _auc(board, entry, anchors) if "auc" in board.settings.columns else None
        if area is not None:
            found["auc"] = area
    if entry.arena_scoring is not None:
        found["win_rate"] = entry.arena_scoring.win_rate
    return found


def _auc(board: Board, entry: Entry, anchors: Mapping[str, Entry]) -> Estimate | None:
    """How well realism tells the board's photographs from an entry's images; 0.5 is not at all."""
    scores = entry.detector_scoring
    photos = _photographs(board, entry, anchors)
    if photos is None or scores is None or scores is photos:
        return None
    found = stats.bootstrap_auc(
        *([image[2] for image in one.images] for one in (photos, scores)),
        *([image[0] for image in one.images] for one in (photos, scores)),
        seed=board.settings.seed,
    )
    return estimate_of(found)


def _photographs(board: Board, entry: Entry, anchors: Mapping[str, Entry]) -> DetectorScores | None:
    """The photographs that an entry is measured against: the same fold's, else the first."""
    found = [
        scores
        for key, about in board.anchor_slugs.items()
        if about.is_photographs
        and key in anchors
        and (scores := anchors[key].detector_scoring) is not None
    ]
    if entry.detector_scoring is None or not found:
        return None
    prints, *others = (
        {one.fingerprint for one in scores.detectors} for scores in (entry.detector_scoring, *found)
    )
    return found[others.index(prints)] if prints in others else found[0]


def _distances(verified: Verified) -> tuple[dict[str, dict[str, Any]], int]:
    """Compare all entries that have features with the board's photographs, at one n.

    Returns:
        by entry the figures by column, for the photographs those of one half against the other;
        and n.
    """
    settings = verified.board.settings
    photographs = next(
        (key for key, about in verified.board.anchor_slugs.items() if about.is_photographs), ""
    )
    images = {
        key: (one.images, one.features.vectors)
        for key, entry in {**verified.anchors, **verified.entries}.items()
        if (one := entry.detector_scoring) is not None and one.features is not None
    }
    if settings.features is None or photographs not in images:
        return {}, 0
    rows = [
        (key, digest, prompt, "ok")
        for key, (own, _) in images.items()
        for prompt, digest, *_ in own
    ]
    table = pd.DataFrame(rows, columns=["folder", "image", "prompt_id", "status"])
    vectors = [one for _, own in images.values() for one in own]
    features = {DINO: unpack_features(vectors, settings.features.size)}
    models = [key for key in images if key in verified.entries]
    record, _ = compare(table, photographs, models, features, [], settings.seed)
    if record is None:
        return {}, 0
    found: dict[str, Mapping[str, Any]] = {photographs: record["photographs"]}
    found |= {one["folder"]: one["figures"] for one in record["folders"] if one["figures"]}
    columns = [one for one in DISTANCES if one in settings.columns]
    return {
        key: {column: own[DISTANCES[column]] for column in columns} for key, own in found.items()
    }, record["n"]


def _figure(found: RankedEstimate | Found) -> Estimate:
    # Other machines' linear algebra rounds otherwise, from the fifth digit on.
    mean, low, high = (
        None if one is None else round(one, 3)
        for one in (found["estimate"], found["low"], found["high"])
    )
    n = found["n"]
    return Estimate(mean=mean or 0.0, low=low, high=high, n=n, n_prompts=found.get("n_groups", n))


def _ranks(figures: Mapping[str, RankedEstimate]) -> dict[str, tuple[int, int]]:
    return {column: (one["rank_low"], one["rank_high"]) for column, one in figures.items()}


# --- Which entries the data separate -----------------------------------------------------------


def _separated(keys: Sequence[str], entries: Mapping[str, Entry]) -> dict[tuple[str, str], float]:
    """Return the pairs whose difference in realism is significant, with the difference.

    Pairs are compared on the prompts that both have; p-values are adjusted by Holm's method.
    """
    data = {
        key: (np.array([i[2] for i in scores.images]), np.array([i[0] for i in scores.images]))
        for key in keys
        if (scores := entries[key].detector_scoring) is not None
    }
    pairs = list(combinations(data, 2))
    found = [
        stats.paired_difference(
            data[a][0], data[b][0], data[a][1], data[b][1], resamples=_UNUSED_RESAMPLES
        )
        for a, b in pairs
    ]
    adjusted = stats.holm([one.p_value for one in found])
    return {
        pair: one.interval.estimate
        for pair, one, p in zip(pairs, found, adjusted, strict=True)
        if p < _SIGNIFICANCE
    }


def _comparisons(verified: Verified) -> list[Comparison]:
    """Return the comparisons of all that met on the board, from what their entries tell.

    One that both of its entries tell, from one run, counts once; opponents without an entry do
    not count.
    """
    judge = verified.board.settings.judge
    if judge is None:
        return []
    every = {**verified.anchors, **verified.entries}
    met: dict[tuple[str, str, str, str], float] = {}
    for key, told in told_results(every).items():
        arena = every[key].arena_scoring
        for other, letters in told.items() if arena else ():
            a, b = sorted((key, other))
            for prompt, letter in letters.items():
                score = SCORE_OF[letter] if a == key else 1 - SCORE_OF[letter]
                met.setdefault((arena.run, prompt, a, b), score)  # type: ignore[union-attr]
    return [
        Comparison(judge.name, prompt, a, b, score, None)
        for (_, prompt, a, b), score in sorted(met.items())
    ]


def _arena(
    comparisons: Sequence[Comparison], seed: int
) -> tuple[dict[str, Estimate], dict[tuple[str, str], float]]:
    """Return the Bradley–Terry ratings of all that met, and the differences of pairs apart."""
    from realbench.arena.ratings import rate

    if not comparisons:
        return {}, {}
    names = sorted({name for one in comparisons for name in (one.a, one.b)})
    ratings = rate(comparisons, names, resamples=_RATING_RESAMPLES, seed=seed)
    standing = ratings["judges"][comparisons[0].judge]
    values = {
        row["contestant"]: Estimate(
            mean=rating["estimate"],
            low=rating["low"],
            high=rating["high"],
            n=row["n_comparisons"],
            n_prompts=row["n_prompts"],
        )
        for row in standing["ratings"]
        if (rating := row["bradley_terry"])["estimate"] is not None
    }
    return values, {
        (pair["a"], pair["b"]): cast(float, pair["difference"]["estimate"])
        for pair in standing["pairs"]
        if not pair["tied"]
    }
