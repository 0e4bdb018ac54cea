"""The trained rewriter as a folder that ``realbench generate --rewriter`` takes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from realbench.errors import RealBenchError
from realbench.files import file_sha256
from realbench.generation.language_model import (
    REWRITER_FILE,
    REWRITER_FOLDER,
    REWRITER_FORMAT,
    gguf_path,
)
from realbench.generation.rewriting import instruction_text
from realbench.text import printable
from realbench.train.prompt.config import PromptTrainConfig


def export_rewriter(trainer: Any, config: PromptTrainConfig, out: Path) -> Path:
    """Write the trained weights, the tokenizer and what the model was told, whole or not at all.

    With LoRA the weights are the adapter's, and the folder names the base model. All processes
    must call it.

    Args:
        trainer: TRL's, with the model.
        config: of the run.
        out: the run's folder.

    Returns:
        The folder, ``out/rewriter``.

    Raises:
        RealBenchError: it cannot be written.
    """
    target = out / REWRITER_FOLDER
    partial = out / f".{REWRITER_FOLDER}.part"
    try:
        if trainer.is_world_process_zero():
            shutil.rmtree(partial, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()
        trainer.save_model(str(partial), _internal_call=True)
        if trainer.is_world_process_zero():
            # A pickle of TRL's options, which nobody needs.
            (partial / "training_args.bin").unlink(missing_ok=True)
            trainer.processing_class.save_pretrained(partial)
            _name_base(partial / "adapter_config.json", config.model.source)
            record = json.dumps(_record(config), indent=2, ensure_ascii=False)
            (partial / REWRITER_FILE).write_text(record + "\n", "utf-8")
            _replace(partial, target)
        trainer.accelerator.wait_for_everyone()
    except OSError as error:
        raise RealBenchError(f"cannot write {printable(target)}: {error.strerror}") from error
    return target


def _record(config: PromptTrainConfig) -> dict[str, Any]:
    base = None
    if config.lora.enabled:
        gguf = gguf_path(config.model.source)
        base = {
            "source": _lasting(config.model.source),
            "revision": config.model.revision,
            "sha256": None if gguf is None else file_sha256(gguf),
        }
    return {
        "rewriter_format": REWRITER_FORMAT,
        "base": base,
        "instruction": config.writing.instruction,
        "instruction_text": instruction_text(config.writing.instruction),
        "max_tokens": config.writing.max_tokens,
    }


def _lasting(source: str) -> str:
    """Return a source that means the same from another working directory."""
    return os.path.abspath(source) if Path(source).exists() else source


def _name_base(path: Path, source: str) -> None:
    """Have the adapter name its base as the user did, not as a GGUF file calls itself."""
    if path.is_file():
        values = json.loads(path.read_bytes())
        values["base_model_name_or_path"] = _lasting(source)
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")


def _replace(partial: Path, target: Path) -> None:
    """Put a folder in another's place; what is left of the other is removed."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
