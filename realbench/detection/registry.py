"""Finds detectors by name or folder and loads them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from realbench.config.settings import checked_settings
from realbench.content import content_path
from realbench.detection.calibration import CALIBRATION_FILE, read_calibration
from realbench.detection.cards import Card, read_card
from realbench.detection.plugins import Plugin, find_plugins
from realbench.detection.specs import CARD_FILE
from realbench.errors import RealBenchError, UsageError

if TYPE_CHECKING:
    from realbench.detection.detector import Detector

ENSEMBLE_PREFIX = "ensemble:"
EMBEDDED_DETECTORS: tuple[str, ...] = ("semantic-lite", "trace-lite")  # need no download
DEFAULT_DETECTORS: tuple[str, ...] = (f"{ENSEMBLE_PREFIX}default",)  # them, with their weights


def list_detectors() -> list[str]:
    """Return the names of all detectors, sorted; not all of them have weights here.

    They are the bundled ones and those of installed packages (:mod:`.plugins`) that have a card.
    """
    return sorted([*_bundled(), *plugin_cards()[0]])


def plugin_cards() -> tuple[dict[str, Card], list[str]]:
    """Return the cards of other packages' detectors, and why some are left out, one line each."""
    found = find_plugins(_bundled())
    cards, problems = {}, list(found.problems)
    for name, plugin in found.usable.items():
        try:
            cards[name] = _plugin_card(plugin)
        except RealBenchError as error:
            problems.append(f"{error}")
    return cards, problems


def _plugin_card(plugin: Plugin) -> Card:
    """Read a plug-in's card; its code does not run."""
    folder = plugin.folder
    if not (folder / CARD_FILE).is_file():
        raise UsageError(
            f"{plugin}: there is no {CARD_FILE} in {folder}: its package must carry it as data"
        )
    try:
        card = read_card(folder)
    except UsageError as error:
        raise UsageError(f"{plugin}: {error}") from error
    if card.name != plugin.name:
        raise UsageError(
            f"{plugin}: its card is named {card.name!r}: give card and entry point one name"
        )
    return card


def _bundled() -> list[str]:
    folder = content_path("detectors")
    return sorted(entry.name for entry in folder.iterdir() if (entry / CARD_FILE).is_file())


def find_card(name_or_folder: str | Path) -> Card:
    """Return the card of a detector's name, or of a folder with a ``card.toml``.

    A name is a bundled detector's or an installed package's. Torch is not imported.

    Raises:
        UsageError: no such detector, or its card is not valid.
    """
    name = str(name_or_folder)
    if name.startswith(ENSEMBLE_PREFIX):
        raise UsageError(f"{name} is an ensemble, and one detector is wanted here")
    bundled = _bundled()
    if name in bundled:
        return read_card(content_path("detectors") / name)
    plugins = find_plugins(bundled)
    if name in plugins.usable:
        return _plugin_card(plugins.usable[name])
    folder = Path(name_or_folder)
    if (folder / CALIBRATION_FILE).is_file():
        return _calibrated(folder)
    if folder.is_dir():
        return read_card(folder)
    left_out = [line for line in plugins.problems if line.startswith(f"plug-in {name!r} ")]
    if left_out:
        raise UsageError(left_out[0])
    if (content_path("quality") / name / "measure.toml").is_file():
        raise UsageError(
            f"{name} measures quality and gives no P(real), so it is no detector: --quality {name}"
        )
    known = [*bundled, *plugins.usable]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else "give a name or a folder with a card.toml"
    raise UsageError(f"no detector {name!r} (known: {', '.join(known)}): {hint}")


def _calibrated(folder: Path) -> Card:
    saved = read_calibration(folder)
    base = read_card(folder) if (folder / CARD_FILE).is_file() else find_card(saved.base(folder))
    return base.calibrated_by(saved.spec, folder / CALIBRATION_FILE, saved.fingerprint)


def check_names(names: Sequence[str]) -> None:
    """Refuse an ensemble of no detectors, or with two of one name.

    Raises:
        UsageError: either of them.
    """
    if not names:
        raise UsageError("no detector is given: name at least one")
    twice = next((name for n, name in enumerate(names) if name in names[:n]), None)
    if twice is not None:
        raise UsageError(f"detector {twice!r} is given twice: name each one once")


@checked_settings
def load_detector(
    detector: str | Path | Card,
    device: str = "cpu",
    *,
    weights: str | Path | Mapping[str, str | Path] | None = None,
) -> Detector:
    """Load a detector by its name, bundled or of an installed package, or by a card's folder.

    Args:
        detector: such as ``"trace-lite"`` or ``"./my_detector"``, or a card.
        device: where the network goes, such as ``"cpu"`` or ``"cuda:0"``.
        weights: the user's own file or folder, or one by part (``"weights"``, ``"backbone"``).

    Raises:
        UsageError: no such detector or family, or an invalid card.
        RealBenchError: the weights are missing, altered or do not fit the network.
    """
    from realbench.detection.families import build

    card = detector if isinstance(detector, Card) else find_card(detector)
    if weights is not None:
        card = card.with_weights(
            {"weights": weights} if isinstance(weights, str | Path) else weights
        )
    return build(card).to(device)
