"""Reads and packs weights files; nothing is ever unpickled from them."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realbench.errors import RealBenchError
from realbench.text import first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from realbench.detection.cards import NetworkCard

SCALE = "::scale"  # of the int8 tensor whose name stands before it
_GROUP = 64  # values of a row that share a scale, where there are fewer bits than 8
_BLOCKS = re.compile(r"(backbone\.)?blocks\.")
_BACKBONE = "backbone."  # before the names of a network's transformer
_WORTH_PACKING = 16_384  # values; smaller tensors stay in half precision


def card_tensors(card: NetworkCard, part: str = "weights") -> dict[str, Tensor]:
    """Check a file of the card against its hash and return the tensors that the card names.

    Raises:
        RealBenchError: it is missing, altered, or holds more than tensors.
    """
    card.check_weights(part)
    spec = card.parts[part]
    return read_checkpoint(card.locate(part), key=spec.key, strip_prefix=spec.strip_prefix)


def load_weights(network: nn.Module, card: NetworkCard) -> None:
    """Check the card's weights files against their hashes and load them into ``network``.

    Half-precision weights and packed ones (see :func:`pack`), as the bundled files hold them,
    become float32. What the file lacks is taken from the card's backbone, a transformer that
    several detectors share.

    Raises:
        RealBenchError: the file is missing, altered, holds more than tensors, or is of another
            network.
    """
    state = unpack(card_tensors(card))
    if card.backbone is not None:
        lacking = {name.removeprefix(_BACKBONE) for name in network.state_dict().keys() - state}
        shared = card_tensors(card, "backbone").items()
        needed = {name: value for name, value in shared if name.removesuffix(SCALE) in lacking}
        state |= {_BACKBONE + name: value for name, value in unpack(needed).items()}
    with fitting(card):
        network.load_state_dict(state)


@contextmanager
def fitting(card: NetworkCard, part: str = "weights") -> Iterator[None]:
    """Turn what shows that weights are of another network into one line."""
    try:
        yield
    except KeyError as error:
        raise RealBenchError(
            f"{card.locate(part)} does not fit family {card.family!r} of its card: it has no "
            f"tensor {error}"
        ) from error
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RealBenchError(
            f"{card.locate(part)} does not fit {card.model.architecture!r} of its card: "
            f"{lines[min(1, len(lines) - 1)][:200]}"
        ) from error


def pack(state: Mapping[str, Tensor], bits: int = 8) -> dict[str, Tensor]:
    """Round weights for a small file: matrices to 8 bits or fewer, the rest to half precision.

    A matrix (at least two rows and 16,384 values) becomes int8 in [-127, 127] with one
    half-precision scale per row, its output channel. With fewer ``bits``, the matrices of the
    transformer's blocks become integers in
    [1 - 2^(bits - 1), 2^(bits - 1) - 1] with a scale for each 64 values of a row, stored bit by
    bit: first all the lowest bits, eight to a byte, and so on.

    Args:
        state: float32 tensors and others, which stay as they are.
        bits: of the matrices of ``blocks`` or ``backbone.blocks``, from 3 to 8.
    """
    import torch

    packed: dict[str, Tensor] = {}
    for name, value in state.items():
        if not value.is_floating_point():
            packed[name] = value.contiguous()
        elif value.ndim < 2 or len(value) == 1 or value.numel() < _WORTH_PACKING:
            packed[name] = value.half().contiguous()
        elif bits < 8 and _BLOCKS.match(name):
            half = 2 ** (bits - 1)
            integers, scale = _rounded(value.float().view(len(value), -1, _GROUP), half - 1)
            packed[name] = _bits(integers + half, bits)
            packed[name + SCALE] = scale
        else:
            integers, scale = _rounded(value.float().flatten(1), 127)
            packed[name] = integers.to(torch.int8).view(value.shape)
            packed[name + SCALE] = scale
    return packed


def _rounded(rows: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return integers in [-most, most] for ``rows``, and the scale of each run of values."""
    scale = (rows.abs().amax(dim=-1) / most).clamp(min=1e-7).half()
    return (rows / scale.float()[..., None]).round().clamp(-most, most), scale


def _bits(integers: Tensor, bits: int) -> Tensor:
    import numpy as np
    import torch

    values = integers.to(torch.uint8).flatten().numpy()
    return torch.from_numpy(np.concatenate([np.packbits(values >> n & 1) for n in range(bits)]))


def _from_bits(stored: Tensor, count: int) -> Tensor:
    """Return the ``count`` integers, float32, that :func:`_bits` stored."""
    import numpy as np
    import torch

    bits, rest = divmod(stored.numel() * 8, count)
    if rest or not 3 <= bits < 8:
        raise RuntimeError(f"{stored.numel()} bytes do not hold {count} packed values")
    planes = stored.numpy().reshape(bits, -1)
    values = sum(np.unpackbits(plane, count=count) << n for n, plane in enumerate(planes))
    return torch.from_numpy(np.asarray(values)).float() - 2 ** (bits - 1)


def unpack(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return float32 tensors from those of a file, packed or not.

    Raises:
        RuntimeError: a packed matrix is of another size than its scales.
    """
    unpacked: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(SCALE):
            continue
        scale = state.get(name + SCALE)
        if scale is None:
            unpacked[name] = value.float() if value.is_floating_point() else value
        elif scale.ndim == 2:  # groups of a row
            values = _from_bits(value, scale.numel() * _GROUP).view(*scale.shape, _GROUP)
            unpacked[name] = (values * scale.float()[..., None]).flatten(1)
        else:
            shape = (-1, *[1] * (value.ndim - 1))
            unpacked[name] = value.float() * scale.float().view(shape)
    return unpacked


def read_checkpoint(path: Path, *, key: str = "", strip_prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of a file by name, on the CPU.

    Args:
        path: ``.safetensors``; any other is read by ``torch.load`` with ``weights_only=True``.
        key: entry of a torch checkpoint that holds them; dots lead into entries of entries.
        strip_prefix: taken off the names that begin with it, such as ``"module."``.

    Raises:
        RealBenchError: the file cannot be read, holds more than tensors, or lacks the entry.
    """
    import torch

    state = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    for step in key.split(".") if key else ():
        if not isinstance(state, Mapping) or step not in state:
            raise RealBenchError(f"{path} has no entry {key!r}: correct weights.key of the card")
        state = state[step]
    entries = state if isinstance(state, Mapping) else {}
    tensors = {str(name): v for name, v in entries.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        shown = ", ".join(map(str, list(entries)[:5])) or "none"
        raise RealBenchError(
            f"{path} holds no tensors (its entries: {shown}): the card's weights.key says "
            "which entry has them"
        )
    return {name.removeprefix(strip_prefix): value for name, value in tensors.items()}


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
        raise RealBenchError(
            f"{path} cannot be read as torch weights: {first_line(error)}"
        ) from error
