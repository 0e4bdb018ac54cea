"""Whether format, size or encoder alone would tell two classes apart, without the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realbench.images import ImageFile, UnreadableImage, file_header

# Accuracy above which a guess without the picture is worth a warning; 0.5 is chance.
_SUSPICIOUS = 0.6
_ALPHA = 0.05
# Files of a folder whose headers are read for a note: a shortcut shows in some already.
_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class Header:
    """What a file's header says; ``quality`` is a JPEG's, from 1 to 100, about as it was saved."""

    format: str
    width: int
    height: int
    quality: int | None = None


def read_headers(paths: Iterable[Path]) -> list[Header]:
    """Return the headers of the files that have one."""
    found = []
    for path in paths:
        try:
            found.append(Header(*file_header(path)))
        except UnreadableImage:
            continue
    return found


def shortcut_notes(files: Sequence[tuple[str, ImageFile]], reference: str) -> list[str]:
    """Return what the user should know of folders that could be told from the photographs.

    Folders of which the same is to be said share a note.

    Args:
        files: of the run, with their folders.
    """
    headers = {}
    for name in dict.fromkeys(name for name, _ in files):
        own = [file.path for folder, file in files if folder == name]
        headers[name] = read_headers(own[:: -(-len(own) // _SAMPLE)])
    photographs = headers.pop(reference, [])
    told: dict[str, list[str]] = {}
    for name, its in headers.items():
        if text := warning(find_shortcuts(photographs, its)):
            told.setdefault(text, []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in told.items()]


def find_shortcuts(real: Sequence[Header], generated: Sequence[Header]) -> dict[str, Any]:
    """Return how well a guess from format, size, shape or JPEG quality alone does, by name.

    Each has ``accuracy`` (with both classes weighing the same; 0.5 is chance, and it is the best
    of a single threshold, or of the formats' shares, for these images), ``exploitable``, and
    ``real`` and ``generated``, which say what is most common or in the middle.
    """
    if not real or not generated:
        return {}
    found = {
        "format": _formats([h.format for h in real], [h.format for h in generated]),
        "size": _numbers(
            [h.width * h.height for h in real], [h.width * h.height for h in generated], real,
            generated,
        ),
        "shape": _numbers(
            [h.width / h.height for h in real], [h.width / h.height for h in generated], real,
            generated,
        ),
    }  # fmt: skip
    ours, theirs = ([h.quality for h in of if h.quality is not None] for of in (real, generated))
    if ours and theirs:
        found["encoder"] = _compared(
            ours, theirs, *([f"JPEG {one}" for one in of] for of in (ours, theirs))
        )
    return found


def warning(shortcuts: dict[str, Any]) -> str | None:
    """Return one line for the user where something but the picture tells the classes apart."""
    found = [
        f"{name} ({one['real']} against {one['generated']}) by {100 * one['accuracy']:.0f} %"
        for name, one in shortcuts.items()
        if one["exploitable"]
    ]
    if not found:
        return None
    return (
        f"photographs and generated images can be told apart without looking at them, from their "
        f"{', their '.join(found)} right guesses: figures may measure that; use --matched"
    )


def _formats(real: list[str], generated: list[str]) -> dict[str, Any]:
    ours, theirs = Counter(real), Counter(generated)
    accuracy = sum(
        max(ours[one] / len(real), theirs[one] / len(generated)) for one in {*ours, *theirs}
    )
    return _told(accuracy / 2, accuracy / 2 > _SUSPICIOUS, real, generated)


def _told(
    accuracy: float, exploitable: bool, real: Sequence[str], generated: Sequence[str]
) -> dict[str, Any]:
    common = {"real": _most_common(real), "generated": _most_common(generated)}
    return {"accuracy": accuracy, "exploitable": exploitable, **common}


def _numbers(
    real: list[float], generated: list[float], headers: Sequence[Header], others: Sequence[Header]
) -> dict[str, Any]:
    sizes = ([f"{h.width} × {h.height}" for h in of] for of in (headers, others))
    return _compared(real, generated, *sizes)


def _compared(
    real: Sequence[float], generated: Sequence[float], ours: list[str], theirs: list[str]
) -> dict[str, Any]:
    """Compare two samples by their largest distance of cumulative shares (Kolmogorov, Smirnov)."""
    from scipy.stats import ks_2samp

    test = ks_2samp(real, generated)
    accuracy = (1 + float(test.statistic)) / 2
    exploitable = bool(accuracy > _SUSPICIOUS and test.pvalue < _ALPHA)
    return _told(accuracy, exploitable, ours, theirs)


def _most_common(values: Sequence[str]) -> str:
    value, count = Counter(values).most_common(1)[0]
    return value if count == len(values) else f"mostly {value}"
