"""Flow-GRPO: a flow-matching image model is trained with a reward.

An iteration makes a group of images of each of some prompts, with noise in a window of the
sampler's steps (Flow-GRPO, arXiv 2505.05470, and its fast variant); rewards them; compares the
rewards within each group; and moves LoRA weights so that the steps that led to better images
become likelier (:mod:`realbench.train.loss`). Every random choice is a function of the seed, the
iteration and the image, so that a run does not depend on the number of processes, and one that was
killed goes on to the same numbers.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from torch import Tensor

from realbench.errors import RealBenchWarning, UsageError
from realbench.reward.reward import Reward, SplitReward, build_reward, split_reward
from realbench.runs.files import output_folder
from realbench.train import evaluation, machine
from realbench.train.advantages import advantages
from realbench.train.checkpoint import State, latest_checkpoint, load_checkpoint, save_checkpoint
from realbench.train.config import DiffusionConfig
from realbench.train.flow_models import load_flow_model
from realbench.train.groups import ImagePlan, draw_window, global_seed, image_generator, plan_images
from realbench.train.lora import add_lora, write_lora
from realbench.train.prompts import Prompts, choose_prompts, digest
from realbench.train.records import TrainEvaluation, TrainIteration, TrainRun
from realbench.train.rollout import Experience, collect, encode, sample
from realbench.train.run import Progress, Run, at_work
from realbench.train.update import update

if TYPE_CHECKING:
    from accelerate import Accelerator

    from realbench.train.cotrain import Cotraining
    from realbench.train.flow_models.flow_model import FlowModel


@dataclass(frozen=True)
class TrainResult(TrainRun):
    """What a training came to.

    Attributes:
        model: with the trained weights (their running mean, where there is one).
    """

    model: FlowModel


def train(
    config: DiffusionConfig,
    *,
    out: str | Path | None = None,
    model: FlowModel | None = None,
    reward: Reward | SplitReward | None = None,
    heldout: Reward | None = None,
    probes: Mapping[str, evaluation.Probe] | None = None,
    prompts: Sequence[str] | None = None,
    evaluation_prompts: Sequence[str] | None = None,
    cotraining: Cotraining | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train a model; a run that was cut off goes on when it is made again with the same ``out``.

    Args:
        out: the run's folder; without one nothing is kept but the result.
        model: loaded, without LoRA; by default the config's.
        reward: given uint8 (n, 3, H, W); by default the config's.
        heldout: a function of the same kind that is no part of the reward, higher is more real;
            by default the detectors ``evaluation.heldout``.
        probes: further functions, recorded at each evaluation under their names; each returns (n,)
            or one number.
        prompts: texts to train on instead of the config's suite.
        evaluation_prompts: texts to evaluate, likewise.
        cotraining: trains the reward's detectors between iterations
            (:class:`~realbench.train.cotrain.Cotraining`); by default the config's.
        progress: called as the run goes on.

    Raises:
        UsageError: the config cannot be used, or ``out`` holds another run.
        RealBenchError: a model or detector cannot be loaded or fails; checkpoints are kept.
    """
    given = None if out is None else output_folder(out)
    machine.check_trackers(config.tracking)
    chosen = choose_prompts(config, prompts, evaluation_prompts)
    evaluated = evaluation.EvaluationSet.of(chosen.evaluation, config.evaluation.images_per_prompt)
    with contextlib.ExitStack() as stack:
        folder = given or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        accelerator = stack.enter_context(machine.start_accelerator(config, folder))
        stack.enter_context(
            at_work(
                folder,
                is_main=accelerator.is_main_process,
                remedy="lower sampling.batch_size and training.batch_size, or set "
                "memory.gradient_checkpointing and the other options of [memory]",
            )
        )
        run = Run(
            folder,
            "diffusion",
            config,
            digest([list(chosen.training.values()), evaluated.prompts]),
            is_main=accelerator.is_main_process,
            tell=progress,
        )
        training = _Training(config, run, chosen, evaluated, accelerator)
        training.load(model, reward, heldout, probes or {}, cotraining)
        return training.train()


class _Training:
    """A run in its folder, in one process of possibly several."""

    def __init__(
        self,
        config: DiffusionConfig,
        run: Run,
        prompts: Prompts,
        evaluated: evaluation.EvaluationSet,
        accelerator: Accelerator,
    ) -> None:
        self.config = config
        self.run = run
        self.prompts = list(prompts.training.values())
        self.evaluated = evaluated
        self.accelerator = accelerator
        self.steps = 0  # of the optimiser
        self.told_rounding = False
        self.plan_images(0)  # before anything large is loaded: can the images be shared out?

    def load(
        self,
        model: FlowModel | None,
        reward: Reward | SplitReward | None,
        heldout: Reward | None,
        probes: Mapping[str, evaluation.Probe],
        cotraining: Cotraining | None,
    ) -> None:
        """Take what is given, and load the rest as the config says."""
        config, device = self.config, str(self.accelerator.device)
        self.probes = probes
        if reward is not None:
            self.reward = split_reward(reward)
        elif config.reward is not None:
            self.reward = build_reward(config.reward, device=device)
        else:
            raise UsageError("the config has no [reward]: say what the images are rewarded for")
        described = self.reward.describe()
        self.run.check_reward(described)
        self.heldout = heldout or evaluation.heldout_judge(
            config.evaluation.heldout, self.reward, device
        )
        if self.heldout is not None and self.evaluated.n_prompts < 2:
            raise UsageError("a held-out judge needs two evaluation prompts at least")
        self.model = model or load_flow_model(
            config.model.source,
            dtype=config.model.dtype_on(self.accelerator.device.type),
            device=device,
            revision=config.model.revision,
            adapter=config.model.adapter,
        )
        self.cotraining = cotraining
        if cotraining is None and config.cotraining.paired is not None:
            from realbench.train.cotrain import build_cotraining

            self.cotraining = build_cotraining(
                config.cotraining, reward=self.reward, seed=config.seed
            )
        self.state = self._prepare()
        self.facts = {
            "n_prompts": len(self.prompts),
            "n_evaluation_prompts": self.evaluated.n_prompts,
            "model": repr(self.model),
            "reward": described,
            "trained_parameters": sum(p.numel() for p in self.state.parameters.values()),
            "device": device,
            "processes": self.accelerator.num_processes,
        }

    # --- Beginning and end ----------------------------------------------------------------------

    def train(self) -> TrainResult:
        """Go on from the last checkpoint to the end."""
        run, config, total = self.run, self.config, self.config.training.iterations
        path = latest_checkpoint(run.out)
        done = -1
        if path is not None:
            done = load_checkpoint(path, self.state)
            training = config.training
            self.steps = done * training.updates_per_iteration * training.passes
            if self.state.ema is not None:
                self.state.ema.optimization_step = self.steps // config.ema.every
        run.rewind(done, self.accelerator.wait_for_everyone)
        run.begin(**self.facts)
        machine.start_trackers(
            self.accelerator, config.tracking, str(run.out), run.config, first=done + 1
        )
        for iteration in range(done + 1, total + 1):
            if run.stop_reason() is not None:
                break
            run.tell("training", iteration - 1)
            set_seed(global_seed(config.seed, iteration))
            figures = self.iterate(iteration) if iteration else {}
            if run.is_evaluated(iteration):
                figures["evaluation"] = self.evaluate(iteration)
            record = TrainIteration(iteration=iteration, **figures)
            run.write_down(record)
            machine.log_figures(self.accelerator, record)
            if iteration % config.checkpoints.every == 0 or iteration == total:
                self._save(iteration)
        return self._finish()

    def _save(self, iteration: int) -> None:
        save_checkpoint(
            self.run.out,
            iteration,
            self.state,
            accelerator=self.accelerator,
            keep=self.config.checkpoints.keep,
        )
        with self.state.averaged():
            weights = self.state.weights()
        if self.run.is_main:
            write_lora(self.model, weights, self.config.lora, self.run.out / "lora")

    def _finish(self) -> TrainResult:
        run, facts = self.run, {}
        stopped = run.stop_reason()
        if stopped == "risen" or (stopped and latest_checkpoint(run.out) is None):
            self._save(run.log[-1].iteration)
        if self.cotraining is not None:
            facts["reward_end"] = self.reward.describe()
            if run.is_main:
                self.cotraining.save_detectors(run.out / "detectors")
        run.finish(**facts)
        self.accelerator.wait_for_everyone()
        self.model.transformer = self.accelerator.unwrap_model(self.model.transformer)
        if self.state.ema is not None:
            self.state.ema.copy_to(self.state.parameters.values())
        return TrainResult(run.out, run.manifest, tuple(run.log), run.summary(), self.model)

    def _prepare(self) -> State:
        """Add LoRA, and let accelerate wrap the model and the optimiser."""
        memory, training = self.config.memory, self.config.training
        trained = add_lora(self.model, self.config.lora)
        machine.save_memory(self.model, memory)
        optimizer = torch.optim.AdamW(
            trained.values(),
            lr=training.learning_rate,
            betas=training.betas,
            eps=training.epsilon,
            weight_decay=training.weight_decay,
        )
        self.model.transformer, prepared = self.accelerator.prepare(
            self.model.transformer, optimizer
        )
        extra = {} if self.cotraining is None else {"cotraining": self.cotraining}
        inner = self.accelerator.unwrap_model(self.model.transformer)
        state = State(inner, prepared, extra=extra)
        if self.config.ema.enabled:
            # -1: the n-th update keeps min(decay, (1 + n) / (10 + n)) of the mean
            state.ema = EMAModel(
                state.parameters.values(), decay=self.config.ema.decay, update_after_step=-1
            )
        return state

    def _stepped(self) -> None:
        self.steps += 1
        if self.state.ema is not None and self.steps % self.config.ema.every == 0:
            self.state.ema.step(self.state.parameters.values())

    # --- One iteration --------------------------------------------------------------------------

    def plan_images(self, iteration: int) -> ImagePlan:
        """Return which images an iteration makes."""
        return plan_images(
            self.config.training,
            seed=self.config.seed,
            iteration=iteration,
            n_prompts=len(self.prompts),
            world_size=self.accelerator.num_processes,
        )

    def iterate(self, iteration: int) -> dict[str, Any]:
        """Make images, reward them and train on them; return the figures for the log."""
        clock = machine.Clock(self.accelerator.device)
        plan = self.plan_images(iteration)
        own = plan.of_process(self.accelerator.process_index)
        groups = plan.groups
        texts = [self.prompts[place] for place in plan.prompts[groups]]
        experience = self._collect(iteration, own, groups, [texts[image] for image in own])
        clock.lap("sampling")
        rewards = self._rewards(experience.images, texts, own, plan)
        total = self.reward.total(rewards)
        mode = self.config.reward.advantages if self.config.reward else "per-component"
        found = advantages(
            rewards,
            self.reward.weights,
            groups,
            mode=mode,
            clip=self.config.loss.advantage_clip,
            global_std=self.config.loss.global_std,
        )
        clock.lap("reward")
        places = [np.searchsorted(own, part[self.accelerator.process_index]) for part in plan.parts]
        figures = update(
            self.model,
            experience,
            found.values[own],
            places,
            config=self.config,
            accelerator=self.accelerator,
            optimizer=self.state.optimizer,
            parameters=self.state.parameters,
            stepped=self._stepped,
        )
        clock.lap("update")
        rounding = figures.rounding_warning(self.config.loss.clip)
        if rounding and self.run.is_main and not self.told_rounding:
            self.told_rounding = True  # once a run: the next iterations are no better
            warnings.warn(RealBenchWarning(f"iteration {iteration}: {rounding}"), stacklevel=2)
        record = {
            "reward": float(total.mean(dtype=np.float64)),
            "reward_std": float(total.std(dtype=np.float64)),
            "components": {k: float(v.mean(dtype=np.float64)) for k, v in rewards.items()},
            "zero_groups": found.zero_groups,
            "groups": found.groups,
            **asdict(figures),
        }
        if self.cotraining is not None:
            images = self._gather(experience.images, own, plan.groups.size)
            extra = self.cotraining.after_iteration(iteration, images, texts, rewards)
            clock.lap("cotraining")
            record["cotraining"] = {key: float(value) for key, value in extra.items()}
        return record | {
            "seconds": clock.seconds(),
            "memory_mib": machine.peak_memory(clock.device),
        }

    def _collect(
        self, iteration: int, own: np.ndarray, groups: np.ndarray, texts: list[str]
    ) -> Experience:
        sampling, seed = self.config.sampling, self.config.seed
        window = draw_window(sampling.steps, sampling.window, seed=seed, iteration=iteration)
        size = self.config.training.group_size
        return collect(
            self.model,
            texts,
            [image_generator(seed, iteration, groups[i], i % size) for i in own.tolist()],
            sampling,
            self.config.memory,
            window=window,
            base_of=self.config.loss.kl_of if self.config.loss.kl else None,
        )

    def _rewards(
        self, images: Tensor, texts: list[str], own: np.ndarray, plan: ImagePlan
    ) -> dict[str, np.ndarray]:
        found = self.reward.each(images, [texts[image] for image in own])
        values = np.stack(list(found.values()), axis=1).astype(np.float32)
        together = self._gather(torch.from_numpy(values), own, plan.groups.size).numpy()
        return {name: together[:, column] for column, name in enumerate(found)}

    def _gather(self, rows: Tensor, places: np.ndarray, n: int) -> Tensor:
        """Return the rows of all processes in the order of all ``n`` images, in main memory.

        Of this process they are ``rows``, those of the images at ``places``.
        """
        index = torch.from_numpy(places)
        if self.accelerator.num_processes > 1:
            device = self.accelerator.device
            index = self.accelerator.gather(index.to(device)).cpu()
            rows = self.accelerator.gather(rows.contiguous().to(device)).cpu()
        together = rows.new_zeros((n, *rows.shape[1:]))
        together[index] = rows
        return together

    # --- Evaluation -----------------------------------------------------------------------------

    def evaluate(self, iteration: int) -> TrainEvaluation:
        """Make the evaluation's images, judge and save them; return the record for the log."""
        self.run.tell("evaluating", iteration)
        started = time.perf_counter()
        images, rewards, heldout = self._judged()
        if self.run.is_main:
            folder, columns = self.run.out, self.config.evaluation.columns
            evaluation.save_samples(folder, iteration, images, self.evaluated)
            grid = evaluation.save_grid(folder, iteration, images, columns)
            machine.log_grid(self.accelerator, grid, iteration)
        return evaluation.judged(
            iteration,
            self.run.evaluations,
            reward=self.reward.total(rewards),
            components=rewards,
            heldout=heldout,
            probes=evaluation.probe(self.probes, images, self.evaluated)
            if self.run.is_main
            else {},
            groups=self.evaluated.groups,
            started=started,
        )

    def _judged(self) -> tuple[Tensor, dict[str, np.ndarray], np.ndarray | None]:
        """Return all images (n, 3, H, W), the reward's components and the held-out score."""
        evaluated = self.evaluated
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = -(-len(evaluated) // processes)  # equal, as collective operations need it
        own = np.minimum(rank * share + np.arange(share), len(evaluated) - 1)
        texts = [evaluated.prompts[image] for image in own]
        with self.state.averaged():
            conditioning = encode(
                self.model, texts, self.config.memory, self.config.sampling.batch_size
            )
            images, _ = sample(
                self.model,
                conditioning,
                [image_generator(self.config.seed, "evaluation", i) for i in own.tolist()],
                self.config.sampling,
                self.config.memory,
            )
        columns = dict(self.reward.each(images, texts))
        names = list(columns)
        if self.heldout is not None:
            columns["heldout"] = np.asarray(self.heldout(images, texts))
        values = np.stack(list(columns.values()), axis=1).astype(np.float32)
        together = self._gather(torch.from_numpy(values), own, len(evaluated)).numpy()
        rewards = {name: together[:, column] for column, name in enumerate(names)}
        heldout = together[:, -1] if self.heldout is not None else None
        return self._gather(images, own, len(evaluated)), rewards, heldout
