"""The life of a training in its folder, for images and for prompts: begun or gone on with, logged,
evaluated, stopped and summed up.

What is computed is the trainers'; that a run which was cut off goes on, and only as it began, is
looked after here.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from realbench.config.config_files import Table
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.runs.files import json_bytes, write_atomically
from realbench.runs.folder import (
    LOG_FILE,
    MANIFEST_FILE,
    SUMMARY_FILE,
    installed_versions,
    locked,
    now,
    read_json,
)
from realbench.text import printable, short_json
from realbench.train.config import EvaluationConfig
from realbench.train.records import (
    Kind,
    TrainEvaluation,
    TrainIteration,
    TrainManifest,
    TrainRun,
    TrainSummary,
    append_log,
    log_line,
    read_log,
    read_manifest,
    summarize,
)
from realbench.train.report import write_report

CHECKPOINTS = "checkpoints"
_PACKAGES = (
    *("realgen", "torch", "diffusers", "peft", "accelerate", "deepspeed", "transformers", "trl"),
)
# What may differ when a run goes on: none of it changes what was computed so far.
_MAY_CHANGE = (
    ("description",),
    ("training", "iterations"),
    ("checkpoints",),
    ("tracking",),
    ("memory",),
    ("evaluation", "stop_on_hacking"),
    ("evaluation", "columns"),
    ("model", "device"),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: ``"loading"``, ``"evaluating"`` or ``"training"``.
        done, total: iterations.
        reward: mean of the last iteration, None before the first.
    """

    stage: str
    done: int = 0
    total: int = 0
    reward: float | None = None


@contextlib.contextmanager
def at_work(folder: Path, *, is_main: bool, remedy: str) -> Iterator[None]:
    """Keep other trainings out of a run's folder, and say what to do where memory runs out.

    Args:
        remedy: what takes less memory, for the message.

    Raises:
        UsageError: another training is at work in the folder.
        RealBenchError: memory ran out.
    """
    with locked(folder, holder="training") if is_main else contextlib.nullcontext():
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise RealBenchError(f"not enough memory: {remedy}; checkpoints are kept") from error


class Run:
    """A run in its folder, in one process of possibly several.

    Args:
        tell: called as the run goes on.

    Attributes:
        earlier: the manifest of the run that goes on, None where it begins.
        log: of the iterations so far; all processes have it.
        manifest: set by :meth:`begin`.

    Raises:
        UsageError: the folder holds another run; the message says what differs.
    """

    manifest: TrainManifest

    def __init__(
        self,
        out: Path,
        kind: Kind,
        config: Table,
        prompts_sha256: str,
        *,
        is_main: bool,
        tell: Callable[[Progress], object] | None = None,
    ) -> None:
        self.out = out
        self.kind: Kind = kind
        self.config = config.model_dump(mode="json")
        self.is_main = is_main
        self.log: list[TrainIteration] = []
        self._prompts_sha256 = prompts_sha256
        self._evaluation: EvaluationConfig = config.evaluation  # type: ignore[attr-defined]
        self._iterations = int(self.config["training"]["iterations"])
        self._tell = tell or (lambda _: None)
        self._tell(Progress("loading"))
        self.earlier = self._check_continues()

    def check_reward(self, described: object) -> None:
        """Refuse to go on with other detectors than those that the run began with.

        Args:
            described: what the reward says of itself, as JSON values.

        Raises:
            UsageError: they differ in more than the device.
        """
        if self.earlier is None:
            return
        ours = _without_device(json.loads(json.dumps(described)))
        if ours != _without_device(self.earlier.reward):
            raise UsageError(
                f"{printable(self.out)} holds a run with another reward (other weights of a "
                "detector, perhaps): give another --out"
            )

    def rewind(self, iteration: int, wait: Callable[[], object]) -> None:
        """Take up the log; lines after an iteration, which will be made again, are dropped.

        Args:
            iteration: after which the run stands; -1 at its very beginning.
            wait: returns when all processes have called it.
        """
        if self.is_main:
            kept = [one for one in read_log(self.out) if one.iteration <= iteration]
            write_atomically(self.out / LOG_FILE, b"".join(map(log_line, kept)))
        wait()
        self.log = read_log(self.out)

    def begin(self, **facts: Any) -> None:
        """Write the manifest.

        Args:
            facts: the fields of a :class:`~realbench.train.records.TrainManifest` that are the
                trainer's to know, and further ones.
        """
        self.manifest = TrainManifest(
            train_format=1,
            kind=self.kind,
            versions=installed_versions(_PACKAGES),
            config=self.config,
            prompts_sha256=self._prompts_sha256,
            started=(self.earlier and self.earlier.started) or now(),
            finished=None,
            stop_reason="interrupted",
            **facts,
        )
        self._write_manifest()

    def tell(self, stage: str, done: int = 0) -> None:
        """Report how far the run is."""
        reward = next((one.reward for one in reversed(self.log) if one.reward is not None), None)
        self._tell(Progress(stage, max(0, done), self._iterations, reward))

    @property
    def evaluations(self) -> dict[int, TrainEvaluation]:
        """The evaluations so far, by iteration."""
        return {one.iteration: one.evaluation for one in self.log if one.evaluation is not None}

    def is_evaluated(self, iteration: int) -> bool:
        """Return whether there is an evaluation after an iteration."""
        return iteration % self._evaluation.every == 0 or iteration == self._iterations

    def write_down(self, record: TrainIteration) -> None:
        """Add a line to the log; after an evaluation, pass its warning on and write the report."""
        self.log.append(record)
        if not self.is_main:
            return
        append_log(self.out, record)
        if record.evaluation is not None:
            if record.evaluation.warning:
                warnings.warn(RealBenchWarning(record.evaluation.warning), stacklevel=2)
            write_report(self.out)

    def stop_reason(self) -> str | None:
        """Return why the run ends before its last iteration, None where it goes on."""
        evaluations = list(self.evaluations.values())
        if self._evaluation.stop_on_hacking and any(one.warning for one in evaluations):
            return "hacking"
        wanted, rewards = self._evaluation.stop_at_rise, [one.reward for one in evaluations]
        if wanted is not None and rewards:
            first, last = rewards[0]["estimate"], rewards[-1]["estimate"]
            if first is not None and last is not None and last - first >= wanted:
                return "risen"
        return None

    def finish(self, **facts: Any) -> None:
        """Write the summary, the manifest and the report."""
        ended = {"finished": now(), "stop_reason": self.stop_reason() or "complete"}
        self.manifest = self.manifest.model_copy(update=ended | facts)
        if self.is_main:
            write_json(self.out / SUMMARY_FILE, self.summary())
            self._write_manifest()
            write_report(self.out)

    def summary(self) -> TrainSummary:
        """Return what ``summary.json`` holds."""
        return summarize(TrainRun(self.out, self.manifest, tuple(self.log), {}))

    def _write_manifest(self) -> None:
        if self.is_main:
            write_json(self.out / MANIFEST_FILE, self.manifest.values_set())

    def _check_continues(self) -> TrainManifest | None:
        """Return the manifest of a run that goes on, None where there is none.

        One that ended before its first iteration, as a mistake in its config makes it end, is
        none: there is nothing in it to go on from, and the mistake may be mended.
        """
        folder = printable(self.out)
        earlier = read_manifest(self.out)
        if earlier is None and read_json(self.out / MANIFEST_FILE) is None:
            return None
        if earlier is None or earlier.kind != self.kind:
            raise UsageError(f"{folder} holds a run of another kind: give another --out")
        saved = any((self.out / CHECKPOINTS).glob("[!.]*"))
        if not saved and not any(one.iteration > 0 for one in read_log(self.out)):
            return None
        before, after = _deciding(earlier.config), _deciding(self.config)
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                raise UsageError(
                    f"{folder} holds a run with another {key} ({short_json(before.get(key))}, now "
                    f"{short_json(after.get(key))}): give another --out"
                )
        if earlier.prompts_sha256 != self._prompts_sha256:
            raise UsageError(f"{folder} holds a run on other prompts: give another --out")
        return earlier


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a file of the run, whole or not at all.

    Raises:
        RealBenchError: it cannot be written.
    """
    write_atomically(path, json_bytes(values))


def _without_device(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_device(one) for key, one in value.items() if key != "device"}
    return [_without_device(one) for one in value] if isinstance(value, list) else value


def _deciding(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        place = (*path, key)
        if any(place[: len(one)] == one for one in _MAY_CHANGE):
            continue
        found |= _deciding(value, place) if isinstance(value, dict) else {".".join(place): value}
    return found
