"""What the report on detectors says in words."""

from __future__ import annotations

from typing import Any

import pytest

from realbench.bench.report import headline


def _results(**areas: tuple[float, float, float]) -> dict[str, Any]:
    """Results on one generator: detector to estimate and ends of AUC."""
    results = [
        {
            "detector": name,
            "generator": "sdxl",
            "auc": dict(zip(("estimate", "low", "high"), area, strict=True)),
        }
        for name, area in areas.items()
    ]
    return {"generated": [{"folder": "sdxl"}], "results": results}


@pytest.mark.parametrize(
    ("areas", "text"),
    [
        (
            {"a": (0.9, 0.85, 0.95), "b": (0.7, 0.6, 0.8)},
            "a tells photographs from generated images with an AUC of 0.90",
        ),
        (
            {"a": (0.9, 0.85, 0.95), "b": (0.88, 0.8, 0.9)},
            "a tells photographs from generated images with an AUC of 0.90; the interval of b "
            "overlaps",
        ),
        (
            {"a": (1.0, 0.6, 1.0), "b": (1.0, 0.6, 1.0), "c": (0.4, 0.3, 0.5)},
            "a and b tell photographs from generated images with an AUC of 1.00",
        ),
    ],
)
def test_the_headline_names_all_that_are_best(areas: dict[str, Any], text: str) -> None:
    assert headline(_results(**areas)) == text
