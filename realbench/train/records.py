"""What a training's files hold, typed: ``run.json``, ``log.jsonl`` and ``summary.json``.

Trainers make these records and write them as they are; :meth:`realbench.TrainRun.read` alone reads
them back, also those of version 0.1.0. Keys that a later version adds are kept. ``docs/schemas``
publishes them as JSON Schema.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Literal,
    NotRequired,  # pydantic takes typing's from Python 3.12
    Self,
)

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from realbench.errors import RealBenchError, UsageError
from realbench.runs.files import checked
from realbench.runs.folder import (
    LOG_FILE,
    MANIFEST_FILE,
    SUMMARY_FILE,
    Open,
    read_json,
    validated,
)
from realbench.stats.bootstrap import bootstrap_mean
from realbench.stats.record import Estimate, estimate
from realbench.text import printable

Kind = Literal["diffusion", "prompt"]
_AGAIN = "give another --out"


class _Record(BaseModel):
    """Values do not change; what a later version wrote besides is kept in ``model_extra``."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    def values_set(self) -> dict[str, Any]:
        """Return the values that were given, as JSON values."""
        return self.model_dump(mode="json", exclude_unset=True)


class TrainEvaluation(_Record):
    """The same prompts and seeds each time, judged.

    Attributes:
        reward: in [0, 1], and ``components`` likewise, by name; intervals are over prompts.
        heldout: P(real) by judges that are no part of the reward; None where there are none.
        probes: further figures, by name; one number for all images has no interval.
        warning: of the hacking watch.
        by_prompt: ``"reward"`` and ``"heldout"`` of each prompt.
        seconds: that it took.
    """

    reward: Estimate
    components: dict[str, Estimate] = {}
    heldout: Estimate | None = None
    probes: dict[str, Estimate] = {}
    warning: str | None = None
    by_prompt: dict[str, list[float]] = {}
    seconds: float


class TrainIteration(_Record):
    """A line of ``log.jsonl``: iteration 0 is the evaluation before the training.

    Further figures are those of the kind of training: ``ratio_mean``, ``grad_norm`` and so on of a
    diffusion model (:class:`~realbench.train.update.UpdateFigures`), ``words``, ``entropy`` and so
    on of a prompt LLM; :meth:`figure` returns them.

    Attributes:
        iteration: its number.
        reward, reward_std: of the images or rewrites trained on; None of iteration 0.
        components: means of the reward's parts, by name.
        zero_groups, groups: groups without variance, and all.
        seconds: by part.
        cotraining: of the detectors, by name.
        evaluation: where there was one after it.
    """

    iteration: int
    reward: float | None = None
    reward_std: float | None = None
    components: dict[str, float] = {}
    zero_groups: int | None = None
    groups: int | None = None
    seconds: dict[str, float] = {}
    cotraining: dict[str, float] = {}
    evaluation: TrainEvaluation | None = None

    def figure(self, name: str) -> float | None:
        """Return a figure of the iteration, None where it was not measured."""
        value = getattr(self, name, None)
        return float(value) if isinstance(value, int | float) else None


class TrainManifest(_Record):
    """``run.json``: what was run.

    Attributes:
        kind: of training.
        config: as JSON values; its keys are those of the kind's config file.
        prompts_sha256: digest of the prompts, on which alone the run goes on.
        reward: what the reward says of itself; ``reward_end`` after co-training.
        started, finished: in UTC; ``finished`` is None while it goes on or after it was cut off.
        stop_reason: ``"complete"``, ``"hacking"``, ``"risen"`` or ``"interrupted"``.
    """

    train_format: Literal[1]
    kind: Kind
    versions: dict[str, str] = {}
    config: dict[str, Any]
    prompts_sha256: str | None = None
    n_prompts: int
    n_evaluation_prompts: int | None = None
    model: str | None = None
    reward: dict[str, Any]
    reward_end: dict[str, Any] | None = None
    trained_parameters: int
    device: str
    processes: int
    started: str | None = None
    finished: str | None = None
    stop_reason: str


@with_config(Open)
class TrainSummary(TypedDict, total=False):
    """``summary.json``: where a training began and where it ended.

    All figures are of evaluations: the same prompts and seeds, before and after. The demo adds
    ``quality``, ``command`` and ``wall_seconds``.
    """

    iterations: int
    seed: int
    n_images: int
    n_prompts: int
    reward_start: float | None
    reward_start_interval: list[float | None]
    reward_end: float | None
    reward_end_interval: list[float | None]
    reward_change: Estimate | None
    heldout_start: float | None
    heldout_start_interval: list[float | None]
    heldout_end: float | None
    heldout_end_interval: list[float | None]
    heldout_change: Estimate | None
    components_start: dict[str, Estimate]
    components_end: dict[str, Estimate]
    probes_start: dict[str, Estimate]
    probes_end: dict[str, Estimate]
    warnings: list[dict[str, Any]]
    seconds: float
    stop_reason: str
    quality: NotRequired[dict[str, Any]]
    command: NotRequired[str]
    wall_seconds: NotRequired[float]


@dataclass(frozen=True)
class TrainRun:
    """What a run's folder says of it, finished or not; runs of version 0.1.0 are read, too.

    Attributes:
        out: the run's folder.
        manifest: what was run.
        log: a record for each iteration, in their order.
        summary: as in ``summary.json``; empty while the run goes on.
    """

    out: Path
    manifest: TrainManifest
    log: tuple[TrainIteration, ...]
    summary: TrainSummary

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read the folder of a run of ``realgen-train diffusion`` or ``prompt``.

        Raises:
            UsageError: it is the folder of no such run.
            RealBenchError: a file of the run is damaged; the message names it.
        """
        path = Path(folder)
        manifest = read_manifest(path)
        if manifest is None:
            raise UsageError(
                f"{printable(path)} is no folder of a realgen-train run: give its --out"
            )
        values = (read_json(path / SUMMARY_FILE) or {}) if manifest.finished else {}
        summary = validated(TrainSummary, values, printable(path / SUMMARY_FILE), _AGAIN)
        return cls(path, manifest, tuple(read_log(path)), summary)

    @property
    def stop_reason(self) -> str:
        """Why it ended: ``"complete"``, ``"hacking"``, ``"risen"`` or ``"interrupted"``."""
        return self.manifest.stop_reason

    @property
    def trained(self) -> list[TrainIteration]:
        """The iterations that trained, so all but 0."""
        return [one for one in self.log if one.reward is not None]

    @property
    def evaluations(self) -> dict[int, TrainEvaluation]:
        """The evaluations, by iteration."""
        return {one.iteration: one.evaluation for one in self.log if one.evaluation is not None}


def read_manifest(folder: Path) -> TrainManifest | None:
    """Return what a training's ``run.json`` says, None where there is none of a training.

    Raises:
        RealBenchError: it is damaged.
    """
    values = read_json(folder / MANIFEST_FILE)
    if values is None or "train_format" not in values:
        return None
    return validated(TrainManifest, values, printable(folder / MANIFEST_FILE), _AGAIN)


def read_log(folder: Path) -> list[TrainIteration]:
    """Return the lines of a run's log; a torn last line is left out.

    Raises:
        RealBenchError: it cannot be read, or a line is damaged.
    """
    path = folder / LOG_FILE
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RealBenchError(f"cannot read {printable(path)}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.endswith(b"\n"):
            place = f"line {number} of {printable(path)}"
            try:
                values = json.loads(line)
            except ValueError as error:
                raise RealBenchError(f"{place} is damaged: {_AGAIN}") from error
            found.append(validated(TrainIteration, values, place, _AGAIN))
    return found


def append_log(folder: Path, record: TrainIteration) -> None:
    """Add a line to the log, on the disk when this returns.

    Raises:
        RealBenchError: it cannot be written.
    """

    def append() -> None:
        with (folder / LOG_FILE).open("ab") as file:
            file.write(log_line(record))
            file.flush()
            os.fsync(file.fileno())

    checked(folder / LOG_FILE, append)


def log_line(record: TrainIteration) -> bytes:
    """Return a record as a line of ``log.jsonl``."""
    return (json.dumps(record.values_set()) + "\n").encode()


def summarize(run: TrainRun) -> TrainSummary:
    """Return a run's summary: means of its first and last evaluation, with their intervals."""
    first, *_ = evaluations = list(run.evaluations.values())
    last = evaluations[-1]
    found: dict[str, Any] = {
        "iterations": run.log[-1].iteration,
        "seed": run.manifest.config["seed"],
        "n_images": first.reward["n"],
        "n_prompts": first.reward.get("n_groups"),
    }
    changed = changes(run)
    for name in ("reward", "heldout"):
        for when, one in (("start", first), ("end", last)):
            value = getattr(one, name) or {}
            found[f"{name}_{when}"] = value.get("estimate")
            found[f"{name}_{when}_interval"] = [value.get("low"), value.get("high")]
        found[f"{name}_change"] = changed.get(name)
    for name in ("components", "probes"):
        found |= {f"{name}_start": getattr(first, name), f"{name}_end": getattr(last, name)}
    found["warnings"] = [
        {"iteration": n, "warning": one.warning}
        for n, one in run.evaluations.items()
        if one.warning
    ]
    seconds = sum(sum(one.seconds.values()) for one in run.trained)
    found["seconds"] = round(seconds + sum(one.seconds for one in evaluations), 1)
    found["stop_reason"] = run.stop_reason
    return TypeAdapter(TrainSummary).validate_python(found)


def changes(run: TrainRun) -> dict[str, Estimate]:
    """Return how the last evaluation differs from the first, prompt by prompt.

    Returns:
        Estimates of the means of the differences: ``"reward"`` and ``"heldout"``, where they were
        measured.
    """
    evaluations = list(run.evaluations.values())
    if len(evaluations) < 2:
        return {}
    before, after = evaluations[0].by_prompt, evaluations[-1].by_prompt
    return {
        name: mean_over(np.subtract(after[name], before[name]), np.arange(len(after[name])))
        for name in ("reward", "heldout")
        if name in before and name in after
    }


def mean_over(values: np.ndarray, groups: np.ndarray) -> Estimate:
    """Return the mean of values (n,) with its 95 % interval over groups, each value's prompt."""
    return estimate(bootstrap_mean(values, groups))
