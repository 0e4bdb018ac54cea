"""The demo's pictures: photographs that dependencies carry, and renders made on the spot."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from PIL import Image

from realbench import rendering
from realbench.errors import RealBenchError, UsageError
from realbench.text import printable

RENDER_SIZE = 768
RENDERS = 3  # of each kind

_PHOTOS = ("china.jpg", "flower.jpg")  # scikit-learn's sample photographs


def make_demo_folders(out: Path) -> tuple[Path, Path]:
    """Write ``out/photographs`` and ``out/renders``; what is there already is left alone.

    Returns:
        the two folders.

    Raises:
        UsageError: ``out`` has files that are not the demo's.
        RealBenchError: ``out`` is not writable.
    """
    photographs, renders = out / "photographs", out / "renders"
    try:
        if out.is_dir() and any(out.iterdir()) and not renders.is_dir():
            raise UsageError(
                f"{printable(out)} has other files in it: give an empty or a new folder for --out"
            )
        photographs.mkdir(parents=True, exist_ok=True)
        renders.mkdir(parents=True, exist_ok=True)
        for name in _PHOTOS:
            with as_file(files("sklearn.datasets.images") / name) as source:
                shutil.copyfile(source, photographs / name)
        for kind, draw in (("spheres", rendering.spheres), ("mountains", rendering.mountains)):
            for seed in range(RENDERS):
                target = renders / f"{kind}-{seed}.png"
                if not target.exists():
                    Image.fromarray(draw(RENDER_SIZE, seed)).save(target)
    except OSError as error:
        where = error.filename or out
        raise RealBenchError(
            f"cannot write the demo's pictures to {where} ({error.strerror}): give another --out"
        ) from error
    return photographs, renders
