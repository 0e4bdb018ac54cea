"""The measured figures of docs/distances.md: python benchmarks/distances_validity.py [DATA]

Features of all pictures of DATA (``../shared/data``) under the matched protocol, kept in the score
cache; then folders against photographs, how the figures agree on ten folders, and how often the
interval of one half of photographs against another holds what it should in 200 splits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from realbench.distances.compare import COMPUTE, DINO, KINDS, compare, resampled
from realbench.distances.features import find_features
from realbench.distances.figures import Side
from realbench.images import find_images
from realbench.report.wording import number
from realbench.scoring.cache import cache_path, open_cache
from realbench.scoring.engine import Networks, Protocol, score_files

DATA = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
SPLITS, HALF = 200, 100
# Photographs of one subject, which are compared with the others.
SUBJECTS = ("face-mask-detection", "mpii-human-pose", "houses-dataset")
GENERATORS = (
    "nano-banana-unspecified",
    "nano-banana-pro",
    "nano-banana",
    "gpt-image-2",
    "unknown-mj-bench-quality",
    "dalle-3",
    "unknown-kaivalyagandhi-ai-or-not-game",
)
MODELS = (
    "kandinsky-3",
    "flux.1-dev",
    "qwen-image-edit",
    "sdxl-base-v10-vaefix",
    "stabilityai-stable-cascade",
    "hunyuandit-v1.2-diffusers",
)


def pictures(*folders: str) -> list[Path]:
    """Return the pictures in folders of the data."""
    return [file.path for one in folders for file in find_images(DATA / one)]


def span(value: dict[str, float], digits: int) -> str:
    """Return a figure with its interval."""
    shown = [number(value[key], digits) for key in ("estimate", "low", "high")]
    return f"{shown[0]} ({shown[1]} to {shown[2]})"


ordinary, web = pictures("ordinary/photos"), pictures("web/photos")
manifest = pd.read_csv(DATA / "manifest.csv").query("source != 'ImageNet samples'")
realbench = [DATA / one for one in manifest["path"] if one.startswith(("photos/", "photos-small/"))]
realbench = list(np.random.default_rng(5).permutation(np.array(realbench, object)))
mixed = [path for path in web if path.parent.name not in SUBJECTS]
COMPARISONS: dict[str, tuple[list[Path], dict[str, list[Path]]]] = {
    "mixed photographs": (
        ordinary + web,
        {"ordinary": pictures("ordinary/generated"), "web": pictures("web/generated")},
    ),
    "ordinary photographs": (ordinary, {"other photographs": web}),
    "mixed photographs without single subjects": (
        ordinary + mixed,
        {name: pictures(f"web/generated/{name}") for name in GENERATORS}
        | {f"photographs: {name}": pictures(f"web/photos/{name}") for name in SUBJECTS},
    ),
    "RealBench photographs": (
        realbench[:200],
        {name: pictures(f"generated/{name}", f"generated-small/{name}") for name in MODELS},
    ),
}

paths = sorted({path for ref, sets in COMPARISONS.values() for path in sum(sets.values(), ref)})
(card,) = (one for one in find_features({}) if one.name == DINO)
with open_cache([cache_path()]) as cache:
    networks = Networks([], encoders=[card])
    scores = score_files(paths, networks, cache=cache, protocol=Protocol(matched=True))
vectors = dict(zip(paths, scores.features(DINO), strict=True))

for title, (reference, sets) in COMPARISONS.items():
    rows = [(k, p) for k, own in ({"photographs": reference} | sets).items() for p in own]
    table = pd.DataFrame(rows, columns=["folder", "image"])
    table["prompt_id"], table["status"] = table["image"].map(str), "ok"
    features = np.stack([vectors[path] for path in table["image"]])
    record, _ = compare(table, "photographs", list(sets), {DINO: features}, [])
    assert record is not None
    kinds = list(record["photographs"])
    print(f"\n| {len(reference):,} {title}, n = {record['n']} | " + " | ".join(kinds) + " |")
    lines = [{"folder": "their other half", "figures": record["photographs"]}, *record["folders"]]
    for one in lines:
        shown = [span(one["figures"][kind], max(KINDS[kind].digits, 0)) for kind in kinds]
        print(f"| {one['folder']} | " + " | ".join(shown) + " |", flush=True)
    if len(sets) >= len(GENERATORS) + len(SUBJECTS):
        signs = [1 if KINDS[kind].lower_is_closer else -1 for kind in kinds]
        far = np.array(
            [[one["figures"][k]["estimate"] for k in kinds] for one in record["folders"]]
        )
        rng, far = np.random.default_rng(0), far * signs
        drawn = [np.arange(len(far)), *rng.integers(0, len(far), (2000, len(far)))]
        with np.errstate(all="ignore"):
            rho = [np.corrcoef(np.apply_along_axis(rankdata, 0, far[i]).T) for i in drawn]
        low, high = np.nanquantile(rho[1:], [0.025, 0.975], axis=0)
        for a, kind in enumerate(kinds):
            shown = [f"{rho[0][a, b]:.2f} ({low[a, b]:.2f} to {high[a, b]:.2f})" for b in range(a)]
            print(f"agreement: {kind} | " + " | ".join(shown))

photographs = np.stack([vectors[path] for path in ordinary + web])
found: dict[str, list[tuple[float, float, float]]] = {}
for split in range(SPLITS):
    own = np.random.default_rng(split).permutation(len(photographs))[: 2 * HALF]
    one, two = (Side(photographs[part], part.astype(str)) for part in (own[:HALF], own[HALF:]))
    terms = {"half": COMPUTE[DINO](one, two, split)}
    for (_, kind), (_, value) in resampled(terms, one.groups, {"half": two.groups}, split).items():
        found.setdefault(kind, []).append((value.estimate, value.low, value.high))
for kind, values in found.items():
    estimates, lows, highs = np.array(values).T
    truth = {"auc": 0.5, "kd": 0.0}.get(kind, float(estimates.mean()))
    print(f"halves: {kind} {truth:.3g} in {np.mean((lows <= truth) & (truth <= highs)):.1%}")
