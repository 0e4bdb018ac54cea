"""The pictures of a report: which images to show, and their thumbnails."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from PIL import Image

from realbench.errors import RealBenchError
from realbench.images import thumbnail_jpeg

THUMBNAIL_SIZE = 256
PICTURE_BUDGET = 240
FOLDERS_WITH_PICTURES = 60

ImagePaths = Mapping[tuple[str, str], Path]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image as the report shows it: thumbnail (a data URI or ``None``) and its scores."""

    folder: str
    image: str
    realism: float
    detectors: dict[str, float]
    disagreement: float
    verdict: str
    uri: str | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class FolderPictures:
    """The extremes of one folder; with few images ``most`` holds them all, ``least`` nothing."""

    folder: str
    n: int
    most: list[Picture] = field(default_factory=list)
    least: list[Picture] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every image of the folder is shown."""
        return not self.least


def pictures_per_row(n_folders: int) -> int:
    """Return how many of a folder's most (and least) real images to show, 1 to 6.

    The budget keeps the file in the range that a mail attachment allows.
    """
    return max(1, min(6, PICTURE_BUDGET // (2 * max(1, min(n_folders, FOLDERS_WITH_PICTURES)))))


def extremes(rows: pd.DataFrame, k: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the ``k`` most and the ``k`` least real rows, each with its extreme first.

    With at most ``2 k`` rows all of them come back as the first frame, so that no image is shown
    twice. Equal scores are ordered by name.
    """
    ordered = rows.sort_values(["realism", "image"], ascending=[False, True], kind="stable")
    if len(ordered) <= 2 * k:
        return ordered, ordered.iloc[:0]
    return ordered.iloc[:k], ordered.iloc[: -k - 1 : -1]


def folder_pictures(
    scored: pd.DataFrame, folders: Sequence[str], detectors: Sequence[str], paths: ImagePaths
) -> list[FolderPictures]:
    """Pick and load the most and least real images of each folder, in the order given."""
    shown = folders[:FOLDERS_WITH_PICTURES]
    k = pictures_per_row(len(folders))
    groups = dict(iter(scored.groupby("folder", sort=False)))
    picked = {name: extremes(groups[name], k) for name in shown if name in groups}
    frames = [frame for pair in picked.values() for frame in pair]
    loaded = load_pictures(pd.concat(frames), detectors, paths) if frames else {}
    result = []
    for name, (most, least) in picked.items():
        keys = [[(name, str(image)) for image in frame["image"]] for frame in (most, least)]
        rows = [[loaded[key] for key in part] for part in keys]
        result.append(FolderPictures(name, len(groups[name]), rows[0], rows[1]))
    return result


def disputed_pictures(
    scored: pd.DataFrame, detectors: Sequence[str], paths: ImagePaths, k: int = 6
) -> list[Picture]:
    """Load the ``k`` images on which the detectors disagree most."""
    columns = ["disagreement", "folder", "image"]
    rows = scored.sort_values(columns, ascending=[False, True, True], kind="stable").head(k)
    return list(load_pictures(rows, detectors, paths).values())


def load_pictures(
    rows: pd.DataFrame, detectors: Sequence[str], paths: ImagePaths
) -> dict[tuple[str, str], Picture]:
    """Load the thumbnails of ``rows`` beside one another; keys are (folder, image)."""
    keys = [
        (str(folder), str(image))
        for folder, image in zip(rows["folder"], rows["image"], strict=True)
    ]
    found = dict(zip(keys, thumbnails(paths.get(key) for key in keys), strict=True))
    pictures = {}
    for key, row in zip(keys, rows.to_dict("records"), strict=True):
        uri, width, height = found[key]
        pictures[key] = Picture(
            folder=key[0],
            image=key[1],
            realism=float(row["realism"]),
            detectors={name: float(row[name]) for name in detectors},
            disagreement=float(row.get("disagreement", float("nan"))),
            verdict=str(row.get("verdict", "")),
            uri=uri,
            width=width,
            height=height,
        )
    return pictures


def thumbnails(
    paths: Iterable[Path | None], size: int = THUMBNAIL_SIZE
) -> list[tuple[str | None, int, int]]:
    """Load thumbnails of at most ``size`` pixels a side, in the order given.

    Returns:
        for each path a data URI, width and height; the URI is ``None`` where the path is, or
        where the file has gone or can no longer be read.
    """
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda path: _thumbnail(path, size), paths))


def _thumbnail(path: Path | None, size: int) -> tuple[str | None, int, int]:
    if path is None:
        return None, size, size
    try:
        data = thumbnail_jpeg(path, size=size)
    except (RealBenchError, OSError):
        return None, size, size
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}", width, height
