"""TRL's GRPOTrainer as a config wants it, and the rewriter that comes out of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from realbench.errors import RealBenchError, UsageError
from realbench.files import file_sha256
from realbench.generation.language_model import (
    REWRITER_FILE,
    REWRITER_FOLDER,
    RewriterBase,
    TrainedRewriter,
    gguf_path,
)
from realbench.generation.rewriting import instruction_text, is_chat, question
from realbench.text import printable
from realbench.train.prompt.config import PromptTrainConfig
from realbench.train.run import CHECKPOINTS

if TYPE_CHECKING:
    from trl import GRPOConfig

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def trl_options(config: PromptTrainConfig, out: Path, *, dtype: str) -> GRPOConfig:
    """Return TRL's options; making them sets up accelerate and the device.

    Args:
        dtype: ``"bfloat16"`` computes in it (the trained weights stay float32).

    Raises:
        UsageError: an iteration's rewrites cannot be shared out over the processes.
    """
    from accelerate import PartialState
    from trl import GRPOConfig

    training, loss = config.training, config.loss
    cpu = config.model.device == "cpu"
    processes = PartialState(cpu=cpu).num_processes
    passes, rest = divmod(training.images, training.batch_size * processes)
    if rest:
        raise UsageError(
            f"{training.images} rewrites an iteration cannot be shared out over {processes} "
            f"processes in batches of {training.batch_size}: change training.batch_size"
        )
    warms_up = training.schedule == "constant" and training.warmup
    schedule = "constant_with_warmup" if warms_up else training.schedule
    per_component = config.reward is not None and config.reward.advantages == "per-component"
    return GRPOConfig(
        output_dir=str(out / CHECKPOINTS),
        use_cpu=cpu,
        bf16=dtype == "bfloat16",
        seed=config.seed,
        max_steps=training.iterations,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=passes,
        num_generations=training.group_size,
        shuffle_dataset=False,  # the data are in their order already
        max_completion_length=config.writing.max_tokens,
        temperature=config.writing.temperature,
        top_p=config.writing.top_p,
        learning_rate=training.learning_rate,
        lr_scheduler_type=schedule,
        warmup_steps=training.warmup,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        gradient_checkpointing=training.gradient_checkpointing,
        loss_type=loss.kind,
        epsilon=loss.clip,
        beta=loss.kl,
        scale_rewards=loss.scale,
        multi_objective_aggregation=(
            "normalize_then_sum" if per_component else "sum_then_normalize"
        ),
        reward_weights=list(config.weights.values()),
        save_strategy="steps",
        save_steps=config.checkpoints.every,
        save_total_limit=config.checkpoints.keep,
        logging_steps=1,
        report_to="none",  # what is tracked is logged by the run
        disable_tqdm=True,
        log_level="error",
        dataloader_pin_memory=False,
    )


def make_trainer(
    config: PromptTrainConfig,
    options: GRPOConfig,
    model: Any,
    tokenizer: Any,
    *,
    originals: Sequence[tuple[str, str]],
    instruction: str,
    functions: Sequence[Callable[..., Any]],
    callback: Any,
) -> Any:
    """Return the trainer.

    Args:
        originals: ids and texts, a group's prompt after the other's, in the order of training.
        functions: of the reward, in the order of the config's weights.
        callback: of transformers, called as the training goes on.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    chat = is_chat(tokenizer)
    data = [
        {
            "prompt": question(instruction, text, chat=chat),
            "original": text,
            "prompt_id": name,
        }
        for name, text in originals
    ]
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[*functions],
        args=options,
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        peft_config=_lora(config, model) if config.lora.enabled else None,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_order(prompts: Mapping[str, str], count: int, seed: int) -> list[tuple[str, str]]:
    """Return so many prompts, by id: each once in random order, then each again.

    A longer list begins with the shorter one of the same seed.
    """
    given = list(prompts.items())
    chosen: list[tuple[str, str]] = []
    while len(chosen) < count:
        rng = np.random.default_rng([seed, len(chosen)])
        chosen += [given[place] for place in rng.permutation(len(given))]
    return chosen[:count]


def latest_checkpoint(out: Path) -> tuple[Path | None, int]:
    """Return a run's last whole checkpoint and its iteration, (None, -1) where there is none.

    What a killed run left half written is deleted: the trainer's state is the last file that it
    writes.
    """
    found: tuple[Path | None, int] = (None, -1)
    folder = out / CHECKPOINTS
    for path in sorted(folder.glob("checkpoint-*")) if folder.is_dir() else []:
        match = _CHECKPOINT.fullmatch(path.name)
        if match is None or not path.is_dir():
            continue
        try:
            whole = json.loads((path / "trainer_state.json").read_bytes())["global_step"]
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(path, ignore_errors=True)
            continue
        if whole > found[1]:
            found = (path, int(whole))
    return found


def gathered(rows: np.ndarray) -> np.ndarray:
    """Return the rows of all processes, in the order of their ranks."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather

    together: Any = gather(torch.from_numpy(rows).to(PartialState().device))
    return np.asarray(together.cpu().numpy())


def _lora(config: PromptTrainConfig, model: Any) -> Any:
    from peft import LoraConfig

    lora = config.lora
    blocks = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    layers = None
    if lora.last_layers is not None:
        if blocks is None or lora.last_layers > blocks:
            raise UsageError(f"lora.last_layers is {lora.last_layers}, the model has {blocks}")
        layers = list(range(blocks - lora.last_layers, blocks))
    targets: Any = lora.targets and list(lora.targets)
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft takes any number
        lora_dropout=lora.dropout,
        target_modules=targets or _linear_layers(model),
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


def _linear_layers(model: Any) -> list[str]:
    """Return the names of all linear layers but the output's."""
    from torch import nn

    output = model.get_output_embeddings()
    names = {
        path.rpartition(".")[2]
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not output
    }
    if not names:
        raise UsageError(f"{type(model).__name__} has no linear layers: set lora.targets")
    return sorted(names)


def export_rewriter(trainer: Any, config: PromptTrainConfig, out: Path) -> Path:
    """Write the trained weights, the tokenizer and what the model was told, whole or not at all.

    With LoRA the weights are the adapter's, and the folder names the base model. All processes
    must call it.

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
            record = _record(config, target).model_dump_json(indent=2)
            (partial / REWRITER_FILE).write_text(record + "\n", "utf-8")
            _replace(partial, target)
        trainer.accelerator.wait_for_everyone()
    except OSError as error:
        raise RealBenchError(f"cannot write {printable(target)}: {error.strerror}") from error
    return target


def _record(config: PromptTrainConfig, folder: Path) -> TrainedRewriter:
    base = None
    if config.lora.enabled:
        gguf = gguf_path(config.model.source)
        base = RewriterBase(
            source=_lasting(config.model.source),
            revision=config.model.revision,
            sha256=None if gguf is None else file_sha256(gguf),
        )
    return TrainedRewriter(
        base=base,
        instruction=config.writing.instruction,
        instruction_text=instruction_text(config.writing.instruction),
        max_tokens=config.writing.max_tokens,
        folder=folder,
    )


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
