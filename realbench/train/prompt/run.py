"""A training of a prompt-rewriting model, from its config to the exported rewriter.

GRPO (arXiv 2402.03300) by TRL, as RealGen's first half (arXiv 2512.00473): the model rewrites a
prompt several times, the frozen image model makes an image of each rewrite, and the rewrites
whose images (and texts) are worth more than their group's become likelier.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.generation.language_model import (
    REWRITER_FILE,
    REWRITER_FOLDER,
    find_trained,
    load_language_model,
)
from realbench.generation.pipeline import Lora, Pipeline, PipelineOptions
from realbench.generation.rewriting import (
    end_tokens,
    instruction_text,
    is_chat,
    likeliest_answers,
)
from realbench.reward.reward import build_reward
from realbench.runs.files import output_folder
from realbench.runs.folder import MANIFEST_FILE, SUMMARY_FILE, locked, now
from realbench.text import printable
from realbench.train import run_folder
from realbench.train.evaluation import heldout_judge
from realbench.train.machine import check_trackers, log_figures, log_grid, start_trackers
from realbench.train.progress import Progress
from realbench.train.prompt.config import PromptTrainConfig
from realbench.train.prompt.evaluation import Evaluation
from realbench.train.prompt.export import export_rewriter
from realbench.train.prompt.reward_functions import RewardFunctions
from realbench.train.prompt.rewarding import PipelinePainter, Rewarder
from realbench.train.prompt.trainer import (
    gathered,
    latest_checkpoint,
    make_trainer,
    training_order,
    trl_options,
)
from realbench.train.prompts import Prompts, choose_prompts, digest
from realbench.train.summary import summarize
from realbench.train.watch import HackingWatch

_EVALUATED_AT_ONCE = 16
# TRL's figures, by the names under which they are logged here.
_FIGURES = {
    "kl": "approx_kl",
    "entropy": "entropy",
    "clip_ratio/region_mean": "clip_fraction",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "completions/mean_length": "tokens",
}


@dataclass(frozen=True)
class PromptTrainResult:
    """What a training came to.

    Attributes:
        out: the run's folder.
        log: the lines of ``log.jsonl``: iteration 0 is the evaluation before the training.
        summary: as in ``summary.json``.
        stop_reason: ``"complete"`` or ``"hacking"``.
        rewriter: the exported folder.
    """

    out: Path
    log: list[dict[str, Any]]
    summary: dict[str, Any]
    stop_reason: str
    rewriter: Path


def train(
    config: PromptTrainConfig,
    *,
    out: str | Path,
    progress: Callable[[Progress], None] | None = None,
) -> PromptTrainResult:
    """Train a model; a run that was cut off goes on when it is made again with the same ``out``.

    Args:
        config: the settings.
        out: the run's folder.
        progress: called as the run goes on.

    Raises:
        UsageError: the config cannot be used, or ``out`` holds another run.
        RealBenchError: a model or detector cannot be loaded or fails; checkpoints are kept.
    """
    import torch

    folder = output_folder(out)
    check_trackers(config.tracking)
    prompts = choose_prompts(config)
    instruction_text(config.writing.instruction)
    if find_trained(config.model.source) is not None:
        raise UsageError(
            f"{printable(config.model.source)} is a trained rewriter: train its base model, with "
            "another --out"
        )
    options = trl_options(config, folder, dtype=_dtype(config))
    run = _Run(config, folder, prompts, options, progress or (lambda _: None))
    try:
        if not options.should_save:
            return run.train()
        with locked(folder, holder="training"):
            return run.train()
    except torch.OutOfMemoryError as error:
        raise RealBenchError(
            "not enough memory: lower training.batch_size, prompts_per_iteration or "
            "pipeline.batch_size, set training.gradient_checkpointing or pipeline.offload; "
            "checkpoints are kept"
        ) from error


def _dtype(config: PromptTrainConfig) -> str:
    import torch

    if config.model.dtype != "auto":
        return config.model.dtype
    on_gpu = config.model.device != "cpu" and torch.cuda.is_available()
    return "bfloat16" if on_gpu else "float32"


class _Run:
    """A run in its folder, in one process of possibly several."""

    def __init__(
        self,
        config: PromptTrainConfig,
        out: Path,
        prompts: Prompts,
        options: Any,
        tell: Callable[[Progress], None],
    ) -> None:
        self.config = config
        self.out = out
        self.prompts = prompts
        self.texts = digest([list(prompts.training.items()), list(prompts.evaluation.items())])
        self.options = options
        self.tell = tell
        self.is_main = bool(options.should_save)
        self.log: list[dict[str, Any]] = []
        self.values = config.model_dump(mode="json")

    def train(self) -> PromptTrainResult:
        """Go on from the last checkpoint to the end."""
        self.tell(Progress("loading"))
        earlier = run_folder.check_continues(self.out, self.values, self.texts, kind="prompt")
        self._check_schedule(earlier)
        checkpoint, done = latest_checkpoint(self.out)
        self._load()
        if self.is_main:
            self.log = run_folder.rewind_log(self.out, done)
            self._restore_watch(checkpoint)
        self.trainer.accelerator.wait_for_everyone()
        if not self.is_main:
            self.log = run_folder.read_log(self.out)
        left = done < self.config.training.iterations and not self.is_hacked()
        if not left and (self.out / REWRITER_FOLDER / REWRITER_FILE).is_file():
            return self._result()
        self._write_manifest(earlier)
        self._start_trackers(done + 1)
        if left:
            self.trainer.train(
                resume_from_checkpoint=None if checkpoint is None else str(checkpoint)
            )
        else:
            self.trainer._load_from_checkpoint(str(checkpoint))
        return self._finish()

    def is_hacked(self) -> bool:
        """Whether the run is to end because the reward is being gamed."""
        return self.config.evaluation.stop_on_hacking and any(
            (one.get("evaluation") or {}).get("warning") for one in self.log
        )

    def tell_stage(self, stage: str, done: int) -> None:
        """Report how far the run is."""
        reward = next((one["reward"] for one in reversed(self.log) if "reward" in one), None)
        self.tell(Progress(stage, done, self.config.training.iterations, reward))

    def evaluate(self, iteration: int) -> dict[str, Any]:
        """Evaluate the model as it is; only the first process does, the others wait."""
        found: list[Any] = [None]
        if self.is_main:
            self.tell_stage("evaluating", iteration)
            model = self.trainer.accelerator.unwrap_model(self.trainer.model)
            model.eval()
            found = [self.evaluation(iteration, self._writer(model))]
            model.train()
            self.tell_stage("training", iteration)
            if found[0]["warning"]:
                warnings.warn(str(found[0]["warning"]), RealBenchWarning, stacklevel=2)
        broadcast_object_list(found)  # all processes stop at the same warning
        evaluated: dict[str, Any] = found[0]
        return evaluated

    def write_down(self, record: dict[str, Any]) -> None:
        """Add a line to the log, and to what tracks the run."""
        self.log.append(record)
        if not self.is_main:
            return
        run_folder.append_log(self.out, record)
        log_figures(self.trainer.accelerator, record)
        grid = self.evaluation.grid(record["iteration"]) if "evaluation" in record else None
        if grid is not None:
            from PIL import Image

            with Image.open(grid) as image:
                log_grid(self.trainer.accelerator, image, record["iteration"])

    # --- Beginning and end ----------------------------------------------------------------------

    def _load(self) -> None:
        config, device = self.config, str(self.options.device)
        dtype = _dtype(config) if config.lora.enabled else "float32"
        model, tokenizer = load_language_model(
            config.model.source,
            revision=config.model.revision,
            dtype=dtype,
            device=device,
            role="language model",
        )
        reward = None if config.reward is None else build_reward(config.reward, device=device)
        self.painter = self._painter(device)
        self.rewarder = Rewarder(
            config.text, chat=is_chat(tokenizer), reward=reward, painter=self.painter
        )
        if self.rewarder.names != tuple(config.weights):  # TRL takes them by position
            raise RuntimeError(f"terms {self.rewarder.names} for weights {config.weights}")
        self.described = reward.describe() if reward is not None else {"components": []}
        heldout = heldout_judge(config.evaluation.heldout, reward, device)
        self.instruction = instruction_text(config.writing.instruction)
        self.functions = RewardFunctions(
            self.rewarder,
            config.weights,
            seed=config.seed,
            group_size=config.training.group_size,
            gather=gathered(lambda: self.trainer),
            end_tokens=end_tokens(model, tokenizer),
        )
        count = config.training.iterations * config.training.prompts_per_iteration
        self.trainer = make_trainer(
            config,
            self.options,
            model,
            tokenizer,
            originals=training_order(self.prompts.training, count, config.seed),
            instruction=self.instruction,
            functions=self.functions.functions(),
            callback=RunCallback(self),
        )
        self.evaluation = Evaluation(
            self.prompts.evaluation,
            self.rewarder,
            config.weights,
            self.out,
            seed=config.seed,
            columns=config.evaluation.columns,
            heldout=heldout,
            watch=HackingWatch() if heldout is not None else None,
        )

    def _painter(self, device: str) -> PipelinePainter | None:
        given = self.config.pipeline
        if given is None:
            return None
        chosen = PipelineOptions(
            model=given.source,
            revision=given.revision,
            loras=tuple(Lora.parse(one) for one in given.loras),
            steps=given.steps,
            guidance=given.guidance,
            width=given.width,
            height=given.height,
            extra=given.arguments,
            device=device if given.device == "auto" else given.device,
            dtype=given.dtype,
            offload=given.offload,
        )
        return PipelinePainter(Pipeline(chosen), given.batch_size)

    def _writer(self, model: Any) -> Callable[[list[str]], Any]:
        tokenizer = self.trainer.processing_class

        def write(texts: list[str]) -> list[Any]:
            return [
                answer
                for start in range(0, len(texts), _EVALUATED_AT_ONCE)
                for answer in likeliest_answers(
                    model,
                    tokenizer,
                    texts[start : start + _EVALUATED_AT_ONCE],
                    self.instruction,
                    max_tokens=self.config.writing.max_tokens,
                )
            ]

        return write

    def _check_schedule(self, earlier: dict[str, Any] | None) -> None:
        """Refuse another number of iterations where the learning rate depends on it."""
        training = self.config.training
        before = ((earlier or {}).get("config") or {}).get("training", {}).get("iterations")
        if training.schedule != "constant" and before not in (None, training.iterations):
            raise UsageError(
                f"{printable(self.out)} holds a run of {before} iterations, on which its "
                f"{training.schedule} schedule depends: give another --out"
            )

    def _write_manifest(self, earlier: dict[str, Any] | None) -> None:
        trained = [p.numel() for p in self.trainer.model.parameters() if p.requires_grad]
        self.manifest = {
            "train_format": run_folder.FORMAT,
            "kind": "prompt",
            "versions": run_folder.versions(),
            "config": self.values,
            "prompts_sha256": self.texts,
            "n_prompts": len(self.prompts.training),
            "n_evaluation_prompts": len(self.prompts.evaluation),
            "model": self.config.model.source,
            "instruction_text": self.instruction,
            "pipeline": self.painter and self.painter.pipeline.describe(),
            "reward": self.described | {"weights": self.config.weights},
            "trained_parameters": sum(trained),
            "device": str(self.options.device),
            "processes": self.options.world_size,
            "started": (earlier or {}).get("started") or now(),
            "finished": None,
            "stop_reason": "interrupted",
        }
        if self.is_main:
            run_folder.write_json(self.out / MANIFEST_FILE, self.manifest)

    def _start_trackers(self, first: int) -> None:
        from accelerate.tracking import filter_trackers

        accelerator = self.trainer.accelerator
        accelerator.project_configuration.set_directories(str(self.out))
        accelerator.log_with = filter_trackers(
            list(self.config.tracking.trackers), accelerator.logging_dir
        )
        start_trackers(accelerator, self.config.tracking, str(self.out), self.values, first)

    def _restore_watch(self, checkpoint: Path | None) -> None:
        if checkpoint is None or self.evaluation.watch is None:
            return
        state = json.loads((checkpoint / "trainer_state.json").read_bytes())
        kept = state["stateful_callbacks"][RunCallback.__name__]["attributes"]["watch"]
        self.evaluation.watch.load_state_dict(kept)

    def _finish(self) -> PromptTrainResult:
        export_rewriter(self.trainer, self.config, self.out)
        self.trainer.accelerator.end_training()
        self.manifest["stop_reason"] = "hacking" if self.is_hacked() else "complete"
        self.manifest["finished"] = now()
        result = self._result()
        if self.is_main:
            run_folder.write_json(self.out / SUMMARY_FILE, result.summary)
            run_folder.write_json(self.out / MANIFEST_FILE, self.manifest)
            from realbench.train.report.prompt import write_prompt_report

            write_prompt_report(self.out)
        return result

    def _result(self) -> PromptTrainResult:
        reason = "hacking" if self.is_hacked() else "complete"
        summary = summarize(self.log, self.values) | {"stop_reason": reason} if self.is_main else {}
        return PromptTrainResult(self.out, self.log, summary, reason, self.out / REWRITER_FOLDER)


class RunCallback(TrainerCallback, ExportableState):
    """What a run does as TRL's trainer goes on; its state is part of every checkpoint."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._evaluation: dict[str, Any] | None = None
        self._started = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """Return what a run that goes on needs to know."""
        evaluation = getattr(self._run, "evaluation", None)
        watch = getattr(evaluation, "watch", None)
        kept = None if watch is None else watch.state_dict()
        return {"args": {}, "attributes": {"watch": kept}}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0 and not self._run.log:
            found = self._run.evaluate(0)
            self._run.write_down({"iteration": 0, "evaluation": found})
        self._run.tell_stage("training", state.global_step)
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        config, step = self._run.config, state.global_step
        self._seconds = time.perf_counter() - self._started
        self._evaluation = None
        if step % config.evaluation.every == 0 or step == config.training.iterations:
            self._evaluation = self._run.evaluate(step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "reward" not in logs:
            return  # the summary at the end
        record: dict[str, Any] = {"iteration": state.global_step, **self._run.functions.figures}
        record |= {
            ours: float(logs[theirs])
            for theirs, ours in _FIGURES.items()
            if logs.get(theirs) is not None
        }
        record["seconds"] = {"iteration": round(self._seconds, 3)}
        if self._evaluation is not None:
            record["evaluation"] = self._evaluation
        self._run.write_down(record)
        self._run.tell_stage("training", state.global_step)
        self._started = time.perf_counter()
        if self._run.is_hacked():
            control.should_save = control.should_training_stop = True
