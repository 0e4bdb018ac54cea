"""What the report of a training of a diffusion model has of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from realbench.report.gallery import thumbnails
from realbench.report.wording import is_number, number, span
from realbench.stats.record import Estimate
from realbench.train.records import TrainEvaluation, TrainIteration, TrainRun, changes
from realbench.train.report.sections import (
    Evaluations,
    Line,
    curve,
    estimates,
    facts,
    figure_of,
    panel,
)

SAMPLE_ROWS, SAMPLE_COLUMNS = 7, 8
_SERIES = 4


def context(run: TrainRun) -> dict[str, object]:
    """Return what ``train_report.html`` shows beside what all trainings do."""
    config, done = run.manifest.config, len(run.trained)
    size = config["training"]["group_size"]
    images = done * config["training"]["prompts_per_iteration"] * size
    quality = run.summary.get("quality", {})
    quality = quality if "explanations" in quality else {}  # of a demo's first version
    return {
        "changes": changes(run),
        "facts": facts(
            run,
            [("Model", str(config["model"]["source"]))],
            ("Images made", f"{images:,}, in groups of {size}"),
        ),
        "panels": _panels(run.trained, has_kl=bool(config["loss"]["kl"])),
        "probes": _probes(run.evaluations, quality),
        "quality": quality,
        "guard": _guard(quality) if quality else [],
        "cotrained": sum(bool(one.cotraining) for one in run.trained),
        "samples": _samples(run),
    }


def _panels(trained: Sequence[TrainIteration], *, has_kl: bool) -> list[dict[str, Any]]:
    if not trained:
        return []

    def plain(key: str, name: str | None = None, series: int = 0) -> Line:
        return curve(trained, name or key, figure_of(key), class_=_class(series))

    def ratio(name: str, key: str, series: int) -> Line:
        def value(one: TrainIteration) -> float | None:
            mean = one.figure(f"{key}_mean")
            return None if mean is None else mean - 1

        return curve(trained, name, value, figure_of(f"{key}_std"), _class(series))

    def table(of: str) -> list[Line]:
        names = dict.fromkeys(name for one in trained for name in getattr(one, of))
        return [
            curve(trained, name, figure_of(name, of), class_=_class(n))
            for n, name in enumerate(names)
        ]

    reward = curve(trained, "reward", figure_of("reward"), figure_of("reward_std"))
    panels = [
        panel(
            "Reward of the training's images",
            "mean and standard deviation; with the sampler's noise",
            [reward],
        ),
        panel("Its components", "means", table("components")[:_SERIES]),
    ]
    if has_kl:
        note = "mean of the trained steps"
        panels.append(panel("KL to the base model", note, [plain("kl")], zero=True))
    panels += [
        panel(
            "Ratio − 1",
            "mean and standard deviation; 0 is the policy that sampled, as the first update is but "
            "for rounding",
            [ratio("all updates", "ratio", 0), ratio("the first", "first_ratio", 1)],
            zero=True,
        ),
        panel(
            "Clip fraction",
            "share of steps whose ratio is outside the clip, above and below",
            [plain("clip_fraction_high", "above"), plain("clip_fraction_low", "below", 1)],
            zero=True,
        ),
        panel(
            "Groups without variance",
            f"of {trained[-1].groups}; nothing is learnt from them",
            [plain("zero_groups")],
            zero=True,
            whole=True,
        ),
        panel("Gradient norm", "before clipping", [plain("grad_norm")], zero=True),
        panel("Seconds an iteration", "", table("seconds")[:_SERIES], zero=True),
    ]
    for line in table("cotraining"):
        panels.append(panel(f"Co-training: {line.name}", "", [replace(line, class_="series0")]))
    return panels


def _probes(evaluated: Evaluations, quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a small plot for each further judge of the evaluations, and for each component.

    A guard's measures among the judges are explained, and drawn with the range of photographs.
    """
    explanations, measures = quality.get("explanations", {}), quality.get("measures", {})
    panels = []
    for table, title in (("components", "Reward component: {}"), ("probes", "{}")):
        found = [getattr(one, table) for one in evaluated.values()]
        names = list(dict.fromkeys(name for one in found for name in one))
        if table == "components" and len(names) < 2:
            continue
        for name in names:

            def pick(one: TrainEvaluation, table: str = table, name: str = name) -> Estimate | None:
                figures: dict[str, Estimate] = getattr(one, table)
                return figures.get(name)

            points = estimates(evaluated, pick)
            lines, note = [Line(name, points, dots=True)], ""
            if table == "probes":
                note = explanations.get(name, "")
                lines = [*_usual_range(points, measures.get(name)), *lines]
            panels.append(panel(title.format(name), note, lines, zero=False))
    return panels


def _usual_range(
    points: Sequence[tuple[Any, ...]], measure: Mapping[str, Any] | None
) -> list[Line]:
    """Return the band of photographs' values behind a measure's curve, or its lower edge."""
    if measure is None:
        return []
    low, high = measure["low"], measure["high"]
    drawn = (None, low, high) if is_number(high) else (low, None, None)
    ends = sorted({points[0][0], points[-1][0]})
    return [Line("photographs", [(n, *drawn) for n in ends], "series2")]


def _guard(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for name, one in quality["measures"].items():
        low, high = one["low"], one["high"]
        has_top = is_number(high)
        within = low <= one["end"] and (not has_top or one["end"] <= high)
        usual = span(low, high, 3) if has_top else f"at least {number(low, 3)}"
        verdict = "within" if within else "outside, no further than before"
        rows.append(
            {
                "name": name,
                "rewarded": name in quality.get("rewarded", ()),
                "start": one["start"],
                "end": one["end"],
                "usual": usual,
                "verdict": verdict if one["passed"] else "worse than before",
                "passed": one["passed"],
            }
        )
    return rows


def _class(series: int) -> str:
    return f"series{series % _SERIES}"


def _samples(run: TrainRun) -> dict[str, Any]:
    """Return rows of the same prompts' images over time, evenly spread over the run."""
    folder = run.out / "samples"
    found = [n for n in run.evaluations if (folder / f"{n:06}").is_dir()]
    chosen = [found[place] for place in _spread(len(found), SAMPLE_ROWS)]
    if not chosen:
        return {"names": [], "rows": []}
    names = sorted(path.stem for path in (folder / f"{chosen[-1]:06}").glob("*.png"))
    names = [names[place] for place in _spread(len(names), SAMPLE_COLUMNS)]
    paths = [folder / f"{n:06}" / f"{name}.png" for n in chosen for name in names]
    pictures = thumbnails(paths, 192)
    width = len(names)
    rows = [
        {"iteration": n, "pictures": list(zip(names, pictures[k * width :], strict=False))}
        for k, n in enumerate(chosen)
    ]
    return {"names": names, "rows": rows}


def _spread(count: int, most: int) -> list[int]:
    """Return up to ``most`` of ``count`` positions, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
