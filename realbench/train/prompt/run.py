"""A training of a prompt-rewriting model, from its config to the exported rewriter.

GRPO (arXiv 2402.03300) by TRL, as RealGen's first half (arXiv 2512.00473): the model rewrites a
prompt several times, the frozen image model makes an image of each rewrite, and the rewrites
whose images (and texts) are worth more than their group's become likelier.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from realbench.errors import UsageError
from realbench.generation import language_model, rewriting
from realbench.generation.language_model import REWRITER_FILE, REWRITER_FOLDER
from realbench.generation.pipeline import Lora, Pipeline, PipelineOptions
from realbench.generation.rewriting import Answer
from realbench.generation.run import image_seed
from realbench.reward.reward import build_reward
from realbench.runs.files import make_folder, output_folder, write_atomically
from realbench.text import printable
from realbench.train import evaluation, machine
from realbench.train.prompt import rewarding
from realbench.train.prompt import trainer as trl
from realbench.train.prompt.config import PromptTrainConfig
from realbench.train.prompts import Prompts, choose_prompts, digest
from realbench.train.records import TrainEvaluation, TrainIteration, TrainRun, mean_over
from realbench.train.run import Progress, Run, at_work

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
class PromptTrainResult(TrainRun):
    """What a training came to."""

    @property
    def rewriter(self) -> Path:
        """The exported folder."""
        return self.out / REWRITER_FOLDER


def train(
    config: PromptTrainConfig,
    *,
    out: str | Path,
    progress: Callable[[Progress], None] | None = None,
) -> PromptTrainResult:
    """Train a model; a run that was cut off goes on when it is made again with the same ``out``.

    Args:
        progress: called as the run goes on.

    Raises:
        UsageError: the config cannot be used, or ``out`` holds another run.
        RealBenchError: a model or detector cannot be loaded or fails; checkpoints are kept.
    """
    folder = output_folder(out)
    machine.check_trackers(config.tracking)
    prompts = choose_prompts(config)
    rewriting.instruction_text(config.writing.instruction)
    if language_model.find_trained(config.model.source) is not None:
        raise UsageError(
            f"{printable(config.model.source)} is a trained rewriter: train its base model, with "
            "another --out"
        )
    on_gpu = config.model.device != "cpu" and torch.cuda.is_available()
    dtype = config.model.dtype_on("cuda" if on_gpu else "cpu")
    options = trl.trl_options(config, folder, dtype=dtype)
    remedy = (
        "lower training.batch_size, prompts_per_iteration or pipeline.batch_size, set "
        "training.gradient_checkpointing or pipeline.offload"
    )
    with at_work(folder, is_main=options.should_save, remedy=remedy):
        texts = digest([list(prompts.training.items()), list(prompts.evaluation.items())])
        run = Run(folder, "prompt", config, texts, is_main=options.should_save, tell=progress)
        return _Training(config, run, prompts, options, dtype).train()


class _Training:
    """A run in its folder, in one process of possibly several."""

    def __init__(
        self, config: PromptTrainConfig, run: Run, prompts: Prompts, options: Any, dtype: str
    ) -> None:
        self.config = config
        self.run = run
        self.prompts = prompts
        self.options = options
        self._check_schedule()
        device = str(options.device)
        model, tokenizer = language_model.load_language_model(
            config.model.source,
            revision=config.model.revision,
            dtype=dtype if config.lora.enabled else "float32",
            device=device,
            role="language model",
        )
        reward = None if config.reward is None else build_reward(config.reward, device=device)
        self.painter = _painter(config, device)
        self.rewarder = rewarding.Rewarder(
            config.text, chat=rewriting.is_chat(tokenizer), reward=reward, painter=self.painter
        )
        if self.rewarder.names != tuple(config.weights):  # TRL takes them by position
            raise RuntimeError(f"terms {self.rewarder.names} for weights {config.weights}")
        described: dict[str, Any] = {"components": []} if reward is None else reward.describe()
        self.described = described | {"weights": config.weights}
        run.check_reward(self.described)
        self.heldout = evaluation.heldout_judge(config.evaluation.heldout, reward, device)
        self.instruction = rewriting.instruction_text(config.writing.instruction)
        self.functions = rewarding.RewardFunctions(
            self.rewarder,
            config.weights,
            seed=config.seed,
            group_size=config.training.group_size,
            gather=trl.gathered,
            end_tokens=rewriting.end_tokens(model, tokenizer),
        )
        count = config.training.iterations * config.training.prompts_per_iteration
        self.trainer = trl.make_trainer(
            config,
            options,
            model,
            tokenizer,
            originals=trl.training_order(prompts.training, count, config.seed),
            instruction=self.instruction,
            functions=self.functions.functions(),
            callback=_Callback(self),
        )

    def train(self) -> PromptTrainResult:
        """Go on from the last checkpoint to the end."""
        run, trainer = self.run, self.trainer
        checkpoint, done = trl.latest_checkpoint(run.out)
        run.rewind(done, trainer.accelerator.wait_for_everyone)
        left = done < self.config.training.iterations and run.stop_reason() is None
        if not left and (run.out / REWRITER_FOLDER / REWRITER_FILE).is_file():
            found = PromptTrainResult.read(run.out)
            if found.manifest.finished:
                return found
        weights = [one.numel() for one in trainer.model.parameters() if one.requires_grad]
        run.begin(
            n_prompts=len(self.prompts.training),
            n_evaluation_prompts=len(self.prompts.evaluation),
            model=self.config.model.source,
            instruction_text=self.instruction,
            pipeline=self.painter and self.painter.pipeline.describe(),
            reward=self.described,
            trained_parameters=sum(weights),
            device=str(self.options.device),
            processes=self.options.world_size,
        )
        self._start_trackers(done + 1)
        if left:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        else:
            trainer._load_from_checkpoint(str(checkpoint))
        trl.export_rewriter(trainer, self.config, run.out)
        trainer.accelerator.end_training()
        run.finish()
        return PromptTrainResult(run.out, run.manifest, tuple(run.log), run.summary())

    # --- Evaluation -----------------------------------------------------------------------------

    def evaluate(self, iteration: int) -> TrainEvaluation:
        """Evaluate the model as it is; only the first process does, the others wait."""
        found: list[Any] = [None]
        if self.run.is_main:
            self.run.tell("evaluating", iteration)
            model = self.trainer.accelerator.unwrap_model(self.trainer.model)
            model.eval()
            found = [self._evaluated(iteration, model)]
            model.train()
            self.run.tell("training", iteration)
        broadcast_object_list(found)  # all processes stop at the same warning
        evaluated: TrainEvaluation = found[0]
        return evaluated

    def write_down(self, record: TrainIteration) -> None:
        """Add a line to the log, and to what tracks the run."""
        self.run.write_down(record)
        if self.run.is_main:
            machine.log_figures(self.trainer.accelerator, record)

    def _evaluated(self, iteration: int, model: Any) -> TrainEvaluation:
        """Judge the likeliest rewrites of the evaluation's prompts, as ``generate`` makes them."""
        started = time.perf_counter()
        texts = list(self.prompts.evaluation.values())
        answers = [
            answer
            for start in range(0, len(texts), _EVALUATED_AT_ONCE)
            for answer in rewriting.likeliest_answers(
                model,
                self.trainer.processing_class,
                texts[start : start + _EVALUATED_AT_ONCE],
                self.instruction,
                max_tokens=self.config.writing.max_tokens,
            )
        ]
        seeds = [image_seed(self.config.seed, name) for name in self.prompts.evaluation]
        rewarded = self.rewarder(answers, texts, seeds)
        reward = rewarding.total(rewarded.values, self.config.weights)
        groups = np.arange(len(texts))
        words = np.array([len((prompt or "").split()) for prompt in rewarded.prompts], np.float64)
        self._save(iteration, answers, rewarded, reward)
        return evaluation.judged(
            iteration,
            self.run.evaluations,
            reward=reward,
            components=rewarded.values,
            heldout=self._judged(rewarded, texts),
            probes={"words": mean_over(words, groups)},
            groups=groups,
            started=started,
        )

    def _judged(self, rewarded: rewarding.Rewarded, texts: list[str]) -> np.ndarray | None:
        """Return the held-out score of each prompt; 0 where there is no image."""
        if self.heldout is None:
            return None
        values = np.zeros(len(texts), np.float32)
        full = [place for place, image in enumerate(rewarded.images) if image is not None]
        if full:
            images = [rewarded.images[place] for place in full]
            values[full] = np.asarray(self.heldout(images, [texts[place] for place in full]))
        return values

    def _save(
        self,
        iteration: int,
        answers: list[Answer],
        rewarded: rewarding.Rewarded,
        reward: np.ndarray,
    ) -> None:
        rows = zip(self.prompts.evaluation.items(), answers, rewarded.prompts, reward, strict=True)
        lines = [
            {
                "id": name,
                "prompt": text,
                "answer": answer.text,
                "ended": answer.ended,
                "rewritten": rewritten,
                "reward": float(value),
                "components": {k: float(v[row]) for k, v in rewarded.values.items()},
            }
            for row, ((name, text), answer, rewritten, value) in enumerate(rows)
        ]
        path = self.run.out / evaluation.FOLDER / f"{iteration:06}.jsonl"
        make_folder(path.parent)
        write_atomically(
            path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines).encode()
        )
        made = next((one for one in rewarded.images if one is not None), None)
        if made is None:
            return
        blank = np.full((made.height, made.width, 3), 255, np.uint8)
        arrays = [
            blank if one is None else np.asarray(one.convert("RGB")) for one in rewarded.images
        ]
        images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        named = evaluation.EvaluationSet.of(self.prompts.evaluation, 1)
        evaluation.save_samples(self.run.out, iteration, images, named)
        grid = evaluation.save_grid(self.run.out, iteration, images, self.config.evaluation.columns)
        machine.log_grid(self.trainer.accelerator, grid, iteration)

    # --- Beginning ------------------------------------------------------------------------------

    def _check_schedule(self) -> None:
        """Refuse another number of iterations where the learning rate depends on it."""
        training = self.config.training
        if training.schedule == "constant" or self.run.earlier is None:
            return
        before = self.run.earlier.config["training"]["iterations"]
        if before != training.iterations:
            raise UsageError(
                f"{printable(self.run.out)} holds a run of {before} iterations, on which its "
                f"{training.schedule} schedule depends: give another --out"
            )

    def _start_trackers(self, first: int) -> None:
        from accelerate.tracking import filter_trackers

        accelerator = self.trainer.accelerator
        accelerator.project_configuration.set_directories(str(self.run.out))
        accelerator.log_with = filter_trackers(
            list(self.config.tracking.trackers), accelerator.logging_dir
        )
        machine.start_trackers(
            accelerator, self.config.tracking, str(self.run.out), self.run.config, first
        )


def _painter(config: PromptTrainConfig, device: str) -> rewarding.PipelinePainter | None:
    given = config.pipeline
    if given is None:
        return None
    own = {"source", "loras", "arguments", "device", "batch_size"}
    chosen = PipelineOptions(
        model=given.source,
        loras=tuple(Lora.parse(one) for one in given.loras),
        extra=given.arguments,
        device=device if given.device == "auto" else given.device,
        **given.model_dump(exclude=own),
    )
    return rewarding.PipelinePainter(Pipeline(chosen), given.batch_size)


class _Callback(TrainerCallback):
    """What a run does as TRL's trainer goes on."""

    def __init__(self, training: _Training) -> None:
        self._training = training
        self._evaluation: TrainEvaluation | None = None
        self._started = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0 and not self._training.run.log:
            found = self._training.evaluate(0)
            self._training.write_down(TrainIteration(iteration=0, evaluation=found))
        self._training.run.tell("training", state.global_step)
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        self._seconds = time.perf_counter() - self._started
        evaluated = self._training.run.is_evaluated(step)
        self._evaluation = self._training.evaluate(step) if evaluated else None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "reward" not in logs:
            return  # the summary at the end
        figures: dict[str, Any] = {
            **self._training.functions.figures,
            **{o: float(logs[t]) for t, o in _FIGURES.items() if logs.get(t) is not None},
            "seconds": {"iteration": round(self._seconds, 3)},
        }
        if self._evaluation is not None:
            figures["evaluation"] = self._evaluation
        run = self._training.run
        self._training.write_down(TrainIteration(iteration=state.global_step, **figures))
        run.tell("training", state.global_step)
        self._started = time.perf_counter()
        if run.stop_reason() is not None:
            control.should_save = control.should_training_stop = True
