"""The report of a training of a diffusion model: ``report.html`` from the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from realbench.report.gallery import thumbnails
from realbench.report.page import render_page, write_page
from realbench.report.wording import count, is_number, number, span
from realbench.train.record import TrainEstimate, TrainEvaluation, TrainIteration, TrainRun
from realbench.train.report.plots import Line
from realbench.train.report.sections import (
    Evaluations,
    changes,
    estimates,
    panel,
    read_run,
    shared_context,
    took,
)

SAMPLE_ROWS, SAMPLE_COLUMNS = 7, 8
_SERIES = 4
_COUNTED = "Groups without variance"


def write_train_report(run: str | Path) -> Path:
    """Write the report of a run, finished or not, into its folder.

    Raises:
        UsageError: it is no run of ``realgen-train diffusion``.
        RealBenchError: a file of the run is damaged.
        OSError: the report cannot be written.
    """
    return write_page(render_train_report(run), Path(run))


def render_train_report(run: str | Path) -> str:
    """Return the report as HTML."""
    folder = Path(run)
    read = read_run(folder, "diffusion")
    evaluated = read.evaluations
    quality = read.summary.get("quality", {})
    quality = quality if "explanations" in quality else None  # of a demo's first version
    context: dict[str, object] = {
        "changes": changes(evaluated),
        "facts": _facts(read),
        "panels": _panels(read.trained, has_kl=bool(read.manifest.config["loss"]["kl"])),
        "probes": _probes(evaluated, quality),
        "quality": quality,
        "guard": _guard(quality) if quality else [],
        "cotrained": sum(bool(one.cotraining) for one in read.trained),
        "samples": _samples(folder, list(evaluated)),
    }
    return render_page("report/templates/train_report.html", shared_context(read) | context)


def _facts(run: TrainRun) -> list[tuple[str, str]]:
    manifest, training = run.manifest, run.manifest.config["training"]
    images = training["prompts_per_iteration"] * training["group_size"]
    done = len(run.trained)
    facts = [
        ("Model", str(manifest.config["model"]["source"])),
        ("Iterations", f"{done:,} of {training['iterations']:,}"),
        ("Images made", f"{done * images:,}, in groups of {training['group_size']}"),
        ("Prompts", f"{manifest.n_prompts:,}"),
        ("Trained weights", f"{manifest.trained_parameters:,}"),
        ("Device", f"{manifest.device}, {count(manifest.processes, 'process', 'processes')}"),
        *took(run),
    ]
    reasons = {
        "interrupted": "running, or cut off",
        "hacking": "stopped for reward hacking",
        "risen": "stopped, since the reward had risen by evaluation.stop_at_rise",
    }
    state = reasons.get(manifest.stop_reason)
    return facts + ([("State", state)] if state else [])


def _panels(trained: Sequence[TrainIteration], *, has_kl: bool) -> list[dict[str, Any]]:
    """Return the small plots of an iteration's own figures.

    Args:
        has_kl: whether the divergence from the base model was measured.
    """
    if not trained:
        return []

    def line(name: str, value: Any, class_: str = "series0", spread: Any = None) -> Line:
        points = []
        for one in trained:
            mean, half = value(one), spread(one) if spread else None
            has_band = is_number(mean) and is_number(half)
            points.append(
                (
                    one.iteration,
                    mean,
                    mean - half if has_band else None,
                    mean + half if has_band else None,
                )
            )
        return Line(name, points, class_)

    names = list(trained[0].components)
    parts = list(dict.fromkeys(part for one in trained for part in one.seconds))
    wanted: list[tuple[str, str, list[Line], bool]] = [
        (
            "Reward of the training's images",
            "mean and standard deviation; with the sampler's noise",
            [line("reward", lambda one: one.reward, spread=lambda one: one.reward_std)],
            False,
        ),
        (
            "Its components",
            "means",
            [
                line(name, lambda one, name=name: one.components.get(name), _class(n))
                for n, name in enumerate(names[:_SERIES])
            ],
            False,
        ),
        (
            "Ratio − 1",
            "mean and standard deviation; 0 is the policy that sampled, as the first update is but "
            "for rounding",
            [
                line(
                    "all updates",
                    lambda one: _less_one(one.figure("ratio_mean")),
                    spread=lambda one: one.figure("ratio_std"),
                ),
                line(
                    "the first",
                    lambda one: _less_one(one.figure("first_ratio_mean")),
                    "series1",
                    spread=lambda one: one.figure("first_ratio_std"),
                ),
            ],
            True,
        ),
        (
            "Clip fraction",
            "share of steps whose ratio is outside the clip, above and below",
            [
                _plain(line, "clip_fraction_high", "above", 0),
                _plain(line, "clip_fraction_low", "below", 1),
            ],
            True,
        ),
        (
            _COUNTED,
            f"of {trained[-1].groups}; nothing is learnt from them",
            [_plain(line, "zero_groups")],
            True,
        ),
        ("Gradient norm", "before clipping", [_plain(line, "grad_norm")], True),
        (
            "Seconds an iteration",
            "",
            [
                line(part, lambda one, part=part: one.seconds.get(part), _class(n))
                for n, part in enumerate(parts[:_SERIES])
            ],
            True,
        ),
    ]
    if has_kl:
        kl = ("KL to the base model", "mean of the trained steps", [_plain(line, "kl")], True)
        wanted.insert(2, kl)
    extra = list(dict.fromkeys(key for one in trained for key in one.cotraining))
    wanted += [
        (
            f"Co-training: {key}",
            "",
            [line(key, lambda one, key=key: one.cotraining.get(key))],
            False,
        )
        for key in extra
    ]
    return [
        panel(title, note, lines, zero=zero, whole=title == _COUNTED)
        for title, note, lines, zero in wanted
    ]


def _plain(line: Any, key: str, name: str | None = None, series: int = 0) -> Line:
    found: Line = line(name or key, lambda one: one.figure(key), _class(series))
    return found


def _less_one(ratio: float | None) -> float | None:
    return None if ratio is None else ratio - 1


def _probes(evaluated: Evaluations, quality: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return a small plot for each further judge of the evaluations, and for each component.

    Args:
        quality: the verdict of a guard whose measures are among the judges: they are explained,
            and drawn with the range of photographs.
    """
    explanations = quality["explanations"] if quality else {}
    measures = quality["measures"] if quality else {}
    panels = []
    for table, title in (("components", "Reward component: {}"), ("probes", "{}")):
        found = [getattr(one, table) for one in evaluated.values()]
        names = list(dict.fromkeys(name for one in found for name in one))
        if table == "components" and len(names) < 2:
            continue
        for name in names:

            def pick(
                one: TrainEvaluation, table: str = table, name: str = name
            ) -> TrainEstimate | None:
                figures: dict[str, TrainEstimate] = getattr(one, table)
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
    """Return the rows of the guard's table."""
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


def _samples(folder: Path, iterations: Sequence[int]) -> dict[str, Any]:
    """Return rows of the same prompts' images over time, evenly spread over the run."""
    found = [n for n in iterations if (folder / "samples" / f"{n:06}").is_dir()]
    chosen = [found[place] for place in _spread(len(found), SAMPLE_ROWS)]
    if not chosen:
        return {"names": [], "rows": []}
    names = sorted(path.stem for path in (folder / "samples" / f"{chosen[-1]:06}").glob("*.png"))
    names = [names[place] for place in _spread(len(names), SAMPLE_COLUMNS)]
    paths = [folder / "samples" / f"{n:06}" / f"{name}.png" for n in chosen for name in names]
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
