"""Which packages are installed, and how those that are missing are."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from realbench.version import __version__

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "pandas", "scipy", "scikit-learn")


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return each package's version, or ``"not installed"``; nothing of it is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def package_versions() -> dict[str, str]:
    """Return the versions of what decides scores; nothing of it is imported."""
    own = {"realgen": __version__, "python": platform.python_version()}
    return own | installed_versions(_PACKAGES)


def install_command(extra: str) -> str:
    """Return how an extra's packages are installed: from the source, for no index has realgen."""
    return f"python -m pip install '.[{extra}]' in a checkout of RealBench"
