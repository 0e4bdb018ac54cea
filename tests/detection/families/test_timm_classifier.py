"""Any timm network with a real/fake head, against timm and torchvision used by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision import transforms

import realbench
from realbench.errors import RealBenchError
from tests.detection.families.published_cards import logits, pictures

CARD = """name = "mine"
level = "feature"
family = "timm-classifier"
description = "A timm network with random weights"
licence = "Apache-2.0"

[input]
size = 96
fit = "short-side"
resize = "bilinear"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]

[model]
architecture = "{architecture}"

[weights]
source = "file"
file = "best.ckpt"
key = "state_dict"
strip_prefix = "model."

[output]
{output}
"""


def save(folder: Path, architecture: str, output: str, classes: int) -> torch.nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(architecture, num_classes=classes)
    torch.nn.init.normal_(network.get_classifier().weight, std=0.2)
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "best.ckpt")
    (folder / "card.toml").write_text(CARD.format(architecture=architecture, output=output))
    return network.eval()


@pytest.mark.parametrize("architecture", ["test_vit", "test_resnet"])
@pytest.mark.parametrize(
    ("output", "classes"),
    [
        ('kind = "logit-real"', 1),
        ('kind = "logit-fake"', 1),
        ('kind = "classes"\nreal = 0', 2),
        ('kind = "classes"\nreal = 1', 2),
        ('kind = "classes"\nreal = 2\n[model.options]\nnum_classes = 4', 4),
    ],
)
def test_the_card_says_which_output_is_real(
    tmp_path: Path, architecture: str, output: str, classes: int
) -> None:
    network = save(tmp_path, architecture, output, classes)
    prepare = transforms.Compose(
        [
            transforms.Resize(96),
            transforms.CenterCrop(96),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    images = pictures((200, 130), (96, 300), (50, 40))
    with torch.no_grad():
        outputs = network(torch.stack([prepare(Image.fromarray(image)) for image in images]))
    if classes == 1:
        real = (outputs if "real" in output else -outputs).sigmoid().squeeze(1)
    else:
        real = outputs.softmax(dim=1)[:, int(output.split("real = ")[1][0])]
    assert np.ptp(real.numpy()) > 0.001
    found = torch.from_numpy(logits(realbench.load_detector(tmp_path), images)).sigmoid()
    torch.testing.assert_close(found, real, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("output", "classes", "message"),
    [
        ('kind = "logit-real"', 2, "does not fit"),
        ('kind = "classes"\nreal = 2', 2, "2 outputs"),
        ('kind = "classes"', 2, "index of the real class"),
        ('kind = "logit-real"\nreal = 0', 1, "index of the real class"),
    ],
)
def test_a_head_that_the_card_does_not_describe_is_refused(
    tmp_path: Path, output: str, classes: int, message: str
) -> None:
    save(tmp_path, "test_vit", output, classes)
    with pytest.raises(RealBenchError, match=message) as caught:
        realbench.load_detector(tmp_path)
    assert "\n" not in str(caught.value)
