"""Calibration: a temperature and a bias that make P(real) mean what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from realbench.config.config_files import as_toml, checked_record, read_toml
from realbench.detection.specs import CalibrationSpec
from realbench.files import write_whole
from realbench.text import printable

CALIBRATION_FILE = "calibration.toml"


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


class SavedCalibration(BaseModel):
    """A user's calibration of a detector, as ``calibration.toml`` has it.

    Attributes:
        detector: the name of the detector, or the path of its folder from the file's.
        fingerprint: of what was calibrated, before it (:attr:`Card.uncalibrated`).
        prior: the share of photographs that P(real) supposes.
        n_real, n_generated: the images that it was fitted on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    detector: str
    temperature: float = Field(gt=0)
    bias: float
    prior: float = Field(default=0.5, gt=0, lt=1)
    n_real: int = Field(ge=1)
    n_generated: int = Field(ge=1)
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def spec(self) -> CalibrationSpec:
        """Temperature and bias, as a card has them."""
        return CalibrationSpec(temperature=self.temperature, bias=self.bias)

    def base(self, folder: Path) -> str | Path:
        """Return the detector that the file in ``folder`` is of: its name, or its folder."""
        if self.detector.startswith((".", "/")):
            return folder / self.detector
        return self.detector

    def write(self, folder: Path) -> Path:
        """Write ``calibration.toml`` into ``folder``, whole, and return its path.

        Raises:
            OSError: it cannot be written.
        """
        head = (
            f"# Calibration on images of one's own: --detector {folder}\n"
            "# Calibrated logit = (logit + bias) / temperature.\n"
        )
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / CALIBRATION_FILE
        text = head + as_toml(self.model_dump(mode="json"))
        write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
        return path


def read_calibration(folder: Path) -> SavedCalibration:
    """Read ``folder/calibration.toml``.

    Raises:
        UsageError: it cannot be read or is not valid.
    """
    path = folder / CALIBRATION_FILE
    refused = f"{printable(path)} is no calibration: "
    return checked_record(SavedCalibration, read_toml(path, "calibration"), refused, "calibration")
