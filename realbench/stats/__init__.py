"""Statistics of scores: bootstrap intervals, differences, AUC, calibration and agreement.

Pure functions on arrays. Images of one prompt are not independent, so intervals come from a
*cluster* bootstrap: prompts (groups) are drawn with replacement, each with all its images.
Draws depend on the seed and the number of groups only, so equal inputs give equal intervals.
"""

from realbench.stats.agreement import cohen_kappa, krippendorff_alpha
from realbench.stats.bootstrap import Interval, bootstrap_mean, bootstrap_share
from realbench.stats.classification import (
    ReliabilityCurve,
    best_threshold,
    brier,
    detection_measures,
    error_correlation,
    expected_calibration_error,
    reliability_curve,
)
from realbench.stats.conformal import (
    VERDICTS,
    VerdictRule,
    errors_by_source,
    fit_verdicts,
    verdict_stability,
)
from realbench.stats.differences import (
    PairedDifference,
    holm,
    paired_difference,
    rank_sets,
    unpaired_difference,
)
from realbench.stats.roc import auc, bootstrap_auc, stratified_auc, tpr_at_fpr

__all__ = [
    "VERDICTS",
    "Interval",
    "PairedDifference",
    "ReliabilityCurve",
    "VerdictRule",
    "auc",
    "best_threshold",
    "bootstrap_auc",
    "bootstrap_mean",
    "bootstrap_share",
    "brier",
    "cohen_kappa",
    "detection_measures",
    "error_correlation",
    "errors_by_source",
    "expected_calibration_error",
    "fit_verdicts",
    "holm",
    "krippendorff_alpha",
    "paired_difference",
    "rank_sets",
    "reliability_curve",
    "stratified_auc",
    "tpr_at_fpr",
    "unpaired_difference",
    "verdict_stability",
]
