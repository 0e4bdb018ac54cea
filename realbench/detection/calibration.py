"""Calibration: a temperature and a bias that make P(real) mean what it says."""

from __future__ import annotations

import numpy as np

from realbench.detection.cards import CalibrationSpec


def fit_calibration(logits: np.ndarray, real: np.ndarray) -> CalibrationSpec:
    """Fit Platt's two parameters with both classes weighing the same.

    P(real) then is the probability under even odds of a photograph and a generated image.

    Args:
        logits: raw held-out logits, float of shape (n,).
        real: labels of shape (n,), true for photographs; both classes must occur.

    Returns:
        the calibration, with which (logit + bias) / temperature is the calibrated logit.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e4, class_weight="balanced")
    model.fit(np.asarray(logits, np.float64)[:, None], np.asarray(real, bool))
    slope = max(float(model.coef_[0, 0]), 1e-3)
    bias = float(model.intercept_[0]) / slope
    return CalibrationSpec(temperature=round(1 / slope, 4), bias=round(bias, 4))


def calibrated(logits: np.ndarray, calibration: CalibrationSpec) -> np.ndarray:
    """Return the calibrated logits, of the same shape."""
    return (np.asarray(logits) + calibration.bias) / calibration.temperature
