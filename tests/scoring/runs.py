"""Real runs for the report's tests: chosen scores, real pictures, the real summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from realbench.detection.verdict import verdict_basis
from realbench.prompts import Prompt
from realbench.scoring.run import ScoreRun
from realbench.scoring.summary import summarize
from realbench.stats import fit_verdicts

DETECTORS = ("semantic-lite", "trace-lite")


def make_run(
    root: Path,
    folders: Mapping[str, Sequence[float]],
    *,
    reference: str | None = None,
    failures: Sequence[tuple[str, str, str]] = (),
    detectors: Sequence[str] = DETECTORS,
    names: Mapping[str, Sequence[str]] | None = None,
    prompts: Mapping[str, Prompt] | None = None,
    held_out: tuple[Mapping[str, Sequence[float]], Mapping[str, Sequence[float]]] | None = None,
) -> ScoreRun:
    """Return a run whose folders have these realism scores, with a picture for every image.

    The detectors scatter around the realism, each in its own way; image ``n`` of every folder
    belongs to prompt ``n``. ``names`` gives a folder's file names where they matter, and
    ``held_out`` the realism of photographs by source and of generated images by generator.
    """
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    paths: dict[tuple[str, str], Path] = {}
    for index, (folder, scores) in enumerate(folders.items()):
        place = root / f"folder{index}"
        place.mkdir(parents=True)
        for n, realism in enumerate(scores):
            image = (names or {}).get(folder, [])[n : n + 1] or [f"{n:04d}.png"]
            path = place / f"{n}.png"
            Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8)).save(path)
            paths[folder, image[0]] = path
            each = {d: float(np.clip(realism + rng.normal(0, 0.1), 0, 1)) for d in detectors}
            rows.append(_row(folder, image[0], f"{n:04d}", "ok", "", float(realism), each))
    for folder, image, reason in failures:
        nothing = dict.fromkeys(detectors, np.nan)
        rows.append(_row(folder, image, image, "unreadable", reason, np.nan, nothing))
    table = pd.DataFrame(rows)
    verdict = None
    if held_out is not None:
        rule = fit_verdicts(*held_out)
        table["verdict"] = rule.verdicts(table["realism"])
        verdict = verdict_basis(rule, *held_out, "as they are")
    known = list(dict.fromkeys(table["folder"]))
    summary = summarize(
        table,
        folders=[(name, f"/images/{name}") for name in known if name != reference],
        reference=(reference, f"/images/{reference}") if reference else None,
        detectors=detectors,
        prompts=prompts,
        verdict=verdict,
    )
    manifest = {
        "versions": {"realgen": "0.1.0", "torch": "2.14.1"},
        "platform": "Linux",
        "device": "cpu",
        "detectors": [
            {"name": d, "level": "semantic", "fingerprint": "f" * 64, "weights_sha256": "a" * 64}
            for d in detectors
        ],
        "arguments": {"folders": [f"/images/{name}" for name in known], "reference": None},
        "argv": ["/usr/bin/realbench", "score", *known, "--out", "run"],
        "seed": 0,
        "started": "2026-01-02T03:04:05+00:00",
        "timings": {},
    }
    return ScoreRun(table, summary, manifest, paths)


def _row(
    folder: str,
    image: str,
    prompt: str,
    status: str,
    reason: str,
    realism: float,
    each: Mapping[str, float],
) -> dict[str, Any]:
    values = list(each.values())
    return {
        "folder": folder,
        "image": image,
        "prompt_id": prompt,
        "sha256": "",
        "status": status,
        "reason": reason,
        "realism": realism,
        **each,
        "disagreement": max(values) - min(values),
        "verdict": "",
    }
