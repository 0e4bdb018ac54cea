"""The terms of a reward that detectors give, and those that a user's own function gives."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from realbench.detection.registry import DEFAULT_DETECTORS
from realbench.detection.weight_files import parse_weights
from realbench.errors import RealBenchError, RealBenchWarning, UsageError
from realbench.files import file_sha256
from realbench.reward.config import AlignmentConfig, DetectorsConfig, FunctionConfig, Named
from realbench.scoring.scorer import Scorer, choose_device

if TYPE_CHECKING:
    from torch import Tensor


class DetectorsComponent(Named):
    """The realism of an ensemble of detectors.

    Attributes:
        scorer: The loaded detectors.
    """

    def __init__(self, config: DetectorsConfig, device: str = "auto") -> None:
        super().__init__(config)
        self.scorer = Scorer(
            config.detectors or DEFAULT_DETECTORS,
            device=device,
            batch_size=config.batch_size,
            weights=parse_weights([f"{name}={path}" for name, path in config.weights.items()]),
            precision=config.precision,
        )

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        return self.scorer.reward(images)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "detectors",
            "device": self.scorer.device,
            "detectors": [
                {
                    "name": name,
                    "level": one.level,
                    "weight": self.scorer.shares[name],
                    "fingerprint": one.fingerprint,
                }
                for name, one in self.scorer.detectors.items()
            ],
        }


class FunctionComponent(Named):
    """A function of the user's own; what it raises names it."""

    def __init__(self, config: FunctionConfig) -> None:
        super().__init__(config)
        self._where = config.function
        self._function = _found(config.function)

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        try:
            return self._function(images, prompts)
        except RealBenchError:
            raise
        except Exception as error:
            raise RealBenchError(
                f"the reward function {self._where} failed: {type(error).__name__}: {error}"
            ) from error

    def describe(self) -> dict[str, Any]:
        return {"kind": "function", "function": self._where}


def _found(where: str) -> Callable[..., Any]:
    """Import ``module:function``; modules in the working directory come after installed ones."""
    module_name, _, path = where.partition(":")
    here = "" in sys.path
    if not here:
        sys.path.append("")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"reward function {where}: {module_name} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        if not here:
            sys.path.remove("")
    for part in path.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UsageError(f"reward function {where}: {module_name} has no function {path}")
    return cast(Callable[..., Any], found)


_LONG_CLIP_KEPT = 20
"""Positions that Long-CLIP takes from CLIP as they are (arXiv 2403.15378, section 3.1)."""


class AlignmentComponent(Named):
    """CLIPScore, min(1, scale · max(0, cos(image, text))) (Hessel et al., 2021, arXiv 2104.08718).

    The cosine of CLIP models lies below 0.4 even where image and text fit, which the paper's
    factor of 2.5 spreads over [0, 1]; it is cut at 1 so that it is a reward. Models of the SigLIP
    kind have smaller cosines and want a larger ``scale``.

    Args:
        config: See :class:`~realbench.reward.config.AlignmentConfig`.
        device: Where the model goes.

    Attributes:
        model: The loaded model of open_clip.
        context_length: Tokens of a prompt that are read; the rest is cut off, with a warning.

    Raises:
        UsageError: there is no such model or file.
        RealBenchError: the weights cannot be loaded into it.
    """

    def __init__(self, config: AlignmentConfig, device: str = "auto") -> None:
        import open_clip

        super().__init__(config)
        self._config = config
        self._device = choose_device(device)
        self.model = _loaded(config).to(self._device).eval()
        self.context_length = int(getattr(self.model, "context_length", 77))
        with _one_line(config):
            self._tokenize = open_clip.get_tokenizer(
                config.model, context_length=self.context_length
            )
        self._padding = int(self._tokenize([""])[0, -1])
        preprocess = open_clip.transform.PreprocessCfg(**self.model.visual.preprocess_cfg)
        self._prepare = open_clip.transform.image_transform_v2(preprocess, is_train=False)
        self._cut = False

    def __call__(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        import torch

        size = self._config.batch_size
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images), size):
                cosine = self._cosine(images[start : start + size], prompts[start : start + size])
                parts.append(cosine.float().cpu().numpy())
        return np.clip(self._config.scale * np.concatenate(parts), 0, 1).astype(np.float32)

    def _cosine(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> Tensor:
        import torch
        from PIL import Image

        # A group's images have one prompt: its text is embedded once.
        texts, position = np.unique(np.array(prompts, dtype=object), return_inverse=True)
        tokens = self._tokenize(list(texts))
        self._warn_of_cut_texts(tokens)
        pixels = torch.stack([self._prepare(Image.fromarray(image)) for image in images])
        of_text = self.model.encode_text(tokens.to(self._device), normalize=True)
        of_image = self.model.encode_image(pixels.to(self._device), normalize=True)
        return (of_image * of_text[torch.as_tensor(position, device=self._device)]).sum(dim=-1)

    def _warn_of_cut_texts(self, tokens: Tensor) -> None:
        full = int((tokens[:, -1] != self._padding).sum())
        if full and not self._cut:
            self._cut = True
            warnings.warn(
                RealBenchWarning(
                    f"{self.name}: {self._config.model} reads {self.context_length} tokens of a "
                    f"prompt, and the rest of longer ones is not looked at ({full} of "
                    f"{len(tokens)} here); Long-CLIP reads 248"
                ),
                stacklevel=2,
            )

    def describe(self) -> dict[str, Any]:
        config = self._config
        file = Path(config.weights) if config.weights else None
        settings = {
            "kind": "alignment",
            "model": config.model,
            "weights": config.weights,
            "sha256": file_sha256(file) if file is not None and file.is_file() else None,
            "scale": config.scale,
            "context_length": self.context_length,
        }
        text = json.dumps(settings, sort_keys=True)
        return {**settings, "fingerprint": hashlib.sha256(text.encode()).hexdigest()}


def _loaded(config: AlignmentConfig) -> Any:
    import open_clip

    named = ":" in config.model  # hf-hub: or local-dir:, which bring their weights
    if not named and config.model not in open_clip.list_models():
        raise UsageError(
            f"open_clip has no model {config.model!r}: see open_clip.list_models(), or give "
            "hf-hub:ORG/NAME or local-dir:FOLDER"
        )
    if not named and not config.weights:
        raise UsageError(
            f"alignment with {config.model} needs weights: a tag of open_clip such as openai, or a "
            "file"
        )
    file = Path(config.weights) if config.weights and not named else None
    with _one_line(config):
        if file is not None and file.is_file():
            return _from_file(config.model, file)
        return open_clip.create_model(
            config.model,
            pretrained=None if named else config.weights,
            require_pretrained=True,
            weights_only=True,
        )


@contextmanager
def _one_line(config: AlignmentConfig) -> Iterator[None]:
    """Keep open_clip's messages from the terminal, and make its errors one line."""
    from realbench.hub_errors import hub_reason, without_own_code

    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), without_own_code():
            warnings.simplefilter("ignore")
            yield
    except RealBenchError:
        raise
    except Exception as error:
        raise RealBenchError(
            f"open_clip cannot load {config.model} with weights {config.weights!r}: "
            f"{hub_reason(error)}"
        ) from error
    finally:
        logging.disable(before)


def _from_file(architecture: str, file: Path) -> Any:
    """Build an architecture of open_clip and load a file of weights, CLIP's or Long-CLIP's."""
    import open_clip

    from realbench.detection.weights import read_checkpoint

    state = _as_clip(read_checkpoint(file))
    positions = state.get("positional_embedding")
    length = None if positions is None else len(positions)
    model = open_clip.create_model(
        architecture, load_weights=False, pretrained_text=False, force_context_length=length
    )
    try:
        missing, unknown = model.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in state.items()}, strict=False
        )
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RealBenchError(
            f"{file} does not fit {architecture}: {lines[min(1, len(lines) - 1)][:200]}"
        ) from error
    missing = [name for name in missing if not name.endswith("attn_mask")]
    if missing or unknown:
        which = f"lacks {missing[0]}" if missing else f"has {unknown[0]} besides"
        raise RealBenchError(f"{file} does not fit {architecture}: it {which}")
    return model


def _as_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by open_clip's names.

    Long-CLIP keeps two tables of positions and adds, at each, the one that is in charge there:
    the first 20 are CLIP's own, the others were stretched and trained. They make one table.
    """
    import torch

    known = {name.removeprefix("module."): value for name, value in state.items()}
    stretched = known.pop("positional_embedding_res", None)
    if stretched is not None:
        kept = known["positional_embedding"][:_LONG_CLIP_KEPT]
        known["positional_embedding"] = torch.cat([kept, stretched[_LONG_CLIP_KEPT:]])
    # What OpenAI's files say of themselves; open_clip knows it from the architecture.
    for name in ("input_resolution", "context_length", "vocab_size", "mask1", "mask2"):
        known.pop(name, None)
    return known
