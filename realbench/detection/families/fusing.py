"""Makes a trained network quick on a CPU without changing what it computes.

Batch norms are folded into the convolutions before them, and a convolution runs together with the
activation after it. Together that takes a third off the time of a pass.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# How oneDNN calls the activations that it can run with a convolution, and their parameters.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


class FusedConvolution(nn.Module):
    """A convolution and its activation: on a CPU one call of oneDNN, elsewhere two of torch.

    On one thread and with fewer than 16 inputs, torch's own conv2d takes an older algorithm
    instead, half as fast. The call is the one that ``torch.compile`` makes.
    """

    def __init__(self, convolution: nn.Conv2d, activation: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution
        self.activation = activation
        self.operation, self.scalars = _ACTIVATIONS[type(activation)]

    def forward(self, x: Tensor) -> Tensor:
        own = self.convolution
        if x.device.type != "cpu" or torch.is_grad_enabled():  # oneDNN's call has no gradient
            return self.activation(own(x))
        padding = own.padding
        if isinstance(own, Conv2dSame):
            x = pad_same(x, list(own.kernel_size), list(own.stride), list(own.dilation))
            padding = (0, 0)
        return torch.ops.mkldnn._convolution_pointwise(
            x,
            own.weight,
            own.bias,
            padding,
            own.stride,
            own.dilation,
            own.groups,
            self.operation,
            self.scalars,
            "",
        )


@torch.no_grad()
def fuse(network: nn.Module, size: int) -> nn.Module:
    """Return ``network`` for inference, with its layers folded and fused.

    A forward pass shows which batch norm takes the output of which convolution. Whether that
    pairing was the whole truth is checked on the output: a step that changes it is left out.

    Args:
        network: in evaluation mode, of floats (n, 3, S, S) in [0, 255], on the CPU; not changed.
        size: S.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network  # a transformer, say
    noise = torch.rand((2, 3, size, size), generator=torch.Generator().manual_seed(0)) * 255
    for with_activations in (True, False):
        candidate = copy.deepcopy(network)
        try:
            expected, pairs = _watch(candidate, noise)
            _fold(candidate, pairs, with_activations)
            same = torch.allclose(candidate(noise), expected, rtol=1e-3, atol=1e-3)
        except (RuntimeError, AttributeError):  # this build of torch has no such call
            same = False
        if same:
            return candidate
    return network


def _watch(network: nn.Module, x: Tensor) -> tuple[Tensor, list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """Run ``network``; return its output and the pairs of a convolution and its batch norm."""
    makers: dict[int, nn.Conv2d] = {}
    outputs: list[Tensor] = []  # kept, so that no id is used twice
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    calls: Counter[int] = Counter()

    def made(module: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        calls[id(module)] += 1
        makers[id(output)] = module
        outputs.append(output)

    def taken(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        calls[id(module)] += 1
        if id(inputs[0]) in makers:
            pairs.append((makers[id(inputs[0])], module))

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(made))
        elif isinstance(module, nn.BatchNorm2d) and _foldable(module):
            hooks.append(module.register_forward_pre_hook(taken))
    output = network(x)
    for hook in hooks:
        hook.remove()
    return output, [pair for pair in pairs if all(calls[id(module)] == 1 for module in pair)]


def _foldable(norm: nn.BatchNorm2d) -> bool:
    plain = type(norm) is nn.BatchNorm2d or hasattr(norm, "act")  # timm's has an activation too
    return plain and norm.running_mean is not None and norm.running_var is not None


def _fold(
    network: nn.Module, pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]], with_activations: bool
) -> None:
    """Fold the batch norms of ``pairs`` and put what is left of them in their places."""
    replaced: dict[int, nn.Module] = {}
    for convolution, norm in pairs:
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None  # by _foldable
        assert variance is not None
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )
        activation = getattr(norm, "act", None) or nn.Identity()
        if with_activations and _fusable(convolution, activation):
            replaced[id(convolution)] = FusedConvolution(convolution, activation)
            activation = nn.Identity()
        replaced[id(norm)] = activation
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in replaced:
                setattr(parent, name, replaced[id(child)])


def _fusable(convolution: nn.Conv2d, activation: nn.Module) -> bool:
    return (
        type(convolution) in (nn.Conv2d, Conv2dSame)
        and type(activation) in _ACTIVATIONS
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
    )
