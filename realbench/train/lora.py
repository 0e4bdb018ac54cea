"""LoRA on the transformer: put on, switched off for the base model, exported for diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realbench.errors import RealBenchError, UsageError
from realbench.files import write_whole
from realbench.runs.files import checked, make_folder
from realbench.text import printable
from realbench.train.config import LoraConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from realbench.train.flow_models.flow_model import FlowModel

LORA_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for


def add_lora(model: FlowModel, config: LoraConfig) -> dict[str, nn.Parameter]:
    """Freeze the transformer, add LoRA in float32, and return the trained parameters by name.

    Raises:
        UsageError: the model has LoRA already, or has no such layers.
        RealBenchError: ``start_from`` cannot be read or does not fit.
    """
    import torch
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    transformer: Any = model.transformer
    if any(isinstance(module, BaseTunerLayer) for module in transformer.modules()):
        raise UsageError("the model has LoRA already: load it anew for each training")
    transformer.requires_grad_(False)
    targets = list(config.targets or model.lora_targets)
    peft = PeftConfig(r=config.rank, lora_alpha=config.alpha, target_modules=targets)
    try:
        if hasattr(transformer, "add_adapter"):
            transformer.add_adapter(peft)
        else:
            inject_adapter_in_model(peft, transformer)
    except ValueError as error:
        raise UsageError(
            f"lora.targets {', '.join(targets)}: {' '.join(str(error).split())[:300]}"
        ) from error
    trained = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.to(torch.float32)
    transformer.eval()  # dropout would make the first ratio differ from 1
    if config.start_from is not None:
        _start_from(Path(config.start_from), transformer, config.rank / config.alpha)
    return trained


@contextmanager
def base_model(transformer: nn.Module) -> Iterator[None]:
    """Switch LoRA off; gradients must not be needed meanwhile."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [one for one in transformer.modules() if isinstance(one, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def write_lora(model: FlowModel, weights: dict[str, Tensor], config: LoraConfig, out: Path) -> Path:
    """Write trained weights in the format that ``pipe.load_lora_weights(out)`` reads.

    The factor alpha / rank is multiplied into the second matrix: programs that read LoRA files
    disagree on where alpha is written, and all take a file without it to mean a factor of 1.

    Returns:
        The file, in the folder ``out``; an older one is replaced at once.

    Raises:
        RealBenchError: it cannot be written.
    """
    scale = config.alpha / config.rank
    layers = {
        name.replace(".default.", "."): value * scale if ".lora_B." in name else value
        for name, value in weights.items()
    }

    def write(partial: Path) -> None:
        if hasattr(model.pipeline, "save_lora_weights"):
            model.pipeline.save_lora_weights(
                partial.parent, transformer_lora_layers=layers, weight_name=partial.name
            )
        else:
            from safetensors.torch import save_file

            save_file(
                {f"transformer.{name}": value.contiguous() for name, value in layers.items()},
                partial,
            )

    target = out / LORA_FILE
    make_folder(out)
    checked(target, lambda: write_whole(target, write))  # safetensors, whatever the name is
    return target


def _start_from(source: Path, transformer: nn.Module, unscale: float) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = source / LORA_FILE if source.is_dir() else source
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RealBenchError(f"cannot read lora.start_from {printable(path)}: {error}") from error
    own: dict[str, Any] = {n: p for n, p in transformer.named_parameters() if p.requires_grad}
    given = {name.removeprefix("transformer."): value for name, value in found.items()}
    wanted = {name.replace(".default.", "."): p for name, p in own.items()}
    if {n: tuple(v.shape) for n, v in given.items()} != {
        n: tuple(p.shape) for n, p in wanted.items()
    }:
        raise RealBenchError(
            f"lora.start_from {printable(path)} does not fit: its layers or its rank are others "
            "than the config's"
        )
    for name, parameter in wanted.items():
        value = given[name].to(parameter)
        parameter.data.copy_(value * unscale if ".lora_B." in name else value)
