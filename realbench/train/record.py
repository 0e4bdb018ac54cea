"""A training's run, read back: typed records of its ``run.json`` and ``log.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from realbench.errors import RealBenchError, UsageError
from realbench.runs.folder import MANIFEST_FILE, SUMMARY_FILE, read_json
from realbench.text import printable
from realbench.train.run_folder import LOG_FILE, read_log

Kind = Literal["diffusion", "prompt"]


class _Record(BaseModel):
    """Values do not change; what a later version wrote besides is kept in ``model_extra``."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


Record = TypeVar("Record", bound=_Record)


class TrainEstimate(_Record):
    """A mean over an evaluation's images, in the measure's own units.

    Attributes:
        mean: itself; None where it is not finite.
        low, high: 95 % interval over prompts; None where there are too few of them.
        n, n_prompts: images and prompts.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    n: int
    n_prompts: int | None = None


class TrainEvaluation(_Record):
    """The same prompts and seeds each time, judged.

    Attributes:
        reward: in [0, 1], and ``components`` likewise, by name.
        heldout: P(real) by judges that are no part of the reward; None where there are none.
        probes: further figures, by name.
        warning: of the hacking watch.
        by_prompt: ``"reward"`` and ``"heldout"`` of each prompt.
        seconds: that it took.
    """

    reward: TrainEstimate
    components: dict[str, TrainEstimate] = {}
    heldout: TrainEstimate | None = None
    probes: dict[str, TrainEstimate] = {}
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
        finished: when, in UTC; None while it goes on or after it was cut off.
        stop_reason: ``"complete"``, ``"hacking"``, ``"risen"`` or ``"interrupted"``.
    """

    train_format: int
    kind: Kind
    versions: dict[str, str] = {}
    config: dict[str, Any]
    n_prompts: int
    model: str | None = None
    reward: dict[str, Any]
    trained_parameters: int
    device: str
    processes: int
    started: str | None = None
    finished: str | None = None
    stop_reason: str


@dataclass(frozen=True)
class TrainRun:
    """What a run's folder says of it, finished or not; runs of version 0.1.0 are read, too.

    Attributes:
        folder: of the run.
        manifest: what was run.
        log: a record for each iteration, in their order.
        summary: as in ``summary.json``; empty while the run goes on.
    """

    folder: Path
    manifest: TrainManifest
    log: tuple[TrainIteration, ...]
    summary: Mapping[str, Any]

    @classmethod
    def read(cls, folder: str | Path) -> TrainRun:
        """Read the folder of a run of ``realgen-train diffusion`` or ``prompt``.

        Raises:
            UsageError: it is the folder of no such run.
            RealBenchError: a file of the run is damaged; the message names it.
        """
        path = Path(folder)
        values = read_json(path / MANIFEST_FILE)
        if values is None or values.get("kind") not in ("diffusion", "prompt"):
            raise UsageError(
                f"{printable(path)} is no folder of a realgen-train run: give its --out"
            )
        manifest = _checked(TrainManifest, values, path / MANIFEST_FILE)
        log = tuple(
            _checked(TrainIteration, one, path / LOG_FILE, f"line {number} of ")
            for number, one in enumerate(read_log(path), start=1)
        )
        summary = (read_json(path / SUMMARY_FILE) or {}) if manifest.finished else {}
        return cls(path, manifest, log, summary)

    @property
    def trained(self) -> list[TrainIteration]:
        """The iterations that trained, so all but 0."""
        return [one for one in self.log if one.reward is not None]

    @property
    def evaluations(self) -> dict[int, TrainEvaluation]:
        """The evaluations, by iteration."""
        return {one.iteration: one.evaluation for one in self.log if one.evaluation is not None}


def _checked(schema: type[Record], values: object, path: Path, place: str = "") -> Record:
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "it"
        raise RealBenchError(
            f"{place}{printable(path)} is damaged ({printable(key)}: {first['msg']})"
        ) from error
