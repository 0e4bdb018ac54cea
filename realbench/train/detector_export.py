"""Writes a detector that was trained here as a folder that ``--detector`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from realbench.config.toml_text import as_toml
from realbench.detection.cards import Card
from realbench.detection.families.views import ViewsDetector
from realbench.detection.specs import CARD_FILE
from realbench.files import file_sha256, write_whole

_WEIGHTS_FILE = "weights.safetensors"
_FAMILIES = ("whole-image", "native-crops")


def can_be_exported(detector: ViewsDetector) -> bool:
    """Return whether the family reads the network's own weights back."""
    return detector.card.family in _FAMILIES


def export_detector(detector: ViewsDetector, folder: Path) -> Path:
    """Write card and weights to ``folder/NAME-cotrained``, and return that folder."""
    from safetensors.torch import save_file

    card = detector.card
    name = f"{card.name[:54]}-cotrained"
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    state = {key: value.cpu().contiguous() for key, value in detector.network.state_dict().items()}
    write_whole(target / _WEIGHTS_FILE, lambda path: save_file(state, path))
    text = _card_text(card, name, file_sha256(target / _WEIGHTS_FILE))
    write_whole(target / CARD_FILE, lambda path: path.write_text(text, encoding="utf-8"))
    return target


def _card_text(card: Card, name: str, sha256: str) -> str:
    fields: dict[str, Any] = card.model_dump(
        mode="json", exclude_none=True, exclude_defaults=True, exclude={"name", "weights"}
    )
    fields = {"name": name} | fields
    fields["description"] = f"{card.description}; co-trained with a generator"
    fields["weights"] = {"source": "local", "file": _WEIGHTS_FILE, "sha256": sha256}
    return as_toml(fields)
