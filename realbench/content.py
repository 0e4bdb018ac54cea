"""Finds the project's content (detector cards, prompt suites), installed or in a checkout."""

from __future__ import annotations

from pathlib import Path

from realbench.errors import RealBenchError

_PACKAGE = Path(__file__).resolve().parent


def content_path(name: str) -> Path:
    """Return the folder of bundled content called ``name``, such as ``"detectors"``.

    A wheel carries it under ``realbench/_content``; in a checkout (also an editable install)
    it lies beside the package, and is used from there.

    Raises:
        RealBenchError: neither place holds it, so the installation is incomplete.
    """
    for root in (_PACKAGE / "_content", _PACKAGE.parent):
        folder = root / name
        if folder.is_dir():
            return folder
    raise RealBenchError(
        f"bundled content {name!r} is missing beside {_PACKAGE}: install the package again"
    )
