"""Folders against photographs: equal numbers, the yardstick, intervals, ranks and ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NotRequired

import numpy as np
import pandas as pd
from pydantic import with_config
from scipy import special
from typing_extensions import TypedDict

from realbench.distances import figures
from realbench.distances.figures import Compute, Features, Side, Term
from realbench.runs.folder import Open
from realbench.stats import Interval, holm, rank_sets
from realbench.stats.bootstrap import ROUNDING, draw_weights, expanded_percentiles, row_blocks
from realbench.stats.record import Estimate, estimate

RESAMPLES = 2000
CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
FEWEST = 10  # pictures of a folder; fewer have no distance
PLENTY = 200

DINO, INCEPTION, CLIP = "dinov2-small", "inception-fid", "clip-vit-large-336"


@dataclass(frozen=True)
class Kind:
    """A figure: what it is called, of which network's features it is, and how it is read."""

    title: str
    features: str
    lower_is_closer: bool = True
    digits: int = 2


KINDS = {
    "auc": Kind("Two-sample AUC", DINO),
    "fd": Kind("FD, DINOv2", DINO, digits=0),
    "kd": Kind("KD, DINOv2", DINO),
    "precision": Kind("Precision", DINO, lower_is_closer=False),
    "recall": Kind("Recall", DINO, lower_is_closer=False),
    "density": Kind("Density", DINO, lower_is_closer=False),
    "coverage": Kind("Coverage", DINO, lower_is_closer=False),
    "fid": Kind("FID", INCEPTION, digits=1),
    "kid": Kind("KID", INCEPTION, digits=4),
    "cmmd": Kind("CMMD", CLIP),
}


class RankedEstimate(TypedDict):
    """A folder's figure, and the ranks that the data allow it; 1 is closest to photographs."""

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    n_groups: NotRequired[int]
    rank: int
    rank_low: int
    rank_high: int


@with_config(Open)
class FeaturesUsed(TypedDict):
    """A network whose features were compared.

    Attributes:
        fingerprint: also of what was done to the pictures before, as ``--matched``.
    """

    name: str
    title: str
    fingerprint: str


@with_config(Open)
class FolderDistances(TypedDict):
    """A folder's figures by name; none where it has too few pictures."""

    folder: str
    figures: dict[str, RankedEstimate]


@with_config(Open)
class Distances(TypedDict):
    """Distances of folders from photographs.

    Attributes:
        n: pictures of each folder, and photographs, that every figure is of.
        photographs: the figures of one half of the photographs against the other.
    """

    n: int
    features: list[FeaturesUsed]
    photographs: dict[str, Estimate]
    folders: list[FolderDistances]


def _dino(photographs: Side, pictures: Side, seed: int) -> dict[str, Term]:
    """Figures on DINOv2: the two-sample test on the middle block, all others on the last."""
    (last, middle), (last_too, middle_too) = _halves(photographs), _halves(pictures)
    return (
        figures.two_sample(middle, middle_too, seed)
        | figures.frechet(last, last_too)
        | figures.kernel_distance(last, last_too)
        | figures.neighbourhoods(last, last_too, seed)
    )


def _halves(side: Side) -> tuple[Side, Side]:
    first, second = np.hsplit(side.features, 2)
    return Side(np.ascontiguousarray(first), side.groups), Side(
        np.ascontiguousarray(second), side.groups
    )


def _inception(photographs: Side, pictures: Side, seed: int) -> dict[str, Term]:
    found = figures.frechet(photographs, pictures) | figures.kernel_distance(photographs, pictures)
    return {"fid": found["fd"], "kid": found["kd"]}


COMPUTE: Mapping[str, Compute] = {DINO: _dino, INCEPTION: _inception, CLIP: figures.cmmd}


def compare(
    table: pd.DataFrame,
    reference: str,
    folders: Sequence[str],
    features: Mapping[str, Features],
    networks: list[FeaturesUsed],
    seed: int = 0,
) -> tuple[Distances | None, list[str]]:
    """Compare each folder with the photographs, and these with one another.

    All comparisons are of n pictures with n photographs, where n is the size of the smallest
    folder, or half the number of photographs where that is less: one half is compared with the
    folders and with the other half. Folders that share prompts are compared on the same ones.
    Intervals are of a bootstrap that draws prompts, those that several folders have for all of
    them together, so that differences are of the same draws.

    Args:
        table: a row a picture, with ``folder``, ``image``, ``prompt_id`` and ``status``. It gains
            ``map_x``, ``map_y`` (two principal components), ``typicality`` (the two-sample
            test's score of a picture in the sample) and ``nearest_photograph``.
        reference: the photographs' folder.
        folders: all others.
        features: by network, (n, d) of the table's rows; of rows that do not count, anything.
        networks: the records of these.
        seed: of the sample, the folds and the bootstrap.

    Returns:
        the record, None where there are too few pictures; and what the user should know.
    """
    counted = {name: _rows(table, name, seed) for name in (reference, *folders)}
    photographs = counted.pop(reference)
    few = [name for name, rows in counted.items() if len(rows) < FEWEST]
    notes = [
        f"distances: {name} has {len(counted[name])} pictures, fewer than {FEWEST}: left out"
        for name in few
    ]
    used = [name for name in folders if name not in few]
    n = min([len(photographs) // 2, *(len(counted[name]) for name in used)])
    if not used or n < FEWEST:
        notes.append(
            f"distances: {len(photographs)} photographs are too few (at least {2 * FEWEST})"
            if used
            else "distances: no folder has enough pictures"
        )
        return None, notes
    notes += _notes(n, len(photographs), {name: len(counted[name]) for name in used})
    half, other = photographs[:n], photographs[-n:]
    groups = table["prompt_id"].to_numpy(str)
    sets = {reference: other} | {name: counted[name][:n] for name in used}
    terms: dict[str, dict[str, Term]] = {name: {} for name in sets}
    for network, values in features.items():
        for name, rows in sets.items():
            both = Side(values[half], groups[half]), Side(values[rows], groups[rows])
            terms[name] |= COMPUTE[network](*both, seed)
    order = [kind for kind in KINDS if kind in terms[reference]]
    draws = resampled(terms, groups[half], {k: groups[rows] for k, rows in sets.items()}, seed)
    yardstick = {kind: estimate(draws[reference, kind][1]) for kind in order}
    ranked = {kind: _ranked(kind, used, terms, draws) for kind in order}
    _add_columns(table, features[DINO], photographs, counted, sets, terms)
    record: Distances = {
        "n": n,
        "features": networks,
        "photographs": yardstick,
        "folders": [
            {
                "folder": name,
                "figures": {kind: ranked[kind][name] for kind in order if name in used},
            }
            for name in folders
        ],
    }
    return record, notes


def _rows(table: pd.DataFrame, folder: str, seed: int) -> np.ndarray:
    """Return the rows that count, in a random order of prompts that all folders share."""
    rows = np.flatnonzero((table["folder"] == folder) & (table["status"] == "ok"))
    prompts, codes = np.unique(table["prompt_id"].to_numpy(str), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(prompts))
    return rows[np.argsort(place[codes[rows]], kind="stable")]


def _notes(n: int, photographs: int, sizes: Mapping[str, int]) -> list[str]:
    smallest = min(sizes, key=lambda name: sizes[name])
    why = (
        f"half of the {photographs} photographs"
        if photographs // 2 <= sizes[smallest]
        else f"the size of {smallest}"
    )
    notes = [f"distances are of {n} pictures with {n} photographs ({why}), as they depend on n"]
    if n < PLENTY:
        notes.append(
            f"distances of {n} pictures are uncertain, and the two-sample test learns little from "
            f"them: take {PLENTY} or more of each folder, and {2 * PLENTY} photographs"
        )
    return notes


Drawn = Mapping[tuple[str, str], tuple[np.ndarray, Interval]]


def resampled(
    terms: Mapping[str, Mapping[str, Term]],
    photographs: np.ndarray,
    pictures: Mapping[str, np.ndarray],
    seed: int,
) -> Drawn:
    """Return how each folder's figures change by resampling, (resamples,), and their intervals.

    Args:
        terms: figures by folder.
        photographs: prompts (n,) of the photographs.
        pictures: prompts (n,) of each folder's pictures.
    """
    labels = np.unique(np.concatenate([photographs, *pictures.values()]))

    def sums(groups: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
        codes = np.searchsorted(labels, groups)
        return np.bincount(codes, weights=values, minlength=len(labels)).astype(float)

    columns = [sums(photographs)]
    for name, figures_of_it in terms.items():
        columns.append(sums(pictures[name]))
        for term in figures_of_it.values():
            columns += [sums(photographs, term.photographs), sums(pictures[name], term.pictures)]
    matrix, rng = np.stack(columns, axis=1), np.random.default_rng(seed)
    blocks = row_blocks(RESAMPLES, len(labels))
    drawn = np.concatenate([draw_weights(rng, len(labels), rows) @ matrix for rows in blocks])
    column, found = iter(drawn.T), {}
    n_photographs = next(column).clip(1)  # of few prompts, a resample may have none
    for name, figures_of_it in terms.items():
        n_pictures = next(column).clip(1)
        fewest = min(len(set(photographs)), len(set(pictures[name])))
        for kind, term in figures_of_it.items():
            changes = next(column) / n_photographs + next(column) / n_pictures
            interval = term.interval
            if interval is None:
                ends = (np.nan, np.nan)
                if fewest > 1:
                    ends = expanded_percentiles(term.value + changes, fewest, CONFIDENCE)
                interval = Interval(term.value, *ends, len(pictures[name]), fewest)
            found[name, kind] = changes, interval
    return found


def _ranked(
    kind: str, names: Sequence[str], terms: Mapping[str, Mapping[str, Term]], draws: Drawn
) -> dict[str, RankedEstimate]:
    """Rank folders by one figure; pairs are apart by a t-test over prompts, adjusted by Holm."""
    sign = -1.0 if KINDS[kind].lower_is_closer else 1.0
    closeness = [sign * terms[name][kind].value for name in names]
    pairs = list(combinations(range(len(names)), 2))
    p_values = []
    for a, b in pairs:
        (draws_a, interval_a), (draws_b, interval_b) = draws[names[a], kind], draws[names[b], kind]
        spread = float((draws_a - draws_b).std(ddof=1))
        freedom = min(interval_a.n_groups, interval_b.n_groups) - 1
        distance = abs(closeness[a] - closeness[b])
        p_values.append(
            2 * special.stdtr(freedom, -distance / spread) if spread > ROUNDING else 1.0
        )
    apart = [pair for pair, p in zip(pairs, holm(p_values), strict=True) if p < SIGNIFICANCE]
    ranges, order = rank_sets(closeness, apart), np.argsort(np.negative(closeness), kind="stable")
    ranks = {int(index): rank for rank, index in enumerate(order, start=1)}
    return {
        name: {
            **estimate(draws[name, kind][1]),
            "rank": ranks[at],
            "rank_low": ranges[at][0],
            "rank_high": ranges[at][1],
        }
        for at, name in enumerate(names)
    }


def _add_columns(
    table: pd.DataFrame,
    features: Features,
    photographs: np.ndarray,
    counted: Mapping[str, np.ndarray],
    sets: Mapping[str, np.ndarray],
    terms: Mapping[str, Mapping[str, Term]],
) -> None:
    """Add what the map shows: two principal components, typicality and nearest photographs."""
    rows = np.concatenate([photographs, *counted.values()])
    tokens = np.hsplit(features, 2)[0]
    centred = tokens[rows] - tokens[rows].mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    places = np.full((len(table), 3), np.nan)
    places[rows, :2] = centred @ axes[:, :-3:-1]
    for name in counted:
        if name in sets:
            places[sets[name], 2] = terms[name]["auc"].scores
    table[["map_x", "map_y", "typicality"]] = places
    units = tokens[rows] / np.linalg.norm(tokens[rows], axis=1, keepdims=True)
    nearest = (units[len(photographs) :] @ units[: len(photographs)].T).argmax(axis=1)
    names = np.full(len(table), "", object)
    names[rows[len(photographs) :]] = table["image"].to_numpy()[photographs[nearest]]
    table["nearest_photograph"] = names


def figures_table(record: Distances) -> pd.DataFrame:
    """Return a row per folder and figure, as in ``distances.csv``, the yardstick beside each."""
    rows = []
    for entry in record["folders"]:
        for kind, value in entry["figures"].items():
            half = record["photographs"][kind]
            ours = {f"photographs_{key}": half[key] for key in ("estimate", "low", "high")}
            rows.append({"folder": entry["folder"], "figure": kind, **value, **ours})
    return pd.DataFrame(rows)
