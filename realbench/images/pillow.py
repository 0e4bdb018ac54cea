"""Pillow with settings of its own.

Pillow keeps settings in its modules: LOAD_TRUNCATED_IMAGES, MAX_IMAGE_PIXELS, MAX_TEXT_CHUNK, the
loading strategy of GIF files, the table of plug-ins, and it tells of odd files by warnings. They
belong to the program that uses this library: they must not decide what an image scores, and
changing them, even for a moment, would be seen by that program's other threads. So the reader has
its own instances of Pillow's Python modules; the compiled ones have no settings and are shared.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import PIL

_NAME = "realbench._pillow"
_COMPILED = ("_imaging", "_imagingcms", "_webp", "_avif")
_PLUGINS = ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif", "Jpeg2K", "Ppm", "Tga")

_TEXT_BYTES = 16 * 2**20
"""Up to which a PNG's color profile is inflated."""


def _own_instance() -> Any:
    """Import Pillow's Python modules once more, under a name of ours; return their Image."""
    assert PIL.__file__ is not None
    spec = importlib.util.spec_from_file_location(
        _NAME, PIL.__file__, submodule_search_locations=list(PIL.__path__)
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = package
    for name in _COMPILED:
        try:
            compiled = importlib.import_module(f"PIL.{name}")
        except ImportError:  # Pillow was built without the format
            continue
        sys.modules[f"{_NAME}.{name}"] = compiled
    spec.loader.exec_module(package)
    image: Any = importlib.import_module(f"{_NAME}.Image")
    for name in _PLUGINS:
        try:
            importlib.import_module(f"{_NAME}.{name}ImagePlugin")
        except ImportError:  # a Pillow of before the format
            continue
    image.MAX_IMAGE_PIXELS = None  # realbench.images.bounds has the limits
    png: Any = sys.modules[f"{_NAME}.PngImagePlugin"]
    png.MAX_TEXT_CHUNK = _TEXT_BYTES
    # What an odd file makes Pillow warn of is of no use to anybody here, and a program that turns
    # warnings into errors would find its images damaged.
    silent = SimpleNamespace(warn=lambda *_, **__: None)
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{_NAME}.") and hasattr(module, "warnings"):
            vars(module)["warnings"] = silent
    return image


if TYPE_CHECKING:
    from PIL import Image
else:
    Image = _own_instance()

__all__ = ["Image"]
