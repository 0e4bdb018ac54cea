"""Flow-matching models that can be trained: one file for each pipeline class of diffusers.

:func:`load_flow_model` finds the adapter by the name of the pipeline's class. A class that is not
listed here needs one small file: see ``docs/flow-models.md``.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from realbench.errors import RealBenchError, UsageError
from realbench.runs.folder import install_command
from realbench.train.flow_models.flow_model import FlowModel

if TYPE_CHECKING:
    from collections.abc import Callable

INSTALL = install_command("train")

# The class of a pipeline, and the adapter that is made of one.
FLOW_MODELS: dict[str, str] = {
    "StableDiffusion3Pipeline": "realbench.train.flow_models.sd3:StableDiffusion3",
    "FluxPipeline": "realbench.train.flow_models.flux:Flux",
    "QwenImagePipeline": "realbench.train.flow_models.qwen_image:QwenImage",
    "ZImagePipeline": "realbench.train.flow_models.z_image:ZImage",
    "SmallPhotoPipeline": "realbench.train.flow_models.small_photo:SmallPhoto",
}

SMALL_PHOTO = "small-photo"  # the model that is shipped, by its name


def load_flow_model(
    source: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    adapter: str | None = None,
) -> FlowModel:
    """Load a pipeline that can be trained.

    Args:
        source: a folder that a diffusers pipeline was saved to, a hub id, or ``"small-photo"``,
            the small model that is shipped.
        dtype: ``"auto"`` (bfloat16 on CUDA, else float32), ``"float32"``, ``"bfloat16"`` or
            ``"float16"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda:0"`` and so on.
        revision: of the hub: a branch, tag or commit.
        adapter: ``"module:Class"`` of a user's own adapter; by default the one for the class of
            the pipeline. If it has a static ``load_pipeline(source, dtype)``, that makes the
            pipeline, whose class diffusers then need not know.

    Raises:
        UsageError: there is no adapter for the pipeline, or the options do not suit.
        RealBenchError: a package is missing, or the pipeline cannot be loaded.
    """
    if find_spec("diffusers") is None:
        raise RealBenchError(f"training needs diffusers: {INSTALL}")
    from realbench.generation.pipeline import PipelineOptions, choose_dtype, load_pipeline
    from realbench.scoring.scorer import choose_device

    device = choose_device(device)
    chosen = find_adapter(adapter) if adapter is not None else None
    own = getattr(chosen, "load_pipeline", None)
    if own is not None:
        pipeline = own(str(source), choose_dtype(dtype, device))
    elif adapter is None and _is_small_photo(source):
        import torch

        from realbench.generation.small_photo import load_small_photo

        chosen_dtype = torch.float32 if dtype == "auto" else getattr(torch, dtype)
        folder = None if str(source) == SMALL_PHOTO else source
        pipeline = load_small_photo(folder, dtype=chosen_dtype)
    else:
        options = PipelineOptions(str(source), revision=revision)
        pipeline = load_pipeline(options, choose_dtype(dtype, device))
    pipeline.set_progress_bar_config(disable=True)
    return (chosen or adapt)(pipeline.to(device))


def adapt(pipeline: Any) -> FlowModel:
    """Return the adapter of a loaded pipeline.

    Raises:
        UsageError: there is none for its class.
    """
    for kind in type(pipeline).__mro__:
        if kind.__name__ in FLOW_MODELS:
            return find_adapter(FLOW_MODELS[kind.__name__])(pipeline)
    raise UsageError(
        f"{type(pipeline).__name__} cannot be trained (those that can: {', '.join(FLOW_MODELS)}): "
        "name an adapter of your own as module:Class, see docs/flow-models.md"
    )


def find_adapter(name: str) -> Callable[[Any], FlowModel]:
    """Return what ``"module:Class"`` names; modules of the working directory are found too.

    Raises:
        UsageError: there is no such module or class.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise UsageError(f"adapter {name!r} is not of the form module:Class")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        found: Callable[[Any], FlowModel] = resolve_name(name)
    except ModuleNotFoundError as error:
        raise UsageError(f"adapter {name}: there is no module {error.name}") from error
    except (AttributeError, ImportError, ValueError, SyntaxError) as error:
        raise UsageError(f"adapter {name}: {' '.join(str(error).split())}") from error
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise UsageError(f"adapter {name} is no class")
    return found


def _is_small_photo(source: str | Path) -> bool:
    index = Path(source) / "model_index.json"
    if not index.is_file():
        return str(source) == SMALL_PHOTO
    try:
        return bool(json.loads(index.read_bytes())["_class_name"] == "SmallPhotoPipeline")
    except (ValueError, LookupError, TypeError):
        return False  # diffusers will say what is wrong with it
