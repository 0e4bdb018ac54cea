"""Makes the image folder of a model: an image per prompt of a suite, which is then scored."""

from __future__ import annotations

import hashlib
import io
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from realbench.config.settings import checked_settings
from realbench.errors import RealBenchWarning, UsageError
from realbench.files import file_sha256
from realbench.generation.pipeline import Pipeline, PipelineOptions, choose_dtype
from realbench.generation.rewriting import RewriterOptions, rewrite
from realbench.prompt_records import can_be_a_stem
from realbench.prompts import Suite, load_suite
from realbench.runs.files import json_bytes, output_folder, write_atomically
from realbench.runs.folder import installed_versions, locked, now, read_json
from realbench.text import printable, short_json

MANIFEST_FILE = "generation.json"
MANIFEST_FORMAT = 1
LOCK_FILE = ".generation.lock"
_PACKAGES = ("realgen", "diffusers", "transformers", "torch", "peft")


def read_generation(folder: Path) -> dict[str, Any] | None:
    """Return a folder's manifest, None where it has none.

    Raises:
        RealBenchError: the file cannot be read or is of another kind.
    """
    path = folder / MANIFEST_FILE
    manifest = read_json(path)
    if manifest is not None and manifest.get("generation_format") != MANIFEST_FORMAT:
        raise UsageError(
            f"{printable(path)} is not of this version of RealBench: give another --out"
        )
    return manifest


def check_continues(folder: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to add images of other settings to a folder.

    Raises:
        UsageError: something that decides images is not as it was; the message says what.
    """
    before = earlier.get("settings") or {}
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        key = changed[0]
        old, new = (short_json(one.get(key)) for one in (before, settings))
        raise UsageError(
            f"{printable(folder)} holds images made with another {key} ({old}, now {new}): give "
            "another --out"
        )


_SAVE_EVERY = 10.0  # seconds; what a killed run has not written down is found out again


@checked_settings
@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """How images are made.

    Attributes:
        pipeline: the model, and what it is called with.
        rewriter: a language model that rewrites the prompts first, or None.
        long: give the model the prompts' long forms.
        seed: from which, with the prompt's id, each image's seed is derived.
        batch_size: images at a time.
        limit: make no more than the suite's first so many.
    """

    pipeline: PipelineOptions
    rewriter: RewriterOptions | None = None
    long: bool = False
    seed: int = 0
    batch_size: int = 1
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        stage: ``"loading"``, ``"rewriting"`` or ``"generating"``.
        done: prompts or images, those of earlier runs among them.
        total: of all.
    """

    stage: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Generation:
    """What was made.

    Attributes:
        folder: the images, named by prompt.
        manifest: as in ``generation.json``.
        made: how many are new.
        kept: how many were there.
    """

    folder: Path
    manifest: dict[str, Any]
    made: int
    kept: int


def image_seed(seed: int, prompt_id: str) -> int:
    """Return an image's seed, 0 to 2**32 - 1: the same in whichever suite the prompt is."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt_id}".encode()).digest()[:4], "big")


@checked_settings
def generate(
    suite: str | Path | Suite,
    out: str | Path,
    options: GenerateOptions,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Generation:
    """Make an image of every prompt of a suite that has none in the folder yet.

    A run that was cut off goes on when it is made again. ``generation.json`` in the folder says
    how each image was made.

    Args:
        suite: a suite, its name or its file.
        out: the model's folder; its name is the model's name for ``score`` and ``arena``.
        progress: called as the run goes on.

    Raises:
        UsageError: an option, or a folder with images of other settings.
        RealBenchError: a model cannot be loaded or fails; finished images are kept.
    """
    tell = progress or (lambda _: None)
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    _check(options)
    texts = _texts(suite, options)
    folder = output_folder(out)
    with locked(folder, LOCK_FILE, holder="realbench generate"):
        earlier = read_generation(folder)
        _check_strangers(folder, earlier, texts)
        tell(Progress("loading"))
        # A mistake shows at once; with a rewriter the two models are not in memory together.
        pipeline = Pipeline(options.pipeline) if options.rewriter is None else None
        work = _Work(folder, suite, options, texts, earlier, tell)
        if options.rewriter is not None:
            work.rewrite(options.rewriter)
            tell(Progress("loading"))
        return work.paint(pipeline or Pipeline(options.pipeline))


class _Work:
    def __init__(
        self,
        folder: Path,
        suite: Suite,
        options: GenerateOptions,
        texts: dict[str, str],
        earlier: dict[str, Any] | None,
        tell: Callable[[Progress], None],
    ) -> None:
        self.folder = folder
        self.options = options
        self.tell = tell
        self.texts = texts
        self.earlier = earlier
        self.images: dict[str, dict[str, Any]] = dict((earlier or {}).get("images") or {})
        self.saved = time.monotonic()
        self.manifest: dict[str, Any] = {
            "generation_format": MANIFEST_FORMAT,
            "versions": installed_versions(_PACKAGES),
            "suite": suite.describe(),
            "settings": {
                "form": "long" if options.long else "short",
                "seed": options.seed,
                "rewriter": None if options.rewriter is None else options.rewriter.describe(),
            },
            "device": None,
            "batch_size": options.batch_size,
            "started": (earlier or {}).get("started") or now(),
            "finished": None,
            "stop_reason": "interrupted",
            "counts": {},
            "images": self.images,
        }
        if earlier is not None:
            own = self.manifest["settings"]
            check_continues(folder, earlier, own)
            self.manifest["settings"] = earlier["settings"] | own
        for name, text in texts.items():
            if name in self.images and self.images[name]["prompt"] != text:
                raise UsageError(
                    f"{printable(folder)} has an image of another prompt {name!r}: give another "
                    "--out"
                )

    def rewrite(self, options: RewriterOptions) -> None:
        """Have the prompts rewritten that were not in an earlier run."""
        from realbench.scoring.scorer import choose_device

        todo = [name for name in self.texts if "rewritten" not in self.images.get(name, {})]
        if not todo:
            return
        device = choose_device(self.options.pipeline.device)
        done = len(self.texts) - len(todo)

        def take(index: int, text: str | None) -> None:
            nonlocal done
            done += 1
            self._record(todo[index])["rewritten"] = text
            self.save(at_once=False)
            self.tell(Progress("rewriting", done, len(self.texts)))

        try:
            rewrite(
                [self.texts[name] for name in todo],
                options,
                device=device,
                dtype=choose_dtype(self.options.pipeline.dtype, device),
                take=take,
            )
        finally:
            self.save()

    def paint(self, pipeline: Pipeline) -> Generation:
        """Make the images that are missing."""
        settings = self.manifest["settings"] | pipeline.describe()
        if self.earlier is not None and "model" in self.earlier["settings"]:
            check_continues(self.folder, self.earlier, settings)
        self.manifest["settings"] = settings
        self.manifest["device"] = pipeline.device
        todo = [name for name in self.texts if not self._is_made(name)]
        kept = len(self.texts) - len(todo)
        self._warn_of_truncation(pipeline)
        size = self.options.batch_size
        made = 0
        try:
            self.save()
            for start in range(0, len(todo), size):
                self.tell(Progress("generating", kept + made, len(self.texts)))
                names = todo[start : start + size]
                self._paint(pipeline, names)
                made += len(names)
                self.save(at_once=False)
            self.manifest["stop_reason"] = "complete"
            self.manifest["finished"] = now()
        finally:
            self.manifest["counts"] = self._counts()
            self.save()
        self.tell(Progress("generating", kept + made, len(self.texts)))
        return Generation(self.folder, self.manifest, made, kept)

    def save(self, *, at_once: bool = True) -> None:
        """Write the manifest, at once or if it was not written lately."""
        if at_once or time.monotonic() - self.saved > _SAVE_EVERY:
            write_atomically(self.folder / MANIFEST_FILE, json_bytes(self.manifest))
            self.saved = time.monotonic()

    def _paint(self, pipeline: Pipeline, names: list[str]) -> None:
        records = [self._record(name) for name in names]
        painted = pipeline(
            [one.get("rewritten") or one["prompt"] for one in records],
            [one["seed"] for one in records],
        )
        for name, record, one in zip(names, records, painted, strict=True):
            data = io.BytesIO()
            one.image.save(data, "PNG")
            write_atomically(self.folder / record["file"], data.getvalue())
            record["width"], record["height"] = one.image.size
            record["sha256"] = hashlib.sha256(data.getvalue()).hexdigest()
            record["flagged"] = one.flagged
            self.images[name] = record

    def _record(self, name: str) -> dict[str, Any]:
        return self.images.setdefault(
            name,
            {
                "file": f"{name}.png",
                "prompt": self.texts[name],
                "seed": image_seed(self.options.seed, name),
            },
        )

    def _is_made(self, name: str) -> bool:
        """Return whether an image is there; one whose record a killed run lost is looked at."""
        record = self._record(name)
        path = self.folder / record["file"]
        try:
            digest = file_sha256(path)
        except FileNotFoundError:
            for key in ("sha256", "width", "height", "flagged", "truncated"):
                record.pop(key, None)
            return False
        if record.setdefault("sha256", digest) != digest:
            raise UsageError(
                f"{printable(path)} is not the image that was made: delete it, or give another "
                "--out"
            )
        if "width" not in record:
            from PIL import Image

            with Image.open(path) as image:
                record["width"], record["height"] = image.size
            record["flagged"] = None  # not known any more
        return True

    def _warn_of_truncation(self, pipeline: Pipeline) -> None:
        for name in self.texts:
            record = self._record(name)
            record["truncated"] = pipeline.truncates(record.get("rewritten") or record["prompt"])
        cut = [name for name in self.texts if self.images[name]["truncated"]]
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(self.texts)} prompts ({cut[0]} is the first) are longer than "
                "the model's text encoder reads: their ends are cut off",
                RealBenchWarning,
                stacklevel=2,
            )

    def _counts(self) -> dict[str, int]:
        records = [self.images[name] for name in self.texts]
        return {
            "prompts": len(records),
            "images": sum("sha256" in one for one in records),
            "flagged": sum(bool(one.get("flagged")) for one in records),
            "truncated": sum(bool(one.get("truncated")) for one in records),
            "not_rewritten": sum(
                "rewritten" in one and one["rewritten"] is None for one in records
            ),
        }


def _check(options: GenerateOptions) -> None:
    pipeline = options.pipeline
    for name, value, least in (
        ("seed", options.seed, 0),
        ("batch_size", options.batch_size, 1),
        ("limit", options.limit, 1),
        ("steps", pipeline.steps, 1),
        ("width", pipeline.width, 1),
        ("height", pipeline.height, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"{name} must be at least {least}, not {value}")


def _texts(suite: Suite, options: GenerateOptions) -> dict[str, str]:
    prompts = list(suite.prompts.values())[: options.limit]
    for one in prompts:
        if not can_be_a_stem(one.id):
            raise UsageError(f"the id {one.id!r} of {suite.name} cannot be the name of a file")
        if options.long and one.prompt_long is None:
            raise UsageError(f"{suite.name} has no long form of {one.id!r}: leave out --long")
    return {one.id: str(one.prompt_long) if options.long else one.prompt for one in prompts}


def _check_strangers(folder: Path, earlier: dict[str, Any] | None, texts: dict[str, str]) -> None:
    """Refuse to take images of unknown origin for our own."""
    found = next((name for name in texts if (folder / f"{name}.png").exists()), None)
    if earlier is None and found is not None:
        raise UsageError(
            f"{printable(folder)} has {found}.png but no generation.json that says how it was "
            "made: give another --out"
        )
