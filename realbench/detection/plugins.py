"""Detectors of other packages: entry points of the group ``realbench.detectors``.

An entry point names a function that builds a detector from its card, and the card lies in the
folder of the package that has the function::

    [project.entry-points."realbench.detectors"]
    high-frequency = "my_detector:build"

The entry point's name is the detector's, and a family that other cards may name. Listing plug-ins
reads metadata and cards; a plug-in's code runs when its detector is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from realbench.errors import RealBenchError, UsageError
from realbench.text import first_line, printable

if TYPE_CHECKING:
    import numpy as np
    import torch

    from realbench.detection.cards import Card
    from realbench.detection.detector import Detector

GROUP = "realbench.detectors"


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package."""

    entry: EntryPoint

    @property
    def name(self) -> str:
        """Of the detector, and of its family."""
        return self.entry.name

    @property
    def package(self) -> str:
        """The distribution and its version, such as ``"my-detector 1.0"``."""
        dist = self.entry.dist
        return "an unknown package" if dist is None else f"{dist.name} {dist.version}"

    def __str__(self) -> str:
        return f"plug-in {printable(self.name)!r} of {printable(self.package)}"

    @property
    def folder(self) -> Path:
        """The folder of the entry point's package, found without running its code.

        Raises:
            UsageError: there is no such package, or the entry point names a lone module.
        """
        path: list[str] | None = None
        folder: Path | None = None
        for part in self.entry.module.split("."):
            try:
                spec = find_spec(part) if path is None else PathFinder.find_spec(part, path)
            except (ImportError, ValueError, OSError) as error:
                raise UsageError(f"{self}: {self.entry.module} is not found ({error})") from error
            if spec is None:
                raise UsageError(
                    f"{self}: there is no module {self.entry.module!r}: install the package again"
                )
            if spec.submodule_search_locations is None:
                break  # a module of the package before it
            path = list(spec.submodule_search_locations)
            folder = Path(path[0])
        if folder is None:
            raise UsageError(
                f"{self}: {self.entry.module!r} is a module by itself: put it into a package, "
                "with card.toml beside it"
            )
        return folder

    def identity(self) -> str:
        """Return what tells this version of the code from others: 64 hexadecimal digits.

        That is the package's version and the Python files of its folder, so that scores in the
        cache are not found again after a change, released or not.
        """
        folder = self.folder
        digest = hashlib.sha256(self.package.encode())
        for file in sorted(folder.rglob("*.py")):
            digest.update(str(file.relative_to(folder)).encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()

    def build(self, card: Card) -> Detector:
        """Run the plug-in's function and return the detector that it builds of ``card``.

        Raises:
            UsageError: the code cannot be imported, fails, or builds no detector; one line.
        """
        from realbench.detection.detector import Detector

        try:
            function: Callable[[Card], Any] = self.entry.load()
        except Exception as error:  # whatever importing somebody's code may raise
            raise UsageError(
                f"{self} cannot be imported ({_told(error)}): install what it needs, or uninstall "
                "it"
            ) from error
        if not callable(function):
            raise UsageError(
                f"{self}: {self.entry.value} is a {type(function).__name__}, not a function that "
                "takes a card and returns a detector"
            )
        try:
            detector = function(card)
        except RealBenchError:
            raise
        except Exception as error:
            raise UsageError(f"{self} cannot build its detector ({_told(error)})") from error
        if not isinstance(detector, Detector):
            raise UsageError(
                f"{self}: {self.entry.value} returns a {type(detector).__name__}, which is no "
                "realbench.detection.detector.Detector"
            )
        if any(getattr(detector, n) != getattr(card, n) for n in ("name", "level", "fingerprint")):
            raise UsageError(
                f"{self}: its detector must have the name, level and fingerprint of its card"
            )
        return CheckedDetector(self, detector)


class CheckedDetector:
    """A plug-in's detector whose failures end in one line that names the plug-in.

    It is a :class:`~realbench.detection.detector.Detector`.
    """

    def __init__(self, plugin: Plugin, detector: Detector) -> None:
        self._plugin = plugin
        self._detector = detector
        self.name, self.level = detector.name, detector.level
        self.card, self.fingerprint = detector.card, detector.fingerprint

    def prepare(self, image: np.ndarray) -> torch.Tensor:
        """See :meth:`realbench.detection.detector.Detector.prepare`."""
        import torch

        with self._explained("prepare an image"):
            prepared = self._detector.prepare(image)
        good = isinstance(prepared, torch.Tensor) and prepared.dtype == torch.uint8
        if not good or prepared.ndim != 4 or prepared.shape[1] != 3:
            raise RealBenchError(
                f"{self._plugin}: prepare returns {_kind(prepared)}, not a uint8 tensor of shape "
                "(views, 3, S, S)"
            )
        return prepared

    def logits(self, batch: torch.Tensor) -> torch.Tensor:
        """See :meth:`realbench.detection.detector.Detector.logits`."""
        import torch

        with self._explained("score a batch"):
            logits = self._detector.logits(batch)
        if not isinstance(logits, torch.Tensor) or logits.shape != (len(batch),):
            raise RealBenchError(
                f"{self._plugin}: logits returns {_kind(logits)}, not a tensor of shape "
                f"({len(batch)},)"
            )
        return logits.detach().float().cpu()

    def to(self, device: str) -> Self:
        """See :meth:`realbench.detection.detector.Detector.to`."""
        with self._explained(f"move to {device}"):
            self._detector = self._detector.to(device)
        return self

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        try:
            yield
        except (RealBenchError, MemoryError):
            raise
        except Exception as error:
            if "out of memory" in str(error).lower():
                raise  # said elsewhere, with what to do
            raise RealBenchError(f"{self._plugin} cannot {action} ({_told(error)})") from error


def _kind(value: object) -> str:
    shape = getattr(value, "shape", None)
    kind = getattr(value, "dtype", type(value).__name__)
    return f"{kind} of shape {tuple(shape)}" if shape is not None else f"a {kind}"


@dataclass(frozen=True)
class Plugins:
    """What is installed, by name, and what is left out and why, one line each."""

    usable: dict[str, Plugin]
    problems: list[str]


def find_plugins(bundled: list[str]) -> Plugins:
    """Return the plug-ins whose names are free; a bundled detector keeps its name.

    Their cards are not read here.
    """
    by_name: dict[str, list[Plugin]] = {}
    for entry in entry_points(group=GROUP):
        by_name.setdefault(entry.name, []).append(Plugin(entry))
    usable, problems = {}, []
    for name, plugins in sorted(by_name.items()):
        first = plugins[0]
        if name in bundled:
            problems.append(f"{first} is left out: a bundled detector has this name")
        elif len(plugins) > 1:
            packages = " and ".join(sorted(printable(one.package) for one in plugins))
            problems.append(
                f"plug-in {printable(name)!r} is left out, for {packages} both have one of this "
                "name: uninstall one"
            )
        else:
            usable[name] = first
    return Plugins(usable, problems)


def find_family(family: str) -> Plugin | None:
    """Return the plug-in whose family a card names, or None."""
    found = [Plugin(entry) for entry in entry_points(group=GROUP, name=family)]
    return found[0] if len(found) == 1 else None


def _told(error: Exception) -> str:
    kind, first = type(error).__name__, first_line(error)
    return kind if first == kind else f"{kind}: {first}"
