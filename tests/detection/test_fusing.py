"""Fusing layers changes how fast a network is, never what it computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from realbench.detection.families import fusing
from realbench.detection.families.embedded import TimmNetwork
from realbench.detection.families.fusing import FusedConvolution, fuse

SIZE = 64


def count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


def with_random_statistics(network: nn.Module) -> nn.Module:
    """Give every batch norm means and variances as after training, so that folding matters."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


@pytest.fixture
def pictures() -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(2)
    with torch.inference_mode():
        yield torch.rand((5, 3, SIZE, SIZE), generator=generator) * 255


@pytest.mark.parametrize(
    "architecture",
    ["tf_efficientnet_lite0", "test_efficientnet", "resnet18", "test_convnext", "densenet121"],
)
def test_the_outputs_stay_what_they_were(architecture: str, pictures: Tensor) -> None:
    network = with_random_statistics(TimmNetwork(architecture))
    norms, before = count(network, nn.BatchNorm2d), network(pictures)
    fused = fuse(network, SIZE)
    torch.testing.assert_close(fused(pictures), before, rtol=1e-4, atol=1e-4)
    # Both memory formats, and one input as well as several, take paths of their own.
    last = fused.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        last(pictures[:1].contiguous(memory_format=torch.channels_last)),
        before[:1],
        rtol=1e-4,
        atol=1e-4,
    )
    assert count(network, nn.BatchNorm2d) == norms  # the one given is not changed
    if norms:
        assert count(fused, nn.BatchNorm2d) < norms


def test_the_embedded_architecture_is_fused_whole() -> None:
    network = with_random_statistics(TimmNetwork("tf_efficientnet_lite0"))
    fused = fuse(network, SIZE)
    assert count(fused, nn.BatchNorm2d) == 0
    assert count(fused, FusedConvolution) == count(network, nn.Conv2d)


def test_a_build_without_the_call_of_onednn_folds_all_the_same(
    monkeypatch: pytest.MonkeyPatch, pictures: Tensor
) -> None:
    def missing(*_: object) -> Tensor:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(fusing.FusedConvolution, "forward", missing)
    network = with_random_statistics(TimmNetwork("resnet18"))
    fused = fuse(network, SIZE)
    assert (count(fused, nn.BatchNorm2d), count(fused, FusedConvolution)) == (0, 0)
    torch.testing.assert_close(fused(pictures), network(pictures), rtol=1e-4, atol=1e-4)


class Reuses(nn.Module):
    """Uses a convolution's output twice: once through its batch norm, once without."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        made = self.convolution(x)
        return (self.norm(made) + made).mean(dim=(1, 2, 3))


class Shares(nn.Module):
    """Applies one convolution twice, each time before a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, x: Tensor) -> Tensor:
        for norm in self.norms:
            x = norm(self.convolution(x))
        return x.mean(dim=(1, 2, 3))


@pytest.mark.parametrize("kind", [Reuses, Shares])
def test_a_network_that_cannot_be_folded_is_left_alone(
    kind: type[nn.Module], pictures: Tensor
) -> None:
    network = with_random_statistics(kind())
    before = network(pictures)
    fused = fuse(network, SIZE)
    torch.testing.assert_close(fused(pictures), before)
    assert count(fused, nn.BatchNorm2d) == count(network, nn.BatchNorm2d)
