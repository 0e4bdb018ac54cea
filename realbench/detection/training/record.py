"""The written record of a training run: figures on held-out images, with n and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from realbench import stats
from realbench.detection.calibration import calibrated, fit_calibration
from realbench.detection.cards import Card
from realbench.detection.ensemble import combined_logits, fused_terms, probability
from realbench.detection.specs import CalibrationSpec
from realbench.detection.training.evaluate import NATIVE, degradations, reencodings
from realbench.detection.verdict import ConformalSample
from realbench.stats.conformal import errors_by_source, verdict_stability

KEYS = ["fold", "path", "real", "source", "subset", "round_trip", "change"]


def calibrate(table: pd.DataFrame) -> tuple[CalibrationSpec, pd.DataFrame]:
    """Fit the shipped calibration, and cross-fit one per fold for honest figures.

    Args:
        table: held-out scores with the columns of ``KEYS`` and raw ``logit``.

    Returns:
        the calibration from all folds, and the table with ``logit`` calibrated, each fold by
        the calibration of the other folds.
    """
    specs = fold_calibrations(table)
    parts = [
        part.assign(logit=calibrated(part["logit"].to_numpy(), specs[fold]))
        for fold, part in table.groupby("fold")
    ]
    return _fitted(_plain(table)), pd.concat(parts)


def fold_calibrations(table: pd.DataFrame) -> dict[int, CalibrationSpec]:
    """Fit each fold's calibration on the held-out scores of the other folds.

    Args:
        table: as for :func:`calibrate`.
    """
    usable = _plain(table)
    specs = {}
    for fold in table["fold"].unique():
        others = usable[usable["fold"] != fold]
        specs[int(fold)] = _fitted(others if others["real"].nunique() == 2 else usable)
    return specs


def _fitted(table: pd.DataFrame) -> CalibrationSpec:
    return fit_calibration(table["logit"].to_numpy(), table["real"].to_numpy())


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    odd = table["round_trip"] | table["subset"].isin(["blank", "broken"])
    return table[~odd & (table["change"] == "unchanged")]


def ensemble_table(cards: Sequence[Card], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Combine the cross-calibrated tables of several detectors on the images all scored."""
    joined = _joined(tables)
    return joined[KEYS].assign(logit=_logits(cards, joined))


def _joined(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the logits of all detectors, a column each, on the rows that all have."""
    indexed = {
        name: table.assign(path=table["path"].fillna("")).set_index(KEYS)["logit"]
        for name, table in tables.items()
    }
    return pd.concat(indexed, axis=1, join="inner").reset_index()


def conformal_sample(cards: Sequence[Card], tables: Mapping[str, pd.DataFrame]) -> ConformalSample:
    """Return held-out logits for verdicts, of each image in the protocol in which it fares worse.

    A photograph counts where it looks less real, a generated image where it looks more so. The
    bound then holds in either protocol.

    Args:
        cards: of the trained detectors.
        tables: their cross-calibrated held-out scores, by name.
    """
    joined = _joined(tables)
    odd = joined["round_trip"] | joined["subset"].isin(["blank", "broken"])
    shown = joined[~odd & joined["change"].isin(["unchanged", NATIVE])]
    shown = shown.assign(p=_realism(cards, shown))
    ordered = shown.assign(worse=np.where(shown["real"], shown["p"], -shown["p"]))
    worst = ordered.sort_values("worse", kind="stable").drop_duplicates(["fold", "path"])
    return ConformalSample.of(
        cards,
        {name: worst[name].to_numpy() for name in tables},
        worst["real"].to_numpy(bool),
        worst["source"].to_numpy(str),
        "held out by source; in the matched or the native protocol, whichever each fares worse in",
    )


def _realism(cards: Sequence[Card], joined: pd.DataFrame) -> np.ndarray:
    return probability(_logits(cards, joined))


def _logits(cards: Sequence[Card], joined: pd.DataFrame) -> np.ndarray:
    levels = {card.name: card.level for card in cards}
    logits = {card.name: joined[card.name].to_numpy() for card in cards}
    return combined_logits(logits, levels, fused_terms(cards))


def verdicts(
    cards: Sequence[Card], sample: ConformalSample, tables: Mapping[str, pd.DataFrame]
) -> dict[str, Any]:
    """Return the rule at the default bound, its errors by held-out source, and its stability."""
    rule = sample.rule(cards)
    found: dict[str, Any] = {
        "max_false_alarm": rule.max_false_alarm,
        "called_generated_below": _rounded(rule.low),
        "called_photograph_above": _rounded(rule.high),
        "photographs": rule.n_photographs,
        "generated": rule.n_generated,
    }
    photographs, generated = sample.realism(cards)
    alarms, misses = errors_by_source(photographs, generated, rule.max_false_alarm)
    found["false_alarms_by_source"] = {
        source: {"share": _rounded(share), "n": len(photographs[source])}
        for source, share in alarms.items()
    }
    found["misses_by_generator"] = {
        source: {"share": _rounded(share), "n": len(generated[source])}
        for source, share in misses.items()
    }
    joined = _joined(tables)
    wide = joined.assign(p=_realism(cards, joined)).pivot_table(
        index=["fold", "path"], columns="change", values="p", sort=False
    )
    found["changed_by"] = {}
    for change in reencodings():
        pair = wide[["unchanged", change]].dropna()
        stability = verdict_stability(rule, pair["unchanged"], pair[change])
        found["changed_by"][change] = asdict(stability)
    return found


def figures(table: pd.DataFrame, matched_subsets: Mapping[str, str]) -> dict[str, Any]:
    """Compute every figure of the record from cross-calibrated held-out scores.

    Args:
        table: the columns of ``KEYS`` and calibrated ``logit``.
        matched_subsets: generated subset to the subset of photographs with the same subjects
            (or ``"*"``), content-matched ones first.
    """
    plain = _plain(table)
    photos = plain[plain["real"]]
    result: dict[str, Any] = {"folds": int(table["fold"].nunique()), "auc": {}}
    twins = table[table["round_trip"] & (table["change"] == "unchanged")]
    if len(twins):
        result["auc"]["round trips of the same photographs"] = _auc(photos, twins)
    for generated, partner in matched_subsets.items():
        real = photos if partner == "*" else photos[photos["subset"] == partner]
        made = plain[~plain["real"] & (plain["subset"] == generated)]
        result["auc"][generated] = _auc(real, made) | {
            "by_source": {
                str(source): _auc(real[real["fold"].isin(part["fold"])], part)
                for source, part in made.groupby("source")
            }
        }
    native = table[~table["round_trip"] & (table["change"] == NATIVE)]
    if len(native):
        result["native"] = _auc(native[native["real"]], native[~native["real"]])
        result["matched"] = _auc(photos, plain[~plain["real"]])
    result["calibration"] = _calibration(plain)
    result["mean_realism"] = {
        "photographs": _mean(photos),
        "generated": _mean(plain[~plain["real"]]),
        "photographs_by_source": {
            str(s): _mean(part)
            | {
                "below_half": round(float((part["logit"] < 0).mean()), 4),
                "fold": int(part["fold"].iloc[0]),
            }
            for s, part in photos.groupby("source")
        },
    }
    result["hard_to_fool"] = _hard_to_fool(table)
    return result


def _auc(real: pd.DataFrame, generated: pd.DataFrame) -> dict[str, Any]:
    """AUC within folds, since every fold's scores come from a network of its own."""
    interval = stats.stratified_auc(
        real["logit"].to_numpy(),
        generated["logit"].to_numpy(),
        real["fold"].to_numpy(),
        generated["fold"].to_numpy(),
    )
    return {
        "auc": _rounded(interval.estimate),
        "low": _rounded(interval.low),
        "high": _rounded(interval.high),
        "n_real": len(real),
        "n_generated": len(generated),
    }


def _mean(part: pd.DataFrame) -> dict[str, Any]:
    interval = stats.bootstrap_mean(probability(part["logit"].to_numpy()))
    return {
        "mean": _rounded(interval.estimate),
        "low": _rounded(interval.low),
        "high": _rounded(interval.high),
        "n": interval.n,
    }


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _calibration(plain: pd.DataFrame) -> dict[str, Any]:
    """Reliability with the smaller class repeated, so that the odds are even."""
    p = probability(plain["logit"].to_numpy())
    real = plain["real"].to_numpy(bool)
    smaller, larger = sorted((p[real], p[~real]), key=len)
    repeated = np.resize(smaller, len(larger))
    labels = np.full(len(larger), real.sum() > (~real).sum())
    p, y = np.concatenate([larger, repeated]), np.concatenate([labels, ~labels])
    curve = stats.reliability_curve(p, y)
    return {
        "expected_calibration_error": round(stats.expected_calibration_error(p, y), 4),
        "brier": round(stats.brier(p, y), 4),
        "n": len(plain),
        "reliability": [
            {"predicted": round(float(a), 3), "observed": round(float(b), 3), "n": int(c)}
            for a, b, c in zip(curve.confidence, curve.frequency, curve.counts, strict=True)
        ],
    }


def _hard_to_fool(table: pd.DataFrame) -> dict[str, Any]:
    made = table[~table["real"] & ~table["round_trip"] & ~table["subset"].isin(["blank", "broken"])]
    values = made.assign(p=probability(made["logit"].to_numpy()))
    wide = values.pivot_table(index=["fold", "path"], columns="change", values="p", sort=False)
    wide = wide[["unchanged", *(name for name in degradations() if name in wide)]].dropna()
    changes = {}
    for change in wide.columns.drop("unchanged"):
        interval = stats.bootstrap_mean((wide[change] - wide["unchanged"]).to_numpy())
        changes[change] = {
            "rise": _rounded(interval.estimate),
            "low": _rounded(interval.low),
            "high": _rounded(interval.high),
            "n": interval.n,
        }
    blank = table[table["subset"] == "blank"]
    worst = blank.assign(p=probability(blank["logit"].to_numpy())).groupby("change")["p"].max()
    broken = table[table["subset"] == "broken"]
    return {
        "unchanged_mean": _rounded(float(wide["unchanged"].mean())),
        "rise": changes,
        "blank_worst": {str(k): round(float(v), 4) for k, v in worst.items()},
        "broken": _mean(broken) if len(broken) else None,
    }
