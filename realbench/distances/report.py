"""The report's section on distances: a dot plot, the figures, maps, and pictures side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from realbench.distances.compare import KINDS, PLENTY, Distances
from realbench.report import plots, wording
from realbench.report.gallery import ImagePaths, thumbnails

_FOLDERS = 12  # with a map and pictures, the closest first
_PICTURES = 3  # most typical ones, and as many least typical ones


def distances_section(
    record: Distances | None,
    reference: Mapping[str, Any] | None,
    table: pd.DataFrame,
    paths: ImagePaths,
) -> dict[str, Any] | None:
    """Return what ``distances/section.html`` shows; None without distances.

    Args:
        record: as in ``summary.json``.
        reference: the photographs' entry there.
        table: the run's, with the columns of the map.
        paths: where each (folder, image) lies.
    """
    if not record or reference is None:
        return None
    compared = [one for one in record["folders"] if one["figures"]]
    compared.sort(key=lambda one: one["figures"]["auc"]["rank"])
    entries: list[tuple[str, Mapping[str, Any], bool]] = [
        (reference["folder"], record["photographs"], True),
        *((one["folder"], one["figures"], False) for one in compared),
    ]
    axis = plots.fitted_axis(plots.ends(f["auc"] for _, f, _ in entries), landmark=0.5)
    axes = {
        kind: _axis(plots.ends(figures[kind] for _, figures, _ in entries))
        for kind in record["photographs"]
    }
    rows: list[dict[str, Any]] = [
        {
            "folder": name,
            "figures": figures,
            "is_reference": is_photographs,
            "plot": plots.interval_row(
                figures["auc"],
                axis,
                label=f"{name}: two-sample AUC {wording.number(figures['auc']['estimate'])}",
                class_="photo" if is_photographs else "model",
                reference=0.5,
            ),
            "marks": {
                kind: plots.interval_row(
                    figures[kind],
                    axis_of_it,
                    label=f"{name}: {KINDS[kind].title}",
                    class_="photo" if is_photographs else "model",
                    reference=record["photographs"][kind]["estimate"],
                )
                for kind, axis_of_it in axes.items()
            },
        }
        for name, figures, is_photographs in entries
    ]
    maps = _maps(reference["folder"], [one["folder"] for one in compared[:_FOLDERS]], table, paths)
    return {
        "n": record["n"],
        "few": record["n"] < PLENTY,
        "kinds": {kind: KINDS[kind] for kind in record["photographs"]},
        "rows": rows,
        "labels": plots.axis_labels(axis),
        "features": record["features"],
        "maps": maps,
        "hidden": len(compared) - len(maps),
    }


def _axis(values: list[float | None]) -> plots.Axis:
    """Return an axis without ticks that just holds the values."""
    finite = [value for value in values if value is not None]
    low, high = min(finite), max(finite)
    air = 0.06 * (high - low) or 1.0
    return plots.Axis(low - air, high + air, ())


def _maps(
    reference: str, folders: list[str], table: pd.DataFrame, paths: ImagePaths
) -> list[dict[str, Any]]:
    """Return each folder's map and its most and least typical pictures."""
    shown = table[table["map_x"].notna()]
    places = shown[["map_x", "map_y"]].to_numpy(float)
    low, high = np.quantile(places, [0.005, 0.995], axis=0)
    x, y = ((places - low) / np.maximum(high - low, 1e-9)).clip(0, 1).T
    names = shown["folder"].to_numpy()
    maps = []
    for folder in folders:
        sets = [
            (x[names == name], y[names == name], class_)
            for name, class_ in ((reference, "photo"), (folder, "model"))
        ]
        own = shown[(names == folder) & shown["typicality"].notna()]
        own = own.sort_values(["typicality", "image"], ascending=[False, True])
        strips = {
            "Most like the photographs": own.head(_PICTURES),
            "Least like the photographs": own.iloc[: -_PICTURES - 1 : -1],
        }
        maps.append(
            {
                "folder": folder,
                "plot": plots.cloud(sets, label=f"Map of {folder} and the photographs"),
                "strips": {
                    title: _beside(folder, reference, rows, paths) for title, rows in strips.items()
                },
            }
        )
    return maps


def _beside(
    folder: str, reference: str, rows: pd.DataFrame, paths: ImagePaths
) -> list[dict[str, Any]]:
    """Return thumbnails of pictures, each followed by its nearest photograph."""
    pairs = zip(rows["image"], rows["nearest_photograph"], strict=True)
    keys = [key for image, photo in pairs for key in ((folder, image), (reference, photo))]
    pictures = thumbnails(paths.get(key) for key in keys)
    return [
        {"uri": uri, "width": width, "height": height, "image": image, "near": owner == reference}
        for (owner, image), (uri, width, height) in zip(keys, pictures, strict=True)
    ]
