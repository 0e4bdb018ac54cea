"""Reads the tensors of weights files, safetensors or torch's; no code in them is ever run."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realbench.errors import RealBenchError

if TYPE_CHECKING:
    from torch import Tensor


def read_checkpoint(path: Path, *, key: str = "", strip_prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU.

    Args:
        path: ``.safetensors``; any other is read by ``torch.load`` with ``weights_only=True``.
        key: entry of a torch checkpoint that holds them; dots lead into entries of entries.
        strip_prefix: taken off the names that begin with it, such as ``"module."``.

    Raises:
        RealBenchError: the file cannot be read, holds more than tensors, or lacks the entry.
    """
    whole = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    state = whole
    for step in key.split(".") if key else ():
        if not isinstance(state, Mapping) or step not in state:
            raise RealBenchError(f"{path} has no entry {key!r}: correct weights.key of the card")
        state = state[step]
    tensors = _tensors(state)
    if not tensors:
        entries = ", ".join(map(str, list(state)[:5])) if isinstance(state, Mapping) else "none"
        raise RealBenchError(
            f"{path} holds no tensors (its entries: {entries}): the card's weights.key says "
            "which entry has them"
        )
    return {name.removeprefix(strip_prefix): value for name, value in tensors.items()}


def _tensors(state: Any) -> dict[str, Tensor]:
    import torch

    if not isinstance(state, Mapping):
        return {}
    return {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RealBenchError(f"{path} is not a safetensors file: {error}") from error


def _torch(path: Path) -> Any:
    import torch

    try:
        # Training scripts keep their arguments beside the weights: attributes, and no code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RealBenchError(
            f"{path} is refused: it is no torch file, or holds more than tensors, which would "
            "run code when loaded; get the authors' file, or convert it where you trust it"
        ) from error
    except Exception as error:  # the reader of a damaged file fails in any way
        reason = (str(error).strip().splitlines() or ["damaged"])[0][:150]
        raise RealBenchError(f"{path} cannot be read as torch weights: {reason}") from error
