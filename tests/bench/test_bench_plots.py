"""The curves of a detectors' benchmark."""

from __future__ import annotations

import itertools
import re

import pytest

from realbench.bench.measures import DEGRADATIONS
from realbench.bench.report import curve_panel

KINDS = sorted({one.kind for one in DEGRADATIONS})


@pytest.mark.parametrize("kind", KINDS)
def test_labels_below_the_axis_do_not_touch(kind: str) -> None:
    labels = ["none", *(one.label for one in DEGRADATIONS if one.kind == kind)]
    points = [{"estimate": 0.9, "low": 0.8, "high": 0.95}] * len(labels)
    drawn = curve_panel({"a": points, "b": points}, labels, label="AUC")
    found = re.findall(r'<text x="([\d.]+)" y="124" text-anchor="(\w+)"[^>]*>([^<]+)<', drawn)
    assert labels[-1] in [text for _, _, text in found]
    spans = []
    for x, anchor, text in found:
        width = 4.8 * len(text)
        left = float(x) - (width if anchor == "end" else width / 2)
        spans.append((left, left + width))
    spans.sort()
    assert all(one[1] < other[0] for one, other in itertools.pairwise(spans))
