"""The embedded network: what makes it faster leaves what it says."""

from __future__ import annotations

import pytest
import torch

from realbench.detection.families import patch_statistics
from realbench.detection.families.patch_statistics import PatchStatistics


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(
    "architecture", ["vit_base_patch16_clip_quickgelu_224", "vit_small_patch14_dinov2"]
)
def test_a_network_that_is_ready_says_the_same(
    architecture: str, bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = PatchStatistics(architecture, 112, [1, 2], class_token=True).eval()
    pictures = torch.randint(0, 256, (2, 3, 112, 112)).float()
    monkeypatch.setattr(patch_statistics, "has_bfloat16", lambda _: bfloat16)
    context = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
    monkeypatch.setattr(patch_statistics, "reduced_precision", lambda _: context)
    with torch.inference_mode():
        before = network.statistics(pictures)
        after = network.ready().statistics(pictures)
    torch.testing.assert_close(after, before, rtol=0, atol=0.03 if bfloat16 else 1e-5)
    assert before.abs().max() > 0.5
