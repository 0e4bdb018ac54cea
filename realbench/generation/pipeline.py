"""A diffusers pipeline of whatever kind, as a function from prompts and seeds to images."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realbench.config.settings import checked_settings
from realbench.errors import RealBenchError, UsageError
from realbench.files import file_sha256
from realbench.hub_errors import hub_reason, quiet_models
from realbench.runs.folder import install_command
from realbench.text import printable

if TYPE_CHECKING:
    from PIL import Image

INSTALL = install_command("generate")
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank weights over a model's own.

    Attributes:
        source: a safetensors file, a folder or a hub id.
        scale: by which they are multiplied.
    """

    source: str
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Lora:
        """Read ``SOURCE`` or ``SOURCE=SCALE``."""
        source, equals, scale = text.rpartition("=")
        try:
            return cls(source, float(scale)) if equals else cls(text)
        except ValueError:
            return cls(text)  # a path with "=" in it


@checked_settings
@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """Which pipeline, and what it is called with; None leaves the pipeline's own default.

    Attributes:
        model: a folder or a hub id.
        revision: of the hub: a branch, tag or commit.
        loras: put on in this order.
        steps, guidance, width, height, negative_prompt: what most pipelines have.
        extra: further arguments of the pipeline's call, by name.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"`` and so on.
        dtype: one of :data:`DTYPES`; ``"auto"`` is bfloat16 on CUDA, else float32.
        offload: keep on the GPU only the part that is at work.
    """

    model: str
    revision: str | None = None
    loras: tuple[Lora, ...] = ()
    steps: int | None = None
    guidance: float | None = None
    width: int | None = None
    height: int | None = None
    negative_prompt: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    dtype: str = "auto"
    offload: bool = False

    def call_arguments(self) -> dict[str, Any]:
        """Return the arguments of the call that are asked for, by diffusers' names."""
        named = {
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "width": self.width,
            "height": self.height,
            "negative_prompt": self.negative_prompt,
        }
        return {key: value for key, value in named.items() if value is not None} | dict(self.extra)


@dataclass(frozen=True, slots=True)
class Painted:
    """An image of a prompt, and whether the pipeline's own filter objected to it."""

    image: Image.Image
    flagged: bool


class Pipeline:
    """A loaded pipeline.

    Weights are read from safetensors alone, and no code that comes with a model is run.

    Raises:
        UsageError: the options do not suit the pipeline or the machine.
        RealBenchError: a package is missing, or the model cannot be loaded.
    """

    def __init__(self, options: PipelineOptions) -> None:
        if find_spec("diffusers") is None:
            raise RealBenchError(f"generate needs diffusers: {INSTALL}")
        from realbench.scoring.scorer import choose_device

        self.device = choose_device(options.device)
        self.dtype = choose_dtype(options.dtype, self.device)
        self._options = options
        self._pipe = load_pipeline(options, self.dtype)
        self._arguments = options.call_arguments()
        _check_arguments(self._arguments, self._pipe)
        names = [f"lora_{n}" for n in range(len(options.loras))]
        for name, lora in zip(names, options.loras, strict=True):
            _put_on(lora, name, self._pipe)
        if names:
            self._pipe.set_adapters(names, [lora.scale for lora in options.loras])
        self._pipe.set_progress_bar_config(disable=True)
        if not options.offload:
            self._pipe.to(self.device)
            return
        try:
            self._pipe.enable_model_cpu_offload(device=self.device)
        except (ImportError, RuntimeError, ValueError, NotImplementedError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"--offload cannot be used here: {reason}") from error

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Painted]:
        """Make an image of each prompt.

        The noise of an image depends on its seed alone, not on the batch or the device.

        Args:
            seeds: one for each, from 0 to 2**63 - 1.

        Raises:
            RealBenchError: the memory is not enough, or the pipeline fails.
        """
        import torch

        arguments = dict(self._arguments)
        if "negative_prompt" in arguments:
            arguments["negative_prompt"] = [arguments["negative_prompt"]] * len(prompts)
        noise = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        try:
            with torch.inference_mode():
                result = self._pipe(prompt=list(prompts), generator=noise, **arguments)
        except torch.OutOfMemoryError as error:
            raise RealBenchError(
                f"not enough memory on {self.device} for {len(prompts)} images at once: try a "
                "smaller --batch-size or --offload; finished images are kept"
            ) from error
        except (ValueError, TypeError, RuntimeError) as error:
            raise RealBenchError(
                f"{type(self._pipe).__name__} failed: {' '.join(str(error).split())[:500]}; "
                "finished images are kept"
            ) from error
        images = list(getattr(result, "images", []))
        if len(images) != len(prompts):
            raise RealBenchError(
                f"{type(self._pipe).__name__} made {len(images)} images of {len(prompts)} prompts: "
                "it is no text-to-image pipeline that generate can use"
            )
        flags = getattr(result, "nsfw_content_detected", None) or [False] * len(images)
        return [
            Painted(image.convert("RGB"), bool(flag))
            for image, flag in zip(images, flags, strict=True)
        ]

    def truncates(self, prompt: str) -> bool:
        """Return whether none of the text encoders sees the whole prompt."""
        from transformers import PreTrainedTokenizerBase

        tokenizers = [
            part
            for part in self._pipe.components.values()
            if isinstance(part, PreTrainedTokenizerBase)
        ]
        return bool(tokenizers) and all(
            len(one(prompt).input_ids) > one.model_max_length for one in tokenizers
        )

    def describe(self) -> dict[str, Any]:
        """Return what the manifest says of the model: what decides its images, as JSON values."""
        options, scheduler = self._options, getattr(self._pipe, "scheduler", None)
        return {
            "model": printable(options.model),
            "pipeline": type(self._pipe).__name__,
            "scheduler": None if scheduler is None else type(scheduler).__name__,
            "revision": options.revision,
            "commit": _commit(options.model, options.revision),
            "loras": [
                {
                    "source": printable(lora.source),
                    "scale": lora.scale,
                    "sha256": _file_digest(lora.source),
                }
                for lora in options.loras
            ],
            "dtype": self.dtype,
            "arguments": options.call_arguments(),
        }


def choose_dtype(asked: str, device: str) -> str:
    """Return the name of a dtype, with ``"auto"`` resolved for a device.

    Raises:
        UsageError: there is no such dtype.
    """
    if asked not in DTYPES:
        raise UsageError(f"no dtype {asked!r}: choose among {', '.join(DTYPES)}")
    if asked != "auto":
        return asked
    return "bfloat16" if device.startswith("cuda") else "float32"


def load_pipeline(options: PipelineOptions, dtype: str) -> Any:
    """Return the diffusers pipeline that ``options`` names, on the CPU, without LoRA.

    Raises:
        UsageError: the folder holds none.
        RealBenchError: the pipeline cannot be loaded.
    """
    import diffusers
    import torch

    quiet_models()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    folder = Path(options.model)
    if folder.is_dir() and not (folder / "model_index.json").is_file():
        raise UsageError(
            f"{printable(folder)} has no model_index.json: name a folder that a diffusers "
            "pipeline was saved to, or a hub id"
        )
    try:
        return diffusers.DiffusionPipeline.from_pretrained(
            options.model,
            revision=options.revision,
            torch_dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:  # no set of errors is documented: network, names, files, versions
        raise RealBenchError(
            f"cannot load the pipeline {printable(options.model)}: {hub_reason(error)}"
        ) from error


def _check_arguments(arguments: Mapping[str, Any], pipe: Any) -> None:
    parameters = inspect.signature(type(pipe).__call__).parameters.values()
    known = [one.name for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
    unknown = [name for name in arguments if name not in known]
    taken = {"prompt", "generator", "output_type", "return_dict", "num_images_per_prompt"}
    clashing = sorted(taken & set(arguments))
    if unknown:
        raise UsageError(
            f"{type(pipe).__name__} takes no {unknown[0]}; it takes "
            f"{', '.join(name for name in known if name not in taken | {'self'})}"
        )
    if clashing:
        raise UsageError(f"{clashing[0]} is set by generate itself")


def _put_on(lora: Lora, name: str, pipe: Any) -> None:
    if Path(lora.source).is_file() and not lora.source.endswith(".safetensors"):
        raise UsageError(f"--lora {printable(lora.source)}: only safetensors files are read")
    if not hasattr(pipe, "load_lora_weights"):
        raise UsageError(f"{type(pipe).__name__} takes no LoRA")
    try:
        pipe.load_lora_weights(lora.source, adapter_name=name, use_safetensors=True)
    except Exception as error:  # as for pipelines
        reason = hub_reason(error)
        if "PEFT" in reason:
            reason = f"it needs peft: {INSTALL}"
        raise RealBenchError(f"cannot load --lora {printable(lora.source)}: {reason}") from error
    if not any(name in names for names in pipe.get_list_adapters().values()):
        raise RealBenchError(
            f"--lora {printable(lora.source)} has no weights that fit {type(pipe).__name__}"
        )


def _commit(model: str, revision: str | None) -> str | None:
    """Return the hub's commit of a model that was loaded, None of a folder."""
    from huggingface_hub import try_to_load_from_cache

    if Path(model).is_dir():
        return None
    found = try_to_load_from_cache(model, "model_index.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def _file_digest(source: str) -> str | None:
    path = Path(source)
    if path.is_dir():
        path /= "pytorch_lora_weights.safetensors"
    return file_sha256(path) if path.is_file() else None
