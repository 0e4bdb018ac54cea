"""NPR and SAFE against their papers' equations, written with other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision import transforms

import realbench
from realbench.detection.families.trace_cnn import TraceCNN, diagonal_details
from realbench.errors import RealBenchError, UsageError
from tests.detection.families.published_cards import changed_card, logits, pictures

SIZES = ((300, 420), (512, 260), (90, 120), (1, 1))


def random_weights(outputs: int) -> dict[str, Tensor]:
    """Weights with the published names and shapes, and statistics as after training."""
    generator = torch.Generator().manual_seed(0)
    state = TraceCNN(diagonal_details, outputs).state_dict()
    for name, value in state.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2, generator=generator)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.2, generator=generator)
    state["fc1.weight"].normal_(0, 1, generator=generator)
    return state


def resnet(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """A ResNet-50 up to its second stage, its stem 3 x 3 with stride 2: (n, outputs)."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        return functional.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        scaled = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return (
            scaled * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]
        )

    x = norm(conv(x, "conv1", 2, 1), "bn1").relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    for stage, blocks in (("layer1", 3), ("layer2", 4)):
        for n in range(blocks):
            block = f"{stage}.{n}"
            stride = 2 if (stage, n) == ("layer2", 0) else 1
            y = norm(conv(x, f"{block}.conv1"), f"{block}.bn1").relu()
            y = norm(conv(y, f"{block}.conv2", stride, 1), f"{block}.bn2").relu()
            y = norm(conv(y, f"{block}.conv3"), f"{block}.bn3")
            if n == 0:
                x = norm(conv(x, f"{block}.downsample.0", stride), f"{block}.downsample.1")
            x = (x + y).relu()
    pooled = functional.adaptive_avg_pool2d(x, 1).flatten(1)
    return pooled @ state["fc1.weight"].T + state["fc1.bias"]


def test_npr_gives_the_papers_number(tmp_path: Path) -> None:
    state = random_weights(1)
    torch.save(state, tmp_path / "NPR.pth")
    images = pictures(*SIZES)
    prepare = transforms.Compose(
        [
            transforms.Resize((256, 256)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    x = torch.stack([prepare(Image.fromarray(image)) for image in images])
    first = x[:, :, ::2, ::2].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = -resnet(state, (x - first) * 2 / 3).squeeze(1).numpy()  # the logit of P(fake)
    assert np.ptp(expected) > 0.1
    detector = realbench.load_detector("npr", weights=tmp_path / "NPR.pth")
    np.testing.assert_allclose(logits(detector, images), expected, atol=1e-4, rtol=1e-4)


def wavelet_details(x: np.ndarray) -> Tensor:
    """The HH band of the biorthogonal wavelet 1.3, (n, 3, S, S), scaled back by torchvision."""
    _, (_, _, details) = pywt.dwt2(x.astype(np.float64), "bior1.3", mode="symmetric", axes=(2, 3))
    return transforms.Resize(x.shape[2:], antialias=True)(torch.from_numpy(details).float())


def test_safe_gives_the_papers_number(tmp_path: Path) -> None:
    state = random_weights(2)
    torch.save({"model": state, "epoch": "best"}, tmp_path / "checkpoint-best.pth")
    images = pictures(*SIZES)
    prepare = transforms.Compose([transforms.CenterCrop([256, 256]), transforms.ToTensor()])
    x = torch.stack([prepare(Image.fromarray(image)) for image in images])
    outputs = resnet(state, wavelet_details(x.numpy())).numpy()
    expected = outputs[:, 0] - outputs[:, 1]  # classes: 0 real, 1 generated
    assert np.ptp(expected) > 0.1
    detector = realbench.load_detector("safe", weights=tmp_path / "checkpoint-best.pth")
    np.testing.assert_allclose(logits(detector, images), expected, atol=1e-4, rtol=1e-4)


def test_details_are_those_of_pywavelets() -> None:
    x = torch.rand((2, 3, 62, 40), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(diagonal_details(x), wavelet_details(x.numpy()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_network_has_the_published_size(outputs: int) -> None:
    network = TraceCNN(diagonal_details, outputs)
    parameters = sum(weight.numel() for weight in network.parameters())
    assert round(parameters / 1e6, 1) == 1.4
    assert sorted(network.state_dict()) == sorted(random_weights(outputs))
    assert network.state_dict()["fc1.weight"].shape == (outputs, 512)


def test_weights_of_the_other_detector_are_refused(tmp_path: Path) -> None:
    torch.save(random_weights(2), tmp_path / "NPR.pth")
    with pytest.raises(RealBenchError, match=r"NPR\.pth does not fit 'npr' of its card") as caught:
        realbench.load_detector("npr", weights=tmp_path / "NPR.pth")
    assert "\n" not in str(caught.value)


def test_a_wrong_card_is_refused(tmp_path: Path) -> None:
    for change, message in (
        (('architecture = "npr"', 'architecture = "rpn"'), "none of npr, safe"),
        (("size = 256", "size = 255"), "even"),
    ):
        card = changed_card(tmp_path, "npr", change)
        with pytest.raises(UsageError, match=message):
            realbench.load_detector(card, weights=tmp_path)
