"""From a table of scores to what it says: per-folder figures, ranking, differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd

from realbench import stats
from realbench.prompts import Prompt
from realbench.scoring.records import FolderPair, FolderSummary, Summary
from realbench.stats.record import Estimate, estimate, rounded

SCHEMA_VERSION: Final = 1
CONFIDENCE = 0.95
SIGNIFICANCE = 0.05


def summarize(
    table: pd.DataFrame,
    *,
    folders: Sequence[tuple[str, str]],
    reference: tuple[str, str] | None,
    detectors: Sequence[str],
    prompts: Mapping[str, Prompt] | None = None,
    quality: Sequence[str] = (),
    verdict: dict[str, Any] | None = None,
    seed: int = 0,
) -> Summary:
    """Compute the summary of a run, as written to ``summary.json``.

    Args:
        table: a row per image, as in ``scores.csv``.
        folders: display name and path of each folder that is ranked.
        reference: display name and path of the photographs.
        detectors: the columns with each detector's P(real).
        prompts: prompt id to prompt, for categories and missing images.
        quality: the columns with measures of quality and alignment; no other figure uses them.
        verdict: what the table's verdicts rest on; None where there are none.
        seed: of every bootstrap.
    """
    parts = {str(name): part for name, part in table.groupby("folder", sort=False)}
    photos = _scored(parts[reference[0]]) if reference else None
    entries = [
        _entry(name, path, parts[name], photos, detectors, prompts, seed) for name, path in folders
    ]
    for entry in entries:
        _add_quality(entry, parts[entry["folder"]], quality, seed)
    pairs = _pairs({name: _scored(parts[name]) for name, _ in folders}, seed)
    _rank(entries, pairs)
    known = None
    if reference:
        known = _entry(*reference, parts[reference[0]], None, detectors, prompts, seed)
        _add_quality(known, parts[reference[0]], quality, seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "folders": entries,
        "pairs": pairs,
        "reference": known,
        "verdict": verdict,
        "confidence": CONFIDENCE,
        "notes": [
            *_contradiction_notes(entries, pairs),
            *_sharing_notes({name: _scored(parts[name]) for name, _ in folders}),
            *_prompt_notes(parts, [name for name, _ in folders], prompts),
        ],
    }


def _scored(part: pd.DataFrame) -> pd.DataFrame:
    return part[part["status"] == "ok"]


def _entry(
    name: str,
    path: str,
    part: pd.DataFrame,
    photos: pd.DataFrame | None,
    detectors: Sequence[str],
    prompts: Mapping[str, Prompt] | None,
    seed: int,
) -> FolderSummary:
    scored = _scored(part)
    realism = scored["realism"].to_numpy(float)
    groups = scored["prompt_id"].to_numpy()
    called = scored["verdict"]
    entry: FolderSummary = {
        "folder": name,
        "path": path,
        "n": len(scored),
        "n_failed": int((part["status"] == "unreadable").sum()),
        "n_copies": int((part["status"] == "copy").sum()),
        "n_prompts": int(scored["prompt_id"].nunique()),
        "realism": _mean(realism, groups, seed),
        "escape_rate": _share(realism > 0.5, groups, seed),
        "detectors": {
            detector: _mean(scored[detector].to_numpy(float), groups, seed)
            for detector in detectors
        },
        "disagreement": {"estimate": rounded(scored["disagreement"].mean())},
        "verdicts": {
            verdict: _share((called == verdict).to_numpy(), groups, seed)
            for verdict in stats.VERDICTS
        }
        if (called != "").any()
        else None,
        "auc": None,
    }
    if photos is not None and len(photos) and len(scored):
        area = stats.bootstrap_auc(
            photos["realism"].to_numpy(float),
            realism,
            photos["prompt_id"].to_numpy(),
            groups,
            seed=seed,
        )
        entry["auc"] = estimate(area)
    if prompts and any(prompt.category for prompt in prompts.values()):
        entry["categories"] = _categories(scored, prompts, seed)
    return entry


def _add_quality(
    entry: FolderSummary, part: pd.DataFrame, quality: Sequence[str], seed: int
) -> None:
    if quality:
        entry["quality"] = {}
    for name in quality:
        own = part[part[name].notna()]
        entry["quality"][name] = _mean(own[name].to_numpy(float), own["prompt_id"].to_numpy(), seed)


def _mean(values: np.ndarray, groups: np.ndarray, seed: int) -> Estimate:
    return estimate(stats.bootstrap_mean(values, groups, seed=seed) if len(values) else None)


def _share(values: np.ndarray, groups: np.ndarray, seed: int) -> Estimate:
    return estimate(stats.bootstrap_share(values, groups, seed=seed) if len(values) else None)


def _categories(
    scored: pd.DataFrame, prompts: Mapping[str, Prompt], seed: int
) -> dict[str, Estimate]:
    category = scored["prompt_id"].map(
        {key: prompt.category for key, prompt in prompts.items() if prompt.category}
    )
    return {
        str(name): _mean(part["realism"].to_numpy(float), part["prompt_id"].to_numpy(), seed)
        for name, part in scored.groupby(category)
    }


def _pairs(parts: Mapping[str, pd.DataFrame], seed: int) -> list[FolderPair]:
    pairs: list[FolderPair] = []
    for (a, first), (b, second) in combinations(parts.items(), 2):
        if not len(first) or not len(second):
            continue
        x, y = first["realism"].to_numpy(float), second["realism"].to_numpy(float)
        groups_x, groups_y = first["prompt_id"].to_numpy(), second["prompt_id"].to_numpy()
        shared = len(set(groups_x) & set(groups_y))
        compare = stats.paired_difference if shared > 1 else stats.unpaired_difference
        result = compare(x, y, groups_x, groups_y, seed=seed)
        interval = result.interval
        pairs.append(
            {
                "a": a,
                "b": b,
                "difference": rounded(interval.estimate),
                "low": rounded(interval.low),
                "high": rounded(interval.high),
                "p_value": rounded(result.p_value),
                "p_adjusted": None,
                "tied": True,
                "paired": shared > 1,
                "n_shared": shared,
            }
        )
    adjusted = stats.holm([np.nan if p["p_value"] is None else p["p_value"] for p in pairs])
    for pair, p_value in zip(pairs, adjusted, strict=True):
        pair["p_adjusted"] = rounded(p_value)
        pair["tied"] = bool(not p_value < SIGNIFICANCE)  # an undefined one is a tie too
    return pairs


def _rank(entries: list[FolderSummary], pairs: Sequence[FolderPair]) -> None:
    ranked = [entry for entry in entries if entry["realism"]["estimate"] is not None]
    place = {entry["folder"]: n for n, entry in enumerate(ranked)}
    means = [float(entry["realism"]["estimate"] or 0.0) for entry in ranked]
    apart = [
        (place[pair["a"]], place[pair["b"]])
        for pair in pairs
        if not pair["tied"] and _agrees(pair, means[place[pair["a"]]], means[place[pair["b"]]])
    ]
    ranges = stats.rank_sets(means, apart)
    order = np.argsort(-np.array(means), kind="stable")
    for entry in entries:
        entry["rank"] = entry["rank_low"] = entry["rank_high"] = None
    for rank, index in enumerate(order, start=1):
        low, high = ranges[index]
        ranked[index]["rank"] = rank
        ranked[index]["rank_low"], ranked[index]["rank_high"] = int(low), int(high)


def _agrees(pair: FolderPair, mean_a: float | None, mean_b: float | None) -> bool:
    """Whether a pair differs on its shared prompts in the direction of the folders' means.

    Where it does not, the means of different prompts decide the order, and the data do not.
    """
    return (pair["difference"] or 0.0) * ((mean_a or 0.0) - (mean_b or 0.0)) > 0


def _contradiction_notes(
    entries: Sequence[FolderSummary], pairs: Sequence[FolderPair]
) -> list[str]:
    means = {entry["folder"]: entry["realism"]["estimate"] for entry in entries}
    return [
        f"{pair['a']} and {pair['b']}: on the {_number_of(pair['n_shared'], 'prompt')} that both "
        "have, the difference is significant in the other direction than that of their overall "
        "means; their order is left open"
        for pair in pairs
        if not pair["tied"] and not _agrees(pair, means[pair["a"]], means[pair["b"]])
    ]


def _sharing_notes(parts: Mapping[str, pd.DataFrame]) -> list[str]:
    """Say which prompts not all folders have, since pairs are compared on those they share."""
    if len(parts) < 2:
        return []
    ids = {name: set(part["prompt_id"]) for name, part in parts.items()}
    shared = set.intersection(*ids.values())
    notes = [
        f"{name}: {len(own - shared)} of {len(own)} prompt ids are not in every folder"
        for name, own in ids.items()
        if own - shared
    ]
    if notes:
        notes.append(
            f"{len(shared)} prompt ids are in all folders; two folders are compared on those both "
            "have, and on all their images where they share fewer than two"
        )
    return notes


def _prompt_notes(
    parts: Mapping[str, pd.DataFrame], folders: Sequence[str], prompts: Mapping[str, Prompt] | None
) -> list[str]:
    if prompts is None:
        return []
    notes = []
    for name in folders:
        found = set(parts[name]["prompt_id"])
        missing, unknown = set(prompts) - found, found - set(prompts)
        if missing:
            number = _number_of(len(missing), "prompt")
            notes.append(f"{name}: no image for {number} ({_few(missing)})")
        if unknown:
            number = _number_of(len(unknown), "prompt id")
            notes.append(f"{name}: {number} not in the prompts file ({_few(unknown)})")
    return notes


def _number_of(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _few(ids: set[str], limit: int = 5) -> str:
    first = sorted(ids)[:limit]
    return ", ".join(first) + (", …" if len(ids) > limit else "")
