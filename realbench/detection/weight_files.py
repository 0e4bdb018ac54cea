"""Finds weights that are not in the package: files that a user gives, and files of the hub.

Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from realbench import files
from realbench.detection.model_files import hub_refusals
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.hub_errors import hub_is_reached, hub_reason
from realbench.text import byte_count, printable

if TYPE_CHECKING:
    from realbench.detection.specs import WeightsSpec

# What scores depend on in a folder of transformers: configuration and weights, never a program.
_SMALL_FILES = ["*.json", "*.txt", "*.jinja", "*.model"]
_WEIGHTS = ["*.safetensors", "pytorch_model*.bin"]  # the first kind that a model has
_COMMIT = re.compile(r"[0-9a-f]{40}")


def weights_folder() -> Path:
    """Return where users put weights: ``$REALBENCH_WEIGHTS``, or a folder of the user's data."""
    chosen = os.environ.get("REALBENCH_WEIGHTS")
    return Path(chosen) if chosen else platformdirs.user_data_path("realbench") / "weights"


def find_weights(
    detector: str,
    part: str,
    spec: WeightsSpec,
    card_folder: Path,
    *,
    fetch: bool = True,
    licence: str = "",
) -> Path:
    """Return the file of some weights, or the folder of a whole model of the hub.

    Looked at in turn: the card's folder, the weights folder, the hub's cache, the hub. Before
    something is fetched, a :class:`RealBenchWarning` says what, how large and under which licence;
    what came is compared with the card's hash, or else with the hub's.

    Args:
        detector: the card's name.
        part: ``"weights"``, or ``"backbone"`` for those of the network below the head.
        spec: what the card says of them.
        card_folder: where the card lies.
        fetch: whether the hub may be asked for what is not on this machine.
        licence: which the card states.

    Raises:
        RealBenchError: they are not here and cannot be fetched; the message says what to get,
            where to put it and how.
    """
    if spec.file:
        for folder in (card_folder, weights_folder() / detector):
            for name in (spec.file, Path(spec.file).name):
                path = folder / name
                if path.is_file() or (path / "config.json").is_file():  # or a whole model
                    return path
    elif (weights_folder() / detector / "config.json").is_file():  # a whole model
        return weights_folder() / detector
    if spec.source == "hub":
        return _from_hub(detector, part, spec, licence if fetch else None)
    if spec.source == "file":
        raise RealBenchError(_missing(detector, part, spec, card_folder))
    return card_folder / spec.file


def _missing(detector: str, part: str, spec: WeightsSpec, card_folder: Path | None = None) -> str:
    """Say what is missing and what to do, in one line."""
    what = "weights" if part == "weights" else f"{part} weights"
    name = detector if part == "weights" else f"{detector}:{part}"
    file = Path(spec.file).name  # without the folder that it has on the hub
    known = f"sha256 {spec.sha256}" if spec.sha256 else "no sha256 is published"
    if not spec.file:  # a whole model, which is a folder
        return (
            f"the model of {detector!r} is not on this machine: give its folder with --weights "
            f"{name}=FOLDER, put it at {weights_folder() / detector}, or fetch it: {_how(spec)}"
        )
    there = weights_folder() / detector / file
    if card_folder is not None and not (spec.obtain or spec.sha256):  # a user's own card
        return (
            f"the {what} of {detector!r} are not on this machine: put {file} beside "
            f"{printable(card_folder / 'card.toml')} or at {there}, or give --weights {name}=PATH, "
            "a file or the folder of a whole model"
        )
    return (
        f"the {what} of {detector!r} are not on this machine: put {file} ({known}) at "
        f"{there} or give --weights {name}=FILE; get it: {_how(spec)}"
    )


def _how(spec: WeightsSpec) -> str:
    if spec.obtain:
        return spec.obtain
    if spec.source != "hub":
        return "see the detector's model card"
    return " ".join(
        ["hf download", spec.repo, *([spec.file] if spec.file else [])]
        + (["--revision", spec.revision] if spec.revision else [])
    )


def _from_hub(detector: str, part: str, spec: WeightsSpec, licence: str | None) -> Path:
    """Return what the hub's cache has, without asking the hub; else fetch it.

    Args:
        licence: which the card states; None where nothing may be fetched.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError):
        cached = _download(spec, local_files_only=True)
        if spec.file or _is_whole(cached):  # what was broken off is fetched again
            return cached
    missing = _missing(detector, part, spec)
    if licence is None or constants.HF_HUB_OFFLINE:
        raise RealBenchError(missing)
    if not hub_is_reached():
        raise RealBenchError(f"{missing} ({constants.ENDPOINT} is not reached)")
    return _fetched(spec, missing, f"for {detector!r}, licence: {licence}")


def _download(spec: WeightsSpec, *, local_files_only: bool = False) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    options: dict[str, Any] = {
        "revision": spec.revision or None,
        "local_files_only": local_files_only,
    }
    if spec.file:
        return Path(hf_hub_download(spec.repo, spec.file, **options))
    for weights in _WEIGHTS:
        folder = Path(
            snapshot_download(spec.repo, allow_patterns=[*_SMALL_FILES, weights], **options)
        )
        if any(folder.glob(weights)):
            break
    return folder


def _is_whole(folder: Path) -> bool:
    weights = any(any(folder.glob(pattern)) for pattern in _WEIGHTS)
    return weights and (folder / "config.json").is_file()


def _fetched(spec: WeightsSpec, missing: str, about: str) -> Path:
    """Fetch weights from the hub, and check what came.

    Args:
        missing: says how to get them by hand, for errors.
        about: whose they are, and their licence.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
    )
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        with hub_refusals(spec.repo, spec.revision):
            size = _size(spec)
            what = f"{spec.file} of {spec.repo}" if spec.file else spec.repo
            warnings.warn(
                f"fetching {what} ({byte_count(size)}) {about}", RealBenchWarning, stacklevel=2
            )
            path = _download(spec)
    except LocalEntryNotFoundError as error:
        raise RealBenchError(missing) from error
    except EntryNotFoundError as error:
        raise UsageError(f"{spec.repo} has no file {spec.file!r}: correct the card") from error
    except RealBenchError:
        raise
    except Exception as error:  # the client's kinds of a broken connection differ by version
        raise RealBenchError(f"{missing}, or run it again ({hub_reason(error)[:200]})") from error
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        expected = (spec.sha256 if file == path else None) or declared_sha256(file)
        for rest in file.resolve().parent.glob(f"{file.resolve().name}.*.incomplete"):
            rest.unlink(missing_ok=True)  # of runs that were killed
        if expected and (found := file_sha256(file)) != expected:
            file.resolve().unlink()
            file.unlink(missing_ok=True)
            raise RealBenchError(
                f"{file.name} of {spec.repo} came with sha256 {found}, but should have {expected}: "
                "it was deleted; run it again, and if it happens again, do not use it"
            )
    return path


def _size(spec: WeightsSpec) -> int:
    """Return how many bytes the hub would send.

    Raises:
        UsageError: it has no such file.
    """
    from huggingface_hub import HfApi

    info = HfApi().model_info(spec.repo, revision=spec.revision or None, files_metadata=True)
    sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    if spec.file:
        if spec.file not in sizes:
            raise UsageError(f"{spec.repo} has no file {spec.file!r}: correct the card")
        return sizes[spec.file]
    kinds = [fnmatch.filter(sizes, weights) for weights in _WEIGHTS]
    small = {name for pattern in _SMALL_FILES for name in fnmatch.filter(sizes, pattern)}
    return sum(sizes[name] for name in {*small, *next(filter(None, kinds), [])})


def declared_sha256(file: Path) -> str | None:
    """Return the SHA-256 of a large file by the hub, whose cache names it so; None of others."""
    name = file.resolve().name
    return name if file.is_symlink() and re.fullmatch("[0-9a-f]{64}", name) else None


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex, or what identifies a folder's content.

    A snapshot of the hub is identified by its commit; another folder by its model files.

    Raises:
        RealBenchError: it cannot be read.
    """
    if not path.is_dir():
        return file_sha256(path)
    if _COMMIT.fullmatch(path.name) and path.parent.name == "snapshots":
        return path.name
    patterns = [*_SMALL_FILES, *_WEIGHTS]
    found = sorted({one for pattern in patterns for one in path.glob(pattern)})
    if not found:
        raise RealBenchError(f"{path} holds no model (no config.json, no weights)")
    return _hash(lambda: files.files_sha256(found))


def file_sha256(path: Path) -> str:
    """Return the file's SHA-256 in hex.

    Raises:
        RealBenchError: it cannot be read.
    """
    return _hash(lambda: files.file_sha256(path))


def _hash(compute: Callable[[], str]) -> str:
    try:
        return compute()
    except OSError as error:
        raise RealBenchError(
            f"detector weights {error.filename} cannot be read ({error.strerror}): put the file "
            "there"
        ) from error


def parse_weights(options: list[str]) -> dict[str, dict[str, Path]]:
    """Turn ``NAME=PATH`` and ``NAME:PART=PATH`` into paths by detector and part.

    Raises:
        UsageError: one has another form, its path does not exist, or a part is given twice.
    """
    given: dict[str, dict[str, Path]] = {}
    for option in options:
        target, equals, path = option.partition("=")
        name, _, part = target.partition(":")
        if not equals or not name or not path:
            raise UsageError(
                f"--weights {printable(option)}: give NAME=FILE, such as univfd=fc_weights.pth"
            )
        if not Path(path).exists():
            raise UsageError(f"--weights {printable(option)}: there is no {printable(path)}")
        parts = given.setdefault(name, {})
        if (part or "weights") in parts:
            raise UsageError(f"--weights {printable(target)} is given twice: give it once")
        parts[part or "weights"] = Path(path)
    return given
